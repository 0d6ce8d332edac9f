"""Scores whole tracks with the deployed model: windows at a fixed hop up to the track's end, mean over windows, exact figures."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import audio, catalogue, data, files, metrics, models, retrieval, run, schema  # noqa: F401 (models registers the layers of a saved model)
from tfmusic.config import Evaluation, FrontEnd, InputError

BATCH_WINDOWS = 64  # scored together; no setting, for no figure may depend on it
Score = Callable[[np.ndarray], dict[str, np.ndarray]]  # float32 (windows, samples) -> outputs of the deployed model (windows, ...)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Outputs of the deployed model for whole tracks, row by row."""

    ids: list[str]
    groups: list[str]
    y_true: np.ndarray  # 0/1 (tracks, classes)
    outputs: dict[str, np.ndarray]  # "tags" float32 (tracks, classes), "embedding" float32 (tracks, dims) of unit length
    windows: int

    @property
    def finite(self) -> bool:
        return all(np.isfinite(values).all() for values in self.outputs.values())


# output of a deployed model -> its figures, from scored tracks, bootstrap resamples, seed
FIGURES: dict[str, Callable[[Scored, int, int], dict]] = {
    "tags": lambda scored, resamples, seed: metrics.ranking(scored.y_true, scored.outputs["tags"], resamples, seed),
    "embedding": lambda scored, resamples, seed: retrieval.figures(
        scored.outputs["embedding"], scored.y_true, catalogue.numbers(scored.groups), resamples, seed
    ),
}


def scorer(model: keras.Model) -> Score:
    """A deployed Keras model as a function on numpy arrays."""
    signature = [tf.TensorSpec((None, model.inputs[0].shape[1]), tf.float32)]
    graph = tf.function(lambda windows: model(windows, training=False), input_signature=signature)

    def score(windows: np.ndarray) -> dict[str, np.ndarray]:
        # Always the same number of rows: another one sums in another order, and its last digits decide ties.
        rows = -len(windows) % BATCH_WINDOWS
        return {name: values.numpy()[: len(windows)] for name, values in graph(np.pad(windows, [(0, rows), (0, 0)])).items()}

    return score


def score_tracks(score: Score, tracks: Iterable[catalogue.Track], frontend: FrontEnd, evaluation: Evaluation) -> Scored:
    """Mean of each track over its windows: of the tags' scores, and of the embedding, which is brought back to unit length.

    Args:
        score: windows to scores.
        tracks: whole tracks.
        frontend: window length and what to do with shorter tracks.
        evaluation: the hop.

    Returns:
        One row per track, in the given order.

    Raises:
        InputError: there are no tracks.
    """
    hop_samples = max(1, round(evaluation.hop_s * frontend.sample_rate_hz))
    ids, groups, y_true, counts, scored = [], [], [], [], []
    pending: list[np.ndarray] = []
    waiting = 0
    for track in tracks:
        windows = audio.windows(track.waveform, frontend.window_samples, hop_samples, frontend.short)
        ids.append(track.id)
        groups.append(track.group)
        y_true.append(track.labels)
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
        sums = np.add.reduceat(np.concatenate([batch[name] for batch in scored]).astype(np.float64), first, axis=0)
        means = sums / np.array(counts)[:, None]
        if name == "embedding":
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        outputs[name] = means.astype(np.float32)
    return Scored(ids, groups, np.stack(y_true), outputs, int(sum(counts)))


def evaluate(run_directory: Path | str, split: str = "test", records: Path | str | None = None) -> dict:
    """Figures of a run's best model on one split.

    Args:
        run_directory: of the run.
        split: "valid" or "test".
        records: of the same vocabulary; none: those of the run.

    Returns:
        The figures of everything that the model puts out (`FIGURES`), and "tracks", "windows", "hop_s", "labels".

    Raises:
        InputError: no run, no records, the run's were built anew since, or given ones have another vocabulary.
    """
    directory = Path(run_directory)
    info = run.read(directory)
    manifest = schema.read_manifest(files.location(records)) if records else records_of(directory, info)
    if manifest.vocabulary_sha1 != info.vocabulary_sha1:
        raise InputError(f"{records} has another vocabulary than the run: sha1 must be {info.vocabulary_sha1}, got {manifest.vocabulary_sha1}")
    data.check_records(manifest, info.experiment)
    tracks = data.tracks(files.location(records or info.records), manifest, split)
    return figures(score_tracks(scorer(load_best(directory)), tracks, info.experiment.frontend, info.experiment.evaluation), manifest, info)


def figures(scored: Scored, manifest: schema.Manifest, info: run.RunInfo) -> dict:
    """The figures of scored tracks; result as `evaluate`."""
    experiment = info.experiment
    of_outputs = [FIGURES[output](scored, experiment.evaluation.bootstrap, experiment.fit.seed) for output in scored.outputs]
    return {
        **{name: value for found in of_outputs for name, value in found.items()},
        "tracks": len(scored.ids),
        "windows": scored.windows,
        "hop_s": experiment.evaluation.hop_s,
        "labels": list(manifest.labels),
    }


def records_of(run_directory: Path, info: run.RunInfo) -> schema.Manifest:
    """The manifest of the very records that a run was trained on.

    Raises:
        InputError: they are gone, or others lie in their place, whose test tracks may have been trained on.
    """
    manifest = schema.read_manifest(info.records)
    if manifest.sha1 != info.records_sha1:
        raise InputError(f"{info.records} is not what {run_directory} was trained on: its sha1 must be {info.records_sha1}, got {manifest.sha1}")
    return manifest


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
