"""What one sees and hears of an embedding and of mistakes: pictures with sounds to play, for report.html and TensorBoard alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tfmusic import catalogue, schema, search
from tfmusic.files import Location
from tfmusic.page import Exhibit, Sound

matplotlib.rcParams["text.parse_math"] = False  # labels may hold dollar signs
QUERIES, NEAREST = 6, 4  # retrieval panels
PAIRS = 20_000  # drawn for the histogram and the kinds of negatives
MARGIN = 0.2  # cosine distance within which a negative behind its positive is semi-hard
MISTAKES = 6  # worst ones that are heard, of a label each
HEARD_S = 5.0  # of every sound
KINDS = ("easy", "semi-hard", "hard")


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Embeddings of whole test tracks."""

    ids: list[str]
    groups: list[str]
    y_true: np.ndarray  # 0/1 (tracks, labels)
    embedding: np.ndarray  # float32 (tracks, dims), unit length
    labels: tuple[str, ...]

    def tags(self, row: int) -> str:
        return ", ".join(self.labels[i] for i in np.flatnonzero(self.y_true[row])) or "no tag"


def of_embedding(embedded: Embedded, records: Location, manifest: schema.Manifest, seed: int) -> list[Exhibit]:
    """Distances, kinds of negatives, triplets and retrievals of the test split.

    Args:
        embedded: its tracks, in the records' order.
        records: whose audio is heard.
        manifest: of the records.
        seed: of what is picked.

    Returns:
        Exhibits; fewer where labels or tracks are too few.
    """
    random = np.random.default_rng(seed)
    triplets = _triplets(embedded, random)
    kinds = _kinds(embedded, triplets)
    panels = _panels(embedded, random)
    shown = {kind: triplets[np.flatnonzero(kinds == number)[0]] for number, kind in enumerate(KINDS) if (kinds == number).any()}
    if manifest.layout.payload == "features":  # there is nothing to hear
        panels, shown = panels[:0], {}
    heard = _waveforms({int(row) for rows in [*panels, *shown.values()] for row in rows}, records, manifest)
    exhibits = []
    if len(triplets):
        exhibits.append(Exhibit("Distances of positives and negatives", figure=_histogram(embedded, triplets)))
        shares = ", ".join(f"{kind} {np.mean(kinds == number):.1%}" for number, kind in enumerate(KINDS))
        exhibits.append(
            Exhibit(
                "Embedding space",
                f"Random triplets of test tracks (the positive shares a tag, the negative none): {shares}. Easy: the negative is farther than "
                f"the positive by more than {MARGIN}; semi-hard: farther by less; hard: nearer.",
                figure=_space(embedded, shown),
            )
        )
    exhibits += [_triplet(embedded, kind, rows, heard, manifest) for kind, rows in shown.items()]
    exhibits += [_panel(embedded, rows, heard) for rows in panels]
    return exhibits


def of_mistakes(kept: Mapping[str, np.ndarray], records: Location, manifest: schema.Manifest) -> list[Exhibit]:
    """The worst false positives of the test split: of each label the track without it that scores highest, and of these the highest.

    Args:
        kept: a run's outputs (`run.outputs`).
        records: whose audio is heard.
        manifest: of the records.

    Returns:
        An exhibit, or none where there are no scores of labels.
    """
    if "scores" not in kept:
        return []
    absent = np.where(kept["y_true"].astype(bool), -np.inf, kept["scores"])
    worst = absent.argmax(axis=0)
    columns = [column for column in np.argsort(-absent.max(axis=0), kind="stable")[:MISTAKES] if absent[worst[column], column] > -np.inf]
    if not columns:
        return []
    rows = [["label", "score", "track", "its labels"]]
    for column in columns:
        row = worst[column]
        own = ", ".join(manifest.labels[i] for i in np.flatnonzero(kept["y_true"][row])) or "no label"
        rows.append([manifest.labels[column], f"{absent[row, column]:.3f}", str(kept["ids"][row]), own])
    sounds: tuple[Sound, ...] = ()
    if manifest.layout.payload != "features":
        heard = _waveforms({int(worst[column]) for column in columns}, records, manifest)
        captions = [f"{label} {score}: {track} ({own})" for label, score, track, own in rows[1:]]
        sounds = tuple(Sound(caption, heard[int(worst[column])]) for caption, column in zip(captions, columns, strict=True))
    text = "Of each label the test track without it that scores highest. Some may be right and the labels incomplete: listen."
    return [Exhibit("Worst false positives", text, rows, sounds=sounds)]


