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

from tfmusic import files, optimizers, retrieval, run
from tfmusic.config import InputError

MEMORY = {  # callback -> attributes that Keras forgets between two fits; arrays of weights beside them: `arrays`
    "SaveBest": ("best",),
    "EarlyStopping": ("best", "best_epoch", "wait", "stopped_epoch"),
    "Plateau": ("best", "wait"),
    "Stages": ("best", "stage"),
}


class Diverged(InputError):
    """A training whose loss or gradient is not finite."""


class StopAtNaN(keras.callbacks.Callback):
    """Ends a training at the step whose loss or gradient is not finite; what was saved at the end of the last epoch stays.

    Args:
        clips: number of an epoch and of some of its steps to the ids of their clips.
        steps: of an epoch.
        together: steps an execution.
        directory: the run's, for the message.
    """

    def __init__(self, clips: Callable[[int, list[int]], list[str]], steps: int, together: int, directory: Path):
        super().__init__()
        self.clips, self.steps, self.together, self.directory = clips, steps, together, directory

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.begin = epoch, int(self._optimizer.seen.numpy())

    @property
    def _optimizer(self) -> optimizers.PartwiseAdam:
        return optimizers.inner(self.model.optimizer)

    def on_train_batch_end(self, batch, logs=None):
        failed = int(self._optimizer.failed.numpy())
        if failed < 0 and math.isfinite(logs["loss"]):
            return
        if failed >= 0:
            steps = [failed - self.begin]
        else:  # a loss alone, of which a step among those executed together has none of its own
            steps = [*range(batch - self.together + 1, batch + 1)]
        what = f"step {steps[0] + 1}" if len(steps) == 1 else f"steps {steps[0] + 1} to {steps[-1] + 1}"
        kept = f"{self.directory} keeps what it had after epoch {self.epoch}" if self.epoch else "no epoch is finished"
        raise Diverged(
            f"epoch {self.epoch + 1}, {what} of {self.steps}: loss or gradient is not finite in the batch of the clips "
            f"{', '.join(self.clips(self.epoch, steps))}; {kept}; try a lower --fit.learning-rate, --fit.clip-norm 1 or "
            "--fit.precision float32, and look at these clips"
        )


class Plateau(keras.callbacks.Callback):
    """Lowers the learning rate by a factor whenever a figure was not greater than ever before for some epochs, as keras.callbacks.ReduceLROnPlateau
    does, which cannot set that of a schedule.

    Args:
        monitor: name in `logs`; a nan never counts as better.
        factor: `0 < float < 1`.
        patience: epochs `int > 0`.
    """

    def __init__(self, monitor: str, factor: float, patience: int):
        super().__init__()
        self.monitor, self.factor, self.patience = monitor, factor, patience
        self.best, self.wait = float("-inf"), 0

    def on_epoch_end(self, epoch, logs=None):
        if logs[self.monitor] > self.best:
            self.best, self.wait = float(logs[self.monitor]), 0
            return
        self.wait += 1
        if self.wait >= self.patience:
            scale = optimizers.inner(self.model.optimizer).scale
            scale.assign(scale * self.factor)
            self.wait = 0


class Stages(keras.callbacks.Callback):
    """Adam, then SGD in ever smaller steps, each stage from the weights of the best epoch so far (`optimizers.stages`).

    Args:
        first: epochs that begin the stages of SGD.
        scales: their factors on the learning rate.
        monitor: name in `logs` whose greatest value is the best epoch's.
    """

    def __init__(self, first: list[int], scales: list[float], monitor: str):
        super().__init__()
        self.first, self.scales, self.monitor = first, scales, monitor
        self.best, self.stage = float("-inf"), 0
        self.arrays: list[np.ndarray] = []  # the best epoch's weights; best.keras may be of an epoch that a kill has undone

    def on_epoch_begin(self, epoch, logs=None):
        optimizer, stage = optimizers.inner(self.model.optimizer), sum(first <= epoch for first in self.first)
        if stage != self.stage:
            if self.arrays:
                self.model.set_weights(self.arrays)
            optimizer.restart(self.scales[stage - 1])
            self.stage = stage
        if optimizer.sgd != (stage > 0):
            optimizer.sgd = stage > 0
            self.model.make_train_function(force=True)

    def on_epoch_end(self, epoch, logs=None):
        if logs[self.monitor] > self.best:
            self.best, self.arrays = float(logs[self.monitor]), optimizers.averaged(self.model, self.model.optimizer)


