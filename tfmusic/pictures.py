"""Pictures of figures: curves over epochs, bars per label, ROC and precision-recall, confusion, scatter. No TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfmusic import decisions, metrics, regression
from tfmusic.tables import NAMES, number

if TYPE_CHECKING:
    from tfmusic import schema

matplotlib.rcParams["text.parse_math"] = False  # labels may hold dollar signs
TILES = 32  # filters or activations of a layer
MERGED = 60  # labels of a side before and after merging
CURVES = 12  # of classes, beyond which nobody tells them apart
NUMBERED, PERCENT = 40, 15  # classes of a confusion matrix that show counts, and shares as well
BOUNDS = metrics.BOUNDS | regression.BOUNDS  # of figures that are not between 0 and 1
History = Sequence[Mapping[str, float]]


def curves(history: History, monitor: str, watched: Sequence[str]) -> Figure:
    """Training loss beside validation figures over epochs, the best epoch marked; what both splits have is drawn for both.

    Args:
        history: logs of the epochs, with "epoch" from 0 and "loss"; may be empty.
        monitor: name of the figure whose greatest value is the best epoch's.
        watched: names of further figures.
    """
    logged = [*history[0]] if history else []
    shown = [name for name in dict.fromkeys([*(f"val_{name}" for name in watched), monitor, "active"]) if name in logged]
    apart = [name for name in shown if BOUNDS.get(name.removeprefix("val_"), (0, 1))[1] == math.inf]  # each on a scale of its own
    figure = Figure(figsize=(10, 3.5) if not apart else (12, 3.2), layout="constrained")
    axes = figure.subplots(1, 2 + len(apart), squeeze=False)[0]
    epochs = [row["epoch"] + 1 for row in history]

    def draw(place, name: str, **style) -> None:
        place.plot(epochs, [row[name] for row in history], marker=".", **style)

    for name in [name for name in logged if name == "loss" or (name.endswith("loss") and f"val_{name}" in logged)]:
        for hue, side in enumerate(side for side in (name, f"val_{name}") if side in logged):
            draw(axes[0], side, color=f"C{hue}", label=side, linestyle="-" if name == "loss" else ":")
    axes[0].set(xlabel="epoch", ylabel="training loss")
    for name in [name for name in shown if name not in apart]:
        draw(axes[1], name, label=_named(name), linestyle=":" if name == "active" else "-")
        if name.startswith("val_") and name[4:] in logged:
            draw(axes[1], name[4:], label=f"{_named(name)}, training", linestyle="--")
    for place, name in zip(axes[2:], apart, strict=True):
        draw(place, name)
        place.set(xlabel="epoch", ylabel=f"{_named(name)}, validation")
    lowest = min((row[name] for row in history for name in shown if name not in apart and not math.isnan(row[name])), default=0)
    axes[1].set(xlabel="epoch", ylabel="validation, whole tracks", ylim=(max(-1, min(0, lowest)), 1))
    if history:
        best = best_epoch(history, monitor)["epoch"] + 1
        for place in axes:
            place.axvline(best, color="grey", linestyle=":", label=f"best {_named(monitor)}" if place is axes[1] else None)
            place.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1].legend(fontsize="small")
        if "val_loss" in logged:
            axes[0].set_ylabel("loss: of training windows, of whole validation tracks")
            axes[0].legend(fontsize="small")
    return figure


def _named(name: str) -> str:
    return NAMES.get(name.removeprefix("val_"), name.removeprefix("val_"))


def best_epoch(history: History, monitor: str) -> Mapping[str, float]:
    """The logs of the epoch whose model is kept: the first of the greatest value; a nan is never best."""
    return max(history, key=lambda row: -math.inf if math.isnan(row[monitor]) else row[monitor])


def per_label(figures: Mapping, name: str, chance: float | None) -> Figure:
    """One bar per label, best on top, with the label's number of positives; chance as a line, or for average precision as a mark each."""
    shares = [count / figures["tracks"] for count in figures["positives"]]
    bars = [
        (value, f"{label} ({count})", share)
        for label, value, count, share in zip(figures["labels"], figures[f"{name}_per_class"], figures["positives"], shares, strict=True)
        if value is not None
    ]
    bars.sort()
    figure = Figure(figsize=(8, 1 + 0.22 * len(bars)), layout="constrained")
    axes = figure.subplots()
    axes.barh([label for _, label, _ in bars], [value for value, _, _ in bars])
    if chance is None:
        axes.plot([share for _, _, share in bars], range(len(bars)), "k|", markersize=9, label="chance")
    else:
        axes.axvline(chance, color="black", linestyle=":", label="chance")
    axes.set(xlim=(0, 1), xlabel=NAMES[name])
    axes.margins(y=0.01)
    axes.legend(loc="lower right")
    return figure