def _distance(embedded: Embedded, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return 1 - (embedded.embedding[rows] * embedded.embedding[others]).sum(axis=-1)


def _triplets(embedded: Embedded, random: np.random.Generator) -> np.ndarray:
    """Anchors, a positive and a negative each, at random `[shape=(triplets, 3)]`."""
    rows = random.integers(len(embedded.ids), size=(PAIRS, 3))
    anchors, positives, negatives = (embedded.y_true[rows[:, column]].astype(bool) for column in range(3))
    alike = (anchors & positives).any(axis=1) & (rows[:, 0] != rows[:, 1])
    return rows[alike & ~(anchors & negatives).any(axis=1) & (rows[:, 0] != rows[:, 2])]


def _kinds(embedded: Embedded, triplets: np.ndarray) -> np.ndarray:
    """Number of the kind in `KINDS` of every triplet."""
    gap = _distance(embedded, triplets[:, 0], triplets[:, 2]) - _distance(embedded, triplets[:, 0], triplets[:, 1])
    return np.where(gap > MARGIN, 0, np.where(gap > 0, 1, 2))


def _panels(embedded: Embedded, random: np.random.Generator) -> np.ndarray:
    """Queries and their nearest, at random `[shape=(queries, 1 + nearest)]`."""
    nearest = min(NEAREST, len(embedded.ids) - 1)
    if nearest < 1:
        return np.zeros((0, 1), np.int64)
    queries = random.permutation(len(embedded.ids))[:QUERIES]
    return np.concatenate([queries[:, None], search.nearest(embedded.embedding, nearest)[queries]], axis=1)


def _waveforms(rows: set[int], records: Location, manifest: schema.Manifest) -> dict[int, np.ndarray]:
    """The first seconds of the test tracks of these rows."""
    samples = round(HEARD_S * manifest.layout.sample_rate_hz)
    return {row: track.waveform[:samples] for row, track in catalogue.whole_tracks(records, manifest, "test", rows).items()}


def _histogram(embedded: Embedded, triplets: np.ndarray) -> Figure:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 2, 61)
    for column, name in ((1, "share a tag"), (2, "share none")):
        axes.hist(_distance(embedded, triplets[:, 0], triplets[:, column]), bins, density=True, alpha=0.6, label=name)
    axes.set(xlabel="cosine distance of two test tracks", ylabel="density", xlim=(0, 2))
    axes.legend()
    return figure


def _space(embedded: Embedded, shown: dict[str, np.ndarray]) -> Figure:
    """The two main directions of the embedding, and the shown triplets in it."""
    centred = embedded.embedding - embedded.embedding.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    places = centred @ directions[:2].T
    if places.shape[1] < 2:
        places = np.pad(places, [(0, 0), (0, 1)])
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*places.T, s=6, color="lightgrey", label="test tracks")
    for number, (kind, (anchor, positive, negative)) in enumerate(shown.items()):
        colour = f"C{number}"
        axes.plot(*places[[anchor, positive]].T, color=colour, label=f"{kind}: anchor (dot) to positive")
        axes.plot(*places[[anchor, negative]].T, color=colour, linestyle=":", label=f"{kind}: anchor to negative")
        axes.plot(*places[anchor], "o", color=colour)
    axes.set(xlabel="first principal direction", ylabel="second")
    axes.legend(fontsize="small")
    return figure


def _triplet(embedded: Embedded, kind: str, rows: np.ndarray, heard: dict[int, np.ndarray], manifest: schema.Manifest) -> Exhibit:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    names = ("anchor", "positive", "negative")
    sounds = []
    for axes, name, row in zip(figure.subplots(3, 1, sharex=True), names, rows, strict=True):
        waveform = heard[int(row)]
        distance = "" if row == rows[0] else f", distance {_distance(embedded, rows[0], row):.3f}"
        caption = f"{name}: {embedded.ids[row]} ({embedded.tags(row)}){distance}"
        axes.plot(np.arange(len(waveform)) / manifest.layout.sample_rate_hz, waveform / 32768, linewidth=0.4)
        axes.set_title(caption, fontsize="small", loc="left")
        axes.set(ylim=(-1, 1))
        sounds.append(Sound(caption, waveform))
    axes.set(xlabel="s")
    return Exhibit(f"A triplet with a negative that is {kind}", figure=figure, sounds=tuple(sounds))


def _panel(embedded: Embedded, rows: np.ndarray, heard: dict[int, np.ndarray]) -> Exhibit:
    query, *nearest = (int(row) for row in rows)
    sounds = [Sound(f"query: {embedded.ids[query]} ({embedded.tags(query)})", heard[query])]
    for rank, row in enumerate(nearest, start=1):
        shared = embedded.y_true[query].astype(bool) & embedded.y_true[row].astype(bool)
        common = ", ".join(embedded.labels[i] for i in np.flatnonzero(shared)) or "nothing"
        similarity = 1 - _distance(embedded, query, row)
        sounds.append(Sound(f"{rank}: {embedded.ids[row]} ({embedded.tags(row)}), similarity {similarity:.3f}, shares {common}", heard[row]))
    return Exhibit(f"Nearest to {embedded.ids[query]}", sounds=tuple(sounds))
