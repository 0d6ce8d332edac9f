"""Scores whole tracks with the deployed model: windows at a fixed hop up to the track's end, mean over windows, exact figures."""

from __future__ import annotations

import dataclasses
import itertools
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import audio, catalogue, data, decisions, files, leaks, metrics, models, regression, retrieval, run, schema  # noqa: F401 (models: registers layers)
from tfmusic.config import Evaluation, Experiment, FrontEnd, InputError
from tfmusic.files import RemotePath

BATCH_WINDOWS = 64  # scored together; no setting, for no figure may depend on it
SEQUENCES_HELD = 1024  # feature sequences in memory at a time
Score = Callable[[np.ndarray], dict[str, np.ndarray]]  # float32 (windows, samples) -> outputs of the deployed model (windows, ...)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Outputs of the deployed model for whole tracks, row by row."""

    ids: list[str]
    groups: list[str]
    y_true: np.ndarray  # 0/1 (tracks, classes)
    targets: np.ndarray  # of the records, nan where unknown (tracks, targets)
    outputs: dict[str, np.ndarray]  # "tags" (tracks, classes), "targets" (tracks, targets learnt), "embedding" (tracks, dims) of unit length
    windows: int

    @property
    def finite(self) -> bool:
        return all(np.isfinite(values).all() for values in self.outputs.values())


Thresholds = np.ndarray | list[float] | None
Known = tuple[Experiment, schema.Manifest, Thresholds]  # of a run; thresholds that its validation split gave, none for no decisions


def _of_tags(scored: Scored, known: Known, resamples: int) -> dict:
    (experiment, manifest, thresholds), y_true, scores = known, scored.y_true, scored.outputs["tags"]
    seed = experiment.fit.seed
    found = metrics.ranking(y_true, scores, resamples, seed)
    if manifest.families:
        found |= metrics.family_ranking(y_true, scores, manifest.labels, manifest.families, resamples, seed)
    if experiment.activation == "softmax":
        return found | decisions.one_of(y_true, scores, resamples, seed)
    return found if thresholds is None else found | decisions.decide(y_true, scores, thresholds, resamples, seed)


def _of_targets(scored: Scored, known: Known, resamples: int) -> dict:
    experiment, manifest, _ = known
    columns = data.target_columns(manifest, experiment)
    names = tuple(manifest.targets[column] for column in columns)
    return regression.figures(scored.targets[:, columns], scored.outputs["targets"], names, resamples, experiment.fit.seed)


def _of_embedding(scored: Scored, known: Known, resamples: int) -> dict:
    return retrieval.figures(scored.outputs["embedding"], scored.y_true, catalogue.numbers(scored.groups), resamples, known[0].fit.seed)


# output of a deployed model -> its figures, from scored tracks and bootstrap resamples
FIGURES: dict[str, Callable[[Scored, Known, int], dict]] = {"tags": _of_tags, "targets": _of_targets, "embedding": _of_embedding}


def scorer(model: keras.Model) -> Score:
    """A deployed Keras model as a function on numpy arrays."""
    graph = tf.function(lambda windows: model(windows, training=False), input_signature=[tf.TensorSpec(model.inputs[0].shape, tf.float32)])

    def score(windows: np.ndarray) -> dict[str, np.ndarray]:
        # Always the same number of rows: another one sums in another order, and its last digits decide ties.
        rows = -len(windows) % BATCH_WINDOWS
        return {name: values.numpy()[: len(windows)] for name, values in graph(np.pad(windows, [(0, rows)] + [(0, 0)] * (windows.ndim - 1))).items()}

    return score


