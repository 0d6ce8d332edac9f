"""Keras callbacks. `TrackMetrics` stands first in the list: it fills `logs` before best model, early stopping, TensorBoard and state read them."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

import keras
import numpy as np

from tfmusic import files, retrieval, run
from tfmusic.config import InputError

MEMORY = {  # callback -> attributes that Keras forgets between two fits
    "SaveBest": ("best",),
    "EarlyStopping": ("best", "best_epoch", "wait", "stopped_epoch"),
}


class TrackMetrics(keras.callbacks.Callback):
    """Puts figures of whole validation tracks into `logs` at the end of every epoch; stops a training whose scores are not finite.

    Args:
        figures: called without arguments; name to number, all of them nan when the scores are not finite.
    """

    def __init__(self, figures: Callable[[], dict[str, float]]):
        super().__init__()
        self.figures = figures

    def on_epoch_end(self, epoch, logs=None):
        figures = self.figures()
        logs.update({f"val_{name}": value for name, value in figures.items()})
        if np.isnan(list(figures.values())).all():
            print(f"epoch {epoch + 1}: scores are not finite; training stops, the best epoch before it is kept (try a lower learning rate)")
            self.model.stop_training = True


class Retrieval(TrackMetrics):
    """Puts the retrieval figures of whole validation tracks into `logs`: val_recall_at_1 and all others of `retrieval.FIGURES`.

    Args:
        embedded: called without arguments; embeddings `[shape=(tracks, dims)]`, labels 0/1 `[shape=(tracks, labels)]`, and groups as numbers,
            -1 for none `[shape=(tracks,)]`.
    """

    def __init__(self, embedded: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]):
        super().__init__(self._figures)
        self.embedded = embedded

    def _figures(self) -> dict[str, float]:
        embeddings, labels, groups = self.embedded()
        if not np.isfinite(embeddings).all():
            return dict.fromkeys(retrieval.FIGURES, math.nan)
        found = retrieval.figures(embeddings, labels, groups, resamples=0, seed=0)
        return {name: math.nan if found[name] is None else found[name] for name in retrieval.FIGURES}


class SaveBest(keras.callbacks.Callback):
    """Saves a model when a figure in `logs` is greater than ever before.

    Args:
        model: the deployed model; by now it has the weights of the net in training.
        path: ends in .keras.
        monitor: name in `logs`; a nan never counts as better.
    """

    def __init__(self, model: keras.Model, path: Path, monitor: str):
        super().__init__()
        self.deployed, self.path, self.monitor = model, path, monitor
        self.best = float("-inf")

    def on_epoch_end(self, epoch, logs=None):
        structural = self.monitor.removeprefix("val_") in retrieval.FIGURES  # nan in every epoch; a correlation with a constant is nan in one
        if structural and math.isnan(logs[self.monitor]) and not self.model.stop_training:
            raise InputError(
                f"--fit.monitor must be a figure that the validation split has, got {self.monitor}: no two of its tracks are of one group"
            )
        if logs[self.monitor] > self.best:
            self.best = float(logs[self.monitor])
            save_model(self.deployed, self.path)


class Progress(keras.callbacks.ProgbarLogger):
    """Keras' progress bar with those validation figures alone that one watches; the logs have all of them.

    Args:
        watched: names in `logs`.
    """

    def __init__(self, watched: Collection[str]):
        super().__init__()
        self.watched = watched

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, {name: value for name, value in logs.items() if not name.startswith("val_") or name in self.watched})


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a Keras model under its name only when complete."""
    temporary = path.with_name(f".new.{path.name}")
    model.save(temporary)
    os.replace(temporary, path)


class SaveState(keras.callbacks.Callback):
    """Keeps in one file, written at once, everything that an uninterrupted run would carry into its next epoch.

    That is the net's weights and random states (dropout), the optimiser, what the other callbacks remember (`MEMORY`), and the history so
    far. Stands last in the list.

    Args:
        directory: the run's.
        callbacks: whose state is kept.
    """

    def __init__(self, directory: Path, callbacks: list[keras.callbacks.Callback]):
        super().__init__()
        self.directory, self.callbacks = directory, callbacks
        self.history: list[dict[str, float]] = []
        self.saved: dict[str, np.ndarray] | None = None

    def load(self) -> tuple[int, bool]:
        """Reads the state that `on_train_begin` will restore; returns the epoch to go on with, and whether training had stopped by itself.

        Raises:
            InputError: the file is damaged.
        """
        path = self.directory / run.STATE
        for left in self.directory.glob(f".{run.STATE}.*.tmp"):  # by a kill in the middle of writing
            left.unlink()
        if not path.is_file():
            return 0, False
        try:
            with np.load(path) as file:
                self.saved = dict(file)
            notes = json.loads(str(self.saved["notes"]))
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is damaged; delete it to train from the first epoch") from error
        self.history = notes["history"]
        files.write_csv(self.directory / run.HISTORY, self.history)  # a kill may have come between the two files
        return len(self.history), notes["stopped"]

    def on_train_begin(self, logs=None):
        if self.saved is None:
            return
        for name, variables in self._variables().items():
            for index, variable in enumerate(variables):
                variable.assign(self.saved[f"{name}/{index}"])
        memories = json.loads(str(self.saved["notes"]))["callbacks"]
        for name, callback in self._remembering():
            vars(callback).update(memories[name])
        self.saved = None

    def on_epoch_end(self, epoch, logs=None):
        self.history.append({"epoch": epoch, **{name: float(value) for name, value in logs.items()}})
        notes = {
            "history": self.history,
            "callbacks": {name: {field: _plain(getattr(callback, field)) for field in MEMORY[name]} for name, callback in self._remembering()},
            "stopped": bool(self.model.stop_training),
        }
        arrays = {
            f"{name}/{index}": keras.ops.convert_to_numpy(variable)
            for name, variables in self._variables().items()
            for index, variable in enumerate(variables)
        }
        files.write_npz(self.directory / run.STATE, notes=json.dumps(notes), **arrays)
        files.write_csv(self.directory / run.HISTORY, self.history)

    def _remembering(self) -> list[tuple[str, keras.callbacks.Callback]]:
        return [(type(callback).__name__, callback) for callback in self.callbacks if type(callback).__name__ in MEMORY]

    def _variables(self) -> dict[str, list]:
        return {"net": self.model.variables, "optimizer": self.model.optimizer.variables}


def _plain(value: float | np.floating | None) -> float | None:
    return float(value) if isinstance(value, np.floating) else value