def label_counts(manifest: schema.Manifest) -> Figure:
    """Tracks of each label in each split, most frequent on top."""
    total = [sum(split.label_counts[i] for split in manifest.splits.values()) for i in range(len(manifest.labels))]
    order = sorted(range(len(total)), key=lambda i: total[i])
    figure = Figure(figsize=(8, 1 + 0.22 * len(order)), layout="constrained")
    axes = figure.subplots()
    left = [0] * len(order)
    for name, split in manifest.splits.items():
        counts = [split.label_counts[i] for i in order]
        axes.barh([manifest.labels[i] for i in order], counts, left=left, label=f"{name} ({split.tracks} tracks, {manifest.hours(name):.2f} h)")
        left = [before + count for before, count in zip(left, counts, strict=True)]
    axes.margins(y=0.01)
    axes.set(xlabel="tracks")
    axes.legend(loc="lower right")
    return figure


def merged(manifest: schema.Manifest) -> Figure:
    """Clips with each label of the dataset, and with each one that became of them, most frequent on top; at most `MERGED` of each."""
    sides = (("before merging", manifest.counts_before, manifest.merges), ("after", manifest.counts_after, {}))
    drawn = [sorted(counts.items(), key=lambda item: item[1])[-MERGED:] for _, counts, _ in sides]
    figure = Figure(figsize=(11, 1 + 0.22 * max(map(len, drawn))), layout="constrained")
    for axes, (title, counts, merges), pairs in zip(figure.subplots(1, 2), sides, drawn, strict=True):
        axes.barh([f"{label} → {merges[label]}" if label in merges else label for label, _ in pairs], [count for _, count in pairs])
        left_out = f", the {len(pairs)} most frequent" if len(pairs) < len(counts) else ""
        axes.set(title=f"{title}: {len(counts)} labels{left_out}", xlabel="clips")
        axes.margins(y=0.01)
    return figure


def thresholded(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What every threshold on the scores of one class finds, from the highest down; tied scores fall together.

    Args:
        positive: bool `[shape=(tracks,)]`.
        scores: greater means more likely `[shape=(tracks,)]`.

    Returns:
        Positives found, and tracks found, both from 0 to all `[shape=(1 + different scores,)]`.

    >>> [values.tolist() for values in thresholded(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))]
    [[0, 1, 2], [0, 1, 3]]
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of every tie
    return np.append(0, np.cumsum(positive[order])[last]), np.append(0, last + 1)


def most_frequent(positives: Sequence[int], tracks: int) -> list[int]:
    """The classes whose curves are drawn: at most `CURVES`, those of most positives; one needs positives and negatives.

    >>> most_frequent([3, 0, 5, 9], tracks=9)
    [2, 0]
    """
    return sorted((i for i, count in enumerate(positives) if 0 < count < tracks), key=lambda i: -positives[i])[:CURVES]


def roc_and_precision(y_true: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> Figure:
    """ROC curves, and beside them precision over recall, of `most_frequent` classes.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`.
        scores: greater means more likely `[shape=(tracks, classes)]`.
        names: of the classes.
    """
    y_true = np.asarray(y_true, bool)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    roc, precision = figure.subplots(1, 2)
    roc.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for place, column in enumerate(most_frequent(y_true.sum(axis=0).tolist(), len(y_true))):
        hits, found = thresholded(y_true[:, column], scores[:, column])
        style = {"color": f"C{place % 10}", "linestyle": "-" if place < 10 else "--", "linewidth": 1.3}
        areas = [area(y_true[:, [column]], scores[:, [column]])[0] for area in (metrics.roc_auc, metrics.average_precision)]
        label = f"{names[column]} ({hits[-1]}): {areas[0]:.3f}, {areas[1]:.3f}"
        roc.plot((found - hits) / (found[-1] - hits[-1]), hits / hits[-1], label=label, **style)
        # Average precision is the area below these steps: the precision where recall rises reaches back to the recall before.
        rises = 1 + np.flatnonzero(np.diff(hits))
        heights = hits[rises] / found[rises]
        precision.plot(np.append(0, hits[rises] / hits[-1]), np.append(heights[0], heights), drawstyle="steps-pre", **style)
    roc.set(xlabel="false positives, share of the negatives", ylabel="recall", xlim=(-0.01, 1), ylim=(0, 1.01))
    precision.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    figure.legend(loc="outside right upper", fontsize="small", title="positives, ROC-AUC, AP", title_fontsize="small")
    return figure


def confusion(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Figure:
    """The tracks of every class (row) by the class that was chosen (column): colour is the share of the row, the number counts tracks.

    Args:
        counts: `[shape=(classes, classes)]`.
        labels: of the classes.
    """
    shares, classes = decisions.row_shares(counts), len(labels)
    size = 2.2 + min(16.0, classes * (0.62 if classes <= PERCENT else 0.36))
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the row")
    places = range(classes)
    axes.set_xticks(places, labels, rotation=90 if max(map(len, labels)) > 3 else 0, fontsize="small")
    axes.set_yticks(places, [f"{label} ({sum(row)})" for label, row in zip(labels, counts, strict=True)], fontsize="small")
    axes.set(xlabel="chosen", ylabel="true (tracks)")
    for row, column in np.argwhere(np.asarray(counts) > 0) if classes <= NUMBERED else ():
        share = f"\n{shares[row, column]:.0%}" if classes <= PERCENT else ""
        ink = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{counts[row][column]}{share}", ha="center", va="center", fontsize="x-small", color=ink)
    return figure


def scatter(truth: np.ndarray, predicted: np.ndarray, figures: Mapping) -> Figure:
    """Prediction over truth for every target, with its figures; the line is where both are equal.

    Args:
        truth: nan where unknown `[shape=(tracks, targets)]`.
        predicted: `[shape=(tracks, targets)]`.
        figures: of `regression.figures`.
    """
    names = figures["targets"]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1 + 3.7 * columns, 3.9 * rows), layout="constrained")
    for place, (axes, name) in enumerate(zip(figure.subplots(rows, columns, squeeze=False).ravel(), names, strict=False)):
        known = ~np.isnan(truth[:, place])
        values = truth[known, place], predicted[known, place]
        told = [f"{NAMES[short]} {number(figures[f'{short}_per_target'][place])}" for short in ("r2", "spearman", "mse")]
        axes.set_title(f"{name}, {known.sum()} tracks\n{', '.join(told)}", fontsize="small")
        axes.set(xlabel="true", ylabel="predicted")
        if known.any():
            axes.plot(*values, ".", alpha=max(0.15, min(0.7, 60 / known.sum())), markeredgewidth=0)
            axes.axline((float(values[0].mean()),) * 2, slope=1, color="grey", linestyle=":")
    for axes in figure.axes[len(names) :]:
        axes.remove()
    return figure