def score_tracks(score: Score, tracks: Iterable[catalogue.Track], frontend: FrontEnd, evaluation: Evaluation) -> Scored:
    """Each track from its windows: the mean or maximum of the labels' scores, the mean of targets, and that of the embedding at unit length.

    Args:
        score: windows to scores.
        tracks: whole tracks.
        frontend: window length and what to do with shorter tracks.
        evaluation: hop and pool.

    Returns:
        One row per track, in the given order.

    Raises:
        InputError: there are no tracks.
    """
    hop_samples = max(1, round(evaluation.hop_s * frontend.sample_rate_hz))
    ids, groups, y_true, targets, counts, scored = [], [], [], [], [], []
    pending: list[np.ndarray] = []
    waiting = 0
    for track in tracks:
        windows = audio.windows(track.waveform, frontend.window_samples, hop_samples, frontend.short)
        ids.append(track.id)
        groups.append(track.group)
        y_true.append(track.labels)
        targets.append(track.targets)
        counts.append(len(windows))
        while len(windows):
            taken = windows[: BATCH_WINDOWS - waiting]
            windows = windows[len(taken) :]
            pending.append(taken)
            waiting += len(taken)
            if waiting == BATCH_WINDOWS:
                scored.append(score(np.concatenate(pending)))
                pending, waiting = [], 0
    if pending:
        scored.append(score(np.concatenate(pending)))
    if not ids:
        raise InputError("there are no tracks to score")
    first = np.cumsum([0, *counts[:-1]])
    outputs = {}
    for name in scored[0]:
        of_windows = np.concatenate([batch[name] for batch in scored]).astype(np.float64)
        if name == "tags" and evaluation.pool == "max":
            pooled = np.maximum.reduceat(of_windows, first, axis=0)
        else:
            pooled = np.add.reduceat(of_windows, first, axis=0) / np.array(counts)[:, None]
        if name == "embedding":
            pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        outputs[name] = pooled.astype(np.float32)
    return Scored(ids, groups, np.stack(y_true), np.stack(targets), outputs, int(sum(counts)))


def score_sequences(score: Score, sequences: Iterable[data.Sequence]) -> Scored:
    """Whole tracks by a net that reads sequences of features; those of about the same length are padded and scored together.

    Args:
        score: float32, zeros behind the shorter ones `[shape=(batch, frames, dims)]`, to outputs.
        sequences: whole tracks.

    Returns:
        One row per track, in the given order.

    Raises:
        InputError: there are no tracks.
    """
    sequences, tracks, outputs = iter(sequences), [], []
    while block := list(itertools.islice(sequences, SEQUENCES_HELD)):
        lengths = np.array([len(track.features) for track in block])
        order, scored = np.argsort(lengths, kind="stable"), []
        for first in range(0, len(order), BATCH_WINDOWS):
            rows = order[first : first + BATCH_WINDOWS]
            padded = np.zeros((len(rows), lengths[rows[-1]], block[0].features.shape[1]), np.float32)
            for place, row in enumerate(rows):
                padded[place, : lengths[row]] = block[row].features
            scored.append(score(padded))
        outputs.append({name: np.concatenate([batch[name] for batch in scored])[np.argsort(order)] for name in scored[0]})
        tracks += [(track.id, track.group, track.labels, track.targets) for track in block]
    if not tracks:
        raise InputError("there are no tracks to score")
    ids, groups, y_true, targets = zip(*tracks, strict=True)
    whole = {name: np.concatenate([of_block[name] for of_block in outputs]) for name in outputs[0]}
    return Scored([*ids], [*groups], np.stack(y_true), np.stack(targets), whole, len(tracks))


def score_split(
    score: Score,
    records: Path | RemotePath,
    manifest: schema.Manifest,
    split: str,
    experiment: Experiment,
    watch: Callable[[Iterable], Iterable] = iter,
) -> Scored:
    """All tracks of a split, as an experiment hears them: in windows, or as sequences of features.

    Args:
        score: of the experiment's deployed model.
        records: directory.
        manifest: of the records.
        split: "valid" or "test".
        experiment: front end and evaluation.
        watch: what the tracks pass through, such as a progress bar.
    """
    if experiment.sequences:
        return score_sequences(score, watch(data.sequences(records, manifest, split)))
    return score_tracks(score, watch(data.tracks(records, manifest, split)), experiment.frontend, experiment.evaluation)


