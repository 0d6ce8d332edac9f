"""Scores whole tracks with the deployed model: windows at a fixed hop up to the track's end, mean over windows, exact figures."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import audio, data, files, models, run, schema  # noqa: F401 (models registers the layers of a saved model)
from tfmusic.config import Evaluation, FrontEnd, InputError
from tfmusic.tasks import TASKS

BATCH_WINDOWS = 64  # scored together; no setting, for no figure may depend on it
Score = Callable[[np.ndarray], np.ndarray]  # float32 (windows, samples) -> scores (windows, classes)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of whole tracks, row by row."""

    ids: list[str]
    y_true: np.ndarray  # 0/1 (tracks, classes)
    scores: np.ndarray  # float32 (tracks, classes)
    windows: int


def scorer(model: keras.Model) -> Score:
    """A deployed Keras model as a function on numpy arrays."""
    signature = [tf.TensorSpec((None, model.inputs[0].shape[1]), tf.float32)]
    graph = tf.function(lambda windows: model(windows, training=False), input_signature=signature)

    def score(windows: np.ndarray) -> np.ndarray:
        # Always the same number of rows: another one sums in another order, and its last digits decide ties.
        rows = -len(windows) % BATCH_WINDOWS
        return graph(np.pad(windows, [(0, rows), (0, 0)])).numpy()[: len(windows)]

    return score


def score_tracks(score: Score, tracks: Iterable[data.Track], frontend: FrontEnd, evaluation: Evaluation) -> Scored:
    """Mean score of each track over its windows.

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
    ids, y_true, counts, scores = [], [], [], []
    pending: list[np.ndarray] = []
    waiting = 0
    for track in tracks:
        windows = audio.windows(track.waveform, frontend.window_samples, hop_samples, frontend.short)
        ids.append(track.id)
        y_true.append(track.labels)
        counts.append(len(windows))
        while len(windows):
            taken = windows[: BATCH_WINDOWS - waiting]
            windows = windows[len(taken) :]
            pending.append(taken)
            waiting += len(taken)
            if waiting == BATCH_WINDOWS:
                scores.append(score(np.concatenate(pending)))
                pending, waiting = [], 0
    if pending:
        scores.append(score(np.concatenate(pending)))
    if not ids:
        raise InputError("there are no tracks to score")
    first = np.cumsum([0, *counts[:-1]])
    sums = np.add.reduceat(np.concatenate(scores).astype(np.float64), first, axis=0)
    means = (sums / np.array(counts)[:, None]).astype(np.float32)
    return Scored(ids, np.stack(y_true), means, int(sum(counts)))


def evaluate(run_directory: Path | str, split: str = "test", records: Path | str | None = None) -> dict:
    """Figures of a run's best model on one split.

    Args:
        run_directory: of the run.
        split: "valid" or "test".
        records: of the same vocabulary; none: those of the run.

    Returns:
        The task's figures, and "tracks", "windows", "hop_s", "labels".

    Raises:
        InputError: no run, no records, the run's were built anew since, or given ones have another vocabulary.
    """
    directory = Path(run_directory)
    info = run.read(directory)
    manifest = schema.read_manifest(files.location(records)) if records else records_of(directory, info)
    if manifest.vocabulary_sha1 != info.vocabulary_sha1:
        raise InputError(f"{records} has another vocabulary than the run: sha1 must be {info.vocabulary_sha1}, got {manifest.vocabulary_sha1}")
    data.check_records(manifest, info.experiment)
    return figures(scorer(load_best(directory)), files.location(records or info.records), manifest, info, split)


def figures(score: Score, records: Path, manifest: schema.Manifest, info: run.RunInfo, split: str) -> dict:
    """The figures of any window scorer on one split of records; arguments and result as `evaluate`."""
    experiment = info.experiment
    scored = score_tracks(score, data.tracks(records, manifest, split), experiment.frontend, experiment.evaluation)
    return {
        **TASKS[experiment.task].figures(scored.y_true, scored.scores, experiment.evaluation.bootstrap, experiment.fit.seed),
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