class LearningRate(keras.callbacks.Callback):
    """Puts the learning rate of an epoch's last step into `logs`."""

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)


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
    """Keras' progress bar with those validation figures alone that one watches, and the losses of training; the logs have all of them.

    Args:
        watched: names in `logs`.
    """

    def __init__(self, watched: Collection[str]):
        super().__init__()
        self.watched = watched

    def on_epoch_end(self, epoch, logs=None):
        hidden = {name for name in logs if name.startswith("val_") or name == "learning_rate"} - {*self.watched}
        super().on_epoch_end(epoch, {name: value for name, value in logs.items() if name not in hidden})


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a Keras model under its name only when complete."""
    temporary = path.with_name(f".new.{path.name}")
    try:
        model.save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # of a full disk


class SaveState(keras.callbacks.Callback):
    """Keeps in one file, written at once, everything that an uninterrupted run would carry into its next epoch.

    That is the net's weights and random states (dropout), the optimiser with the place in its schedule, averages and loss scale, what the other
    callbacks remember (`MEMORY`), and the history so far. Stands last in the list.

    Args:
        directory: the run's.
        writes: whether it is this process that does; another one only follows.
    """

    def __init__(self, directory: Path, writes: bool = True):
        super().__init__()
        self.writes = writes
        self.directory, self.callbacks = directory, []  # whose state is kept
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
        places = self._places()
        if missing := {*places} - {*self.saved}:
            raise InputError(f"{self.directory / run.STATE} must be of this version of tfmusic, got one without {min(missing)}; begin the run anew")
        for place, variable in places.items():
            variable.assign(self.saved[place])
        memories = json.loads(str(self.saved["notes"]))["callbacks"]
        for name, callback in self._remembering():
            vars(callback).update(memories[name])
            if hasattr(callback, "arrays"):
                count = sum(key.startswith(f"{name}/") for key in self.saved)
                callback.arrays = [self.saved[f"{name}/{index}"] for index in range(count)]
        self.saved = None

    def on_epoch_end(self, epoch, logs=None):
        if not self.writes:
            return
        self.history.append({"epoch": epoch, **{name: float(value) for name, value in logs.items()}})
        notes = {
            "history": self.history,
            "callbacks": {name: {field: _plain(getattr(callback, field)) for field in MEMORY[name]} for name, callback in self._remembering()},
            "stopped": bool(self.model.stop_training),
        }
        arrays = {place: keras.ops.convert_to_numpy(variable) for place, variable in self._places().items()}
        for name, callback in self._remembering():
            arrays |= {f"{name}/{index}": array for index, array in enumerate(getattr(callback, "arrays", ()))}
        files.write_npz(self.directory / run.STATE, notes=json.dumps(notes), **arrays)
        files.write_csv(self.directory / run.HISTORY, self.history)

    def _remembering(self) -> list[tuple[str, keras.callbacks.Callback]]:
        return [(type(callback).__name__, callback) for callback in self.callbacks if type(callback).__name__ in MEMORY]

    def _places(self) -> dict[str, keras.Variable]:
        kinds = {"net": self.model.variables, "optimizer": self.model.optimizer.variables}
        return {f"{kind}/{index}": variable for kind, variables in kinds.items() for index, variable in enumerate(variables)}


def _plain(value: float | np.floating | None) -> float | None:
    return float(value) if isinstance(value, np.floating) else value