def spectrograms(steps: Mapping[str, np.ndarray]) -> Figure:
    """The same window after each step of the training stream, all in the colours of the first; of several channels the first.

    Args:
        steps: name to features `[shape=(frames, bands[, channels])]`.
    """
    matrices = {name: values if values.ndim == 2 else values[..., 0] for name, values in steps.items()}
    low, high = (float(bound(next(iter(matrices.values())))) for bound in (np.min, np.max))
    figure = Figure(figsize=(0.8 + 2.8 * len(matrices), 2.6), layout="constrained")
    for place, (axes, (name, values)) in enumerate(zip(figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True)):
        image = axes.imshow(values.T, origin="lower", aspect="auto", cmap="Blues", interpolation="nearest", vmin=low, vmax=max(high, low + 1e-6))
        axes.set_title(name, fontsize="small")
        axes.set(xlabel="frame", ylabel="" if place else "band")
    figure.colorbar(image, ax=figure.axes, shrink=0.9)
    return figure


def tiles(planes: np.ndarray, signed: bool = False) -> Figure:
    """Small pictures side by side, each upright: bands upwards, frames to the right; the first `TILES` of them, all in one scale.

    Args:
        planes: `[shape=(pictures, bands, frames)]`.
        signed: whether 0 is the middle of the colours, and not the least value their end.
    """
    shown = planes[:TILES]
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    greatest = float(np.abs(shown).max()) or 1.0
    scale = {"cmap": "RdBu_r", "vmin": -greatest, "vmax": greatest} if signed else {"cmap": "Blues", "vmin": float(shown.min())}
    figure = Figure(figsize=(10, 0.4 + 1.2 * rows), layout="constrained")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.set_axis_off()
        if place < len(shown):
            image = axes.imshow(shown[place], origin="lower", aspect="auto", interpolation="nearest", **{"vmax": float(shown.max()), **scale})
    figure.colorbar(image, ax=figure.axes, shrink=0.9)
    return figure


def side_by_side(labels: Sequence[str], values: Mapping[str, Sequence[float | None]], name: str) -> Figure:
    """Bars of two runs for every label that both have a figure of, sorted by their difference, the second's gain on top.

    Args:
        labels: of the bars.
        values: of each of two runs, by its name.
        name: of the figure.
    """
    triples = [triple for triple in zip(labels, *values.values(), strict=True) if None not in triple]
    rows = sorted((later - earlier, label, earlier, later) for label, earlier, later in triples)
    figure = Figure(figsize=(9, 1.4 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    for column, (run, offset) in enumerate(zip(values, (0.2, -0.2), strict=True), start=2):
        axes.barh(places + offset, [row[column] for row in rows], height=0.4, label=run)
    axes.set_yticks(places, [f"{label}  {difference:+.3f}" for difference, label, _, _ in rows])
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.margins(y=0.01)
    axes.set(xlabel=name)
    figure.legend(loc="outside upper center", ncols=2)
    return figure