def evaluate(run_directory: Path | str, split: str = "test", records: Path | str | None = None) -> dict:
    """Figures of a run's best model on one split.

    Args:
        run_directory: of the run.
        split: "valid" or "test".
        records: of the same vocabulary; none: those of the run.

    Returns:
        The figures of everything that the model puts out (`FIGURES`), and "tracks", "windows", "hop_s", "labels".

    Raises:
        InputError: no run, no records, the run's were built anew since, or given ones have another vocabulary or tracks that it was trained on.
    """
    directory = Path(run_directory)
    info = run.read(directory)
    manifest = schema.read_manifest(files.location(records)) if records else records_of(directory, info)
    if manifest.vocabulary_sha1 != info.vocabulary_sha1:
        raise InputError(f"{records} has another vocabulary than the run: sha1 must be {info.vocabulary_sha1}, got {manifest.vocabulary_sha1}")
    data.check_records(manifest, info.experiment)
    leaks.check_apart(directory if records else None, files.location(records or info.records), manifest)
    scored = score_split(scorer(load_best(directory)), files.location(records or info.records), manifest, split, info.experiment)
    return figures(scored, manifest, info, run.thresholds(directory) if split == "test" else None)


def figures(scored: Scored, manifest: schema.Manifest, info: run.RunInfo, thresholds: Thresholds = None) -> dict:
    """The figures of scored tracks; result as `evaluate`.

    Args:
        scored: of one split.
        manifest: of its records.
        info: of the run.
        thresholds: of the labels, tuned on other tracks `[shape=(classes,)]`; none: no figures that need decisions.
    """
    experiment = info.experiment
    of_outputs = [FIGURES[output](scored, (experiment, manifest, thresholds), experiment.evaluation.bootstrap) for output in scored.outputs]
    return {
        **{name: value for found in of_outputs for name, value in found.items()},
        "tracks": len(scored.ids),
        "windows": scored.windows,
        "hop_s": experiment.evaluation.hop_s,
        "labels": list(manifest.labels),
        **({"limit": experiment.data.limit} if experiment.data.limit else {}),
    }


def kept(scored: Scored, manifest: schema.Manifest, experiment: Experiment) -> dict[str, np.ndarray]:
    """What a run keeps of scored tracks (embeddings.npz), to be looked at and compared without the model.

    Returns:
        "ids", "groups", "y_true"; and of what the model puts out "scores", "embedding", "targets" beside "targets_true"; of records with
        families "family_scores" beside "families_true".
    """
    found = {"ids": np.array(scored.ids), "groups": np.array(scored.groups), "y_true": scored.y_true}
    if "targets" in scored.outputs:
        found["targets_true"] = scored.targets[:, data.target_columns(manifest, experiment)]
    if "tags" in scored.outputs and manifest.families:
        _, truth, scores = metrics.of_families(scored.y_true, scored.outputs["tags"], manifest.labels, manifest.families)
        found |= {"families_true": truth, "family_scores": scores}
    names = {"tags": "scores", "targets": "targets", "embedding": "embedding"}
    return found | {name: scored.outputs[output] for output, name in names.items() if output in scored.outputs}


def tuned_thresholds(scored: Scored, experiment: Experiment) -> np.ndarray | None:
    """Thresholds of independent labels, of greatest F1 on these tracks; none where one label of all is true, or there are no labels."""
    if "tags" not in scored.outputs or experiment.activation == "softmax":
        return None
    return decisions.tune_thresholds(scored.y_true, scored.outputs["tags"])


def records_of(run_directory: Path, info: run.RunInfo) -> schema.Manifest:
    """The manifest of the very records that a run was trained on, as far as it looks at them (`catalogue.limited`).

    Raises:
        InputError: they are gone, or others lie in their place, whose test tracks may have been trained on.
    """
    manifest = schema.read_manifest(info.records)
    if manifest.sha1 != info.records_sha1:
        raise InputError(f"{info.records} is not what {run_directory} was trained on: its sha1 must be {info.records_sha1}, got {manifest.sha1}")
    return catalogue.limited(info.records, manifest, info.experiment.data.limit)


def load_best(run_directory: Path) -> keras.Model:
    """The deployed model of a run's best epoch.

    Raises:
        InputError: the run has none yet.
    """
    path = run_directory / run.BEST
    if not path.is_file():
        raise InputError(
            f"{run_directory} has no {run.BEST}: no epoch with finite scores is finished; go on with: python train.py --resume {run_directory}"
        )
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged, it must be a Keras model: {str(error).splitlines()[0]}") from error
