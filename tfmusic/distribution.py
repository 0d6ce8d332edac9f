"""Training on several devices and hosts: who trains together, what they tell each other, and two defects of Keras gone round.

Every process of a `TF_CONFIG` runs the same command. Worker 0 is the chief: it alone decides and writes, and tells the others what it found, so that
they need no run directory and cannot come to decide otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from tfmusic.config import Experiment, Fit, InputError

Value = TypeVar("Value")
DEFECTIVE = "3.15."  # versions of Keras that `mended` goes round; a test fails with the first that needs it no more
WORD = np.dtype(np.int64)  # what collectives add without rounding
BLOCKS_BYTES = (1 << 13, 1 << 20)  # of what is told: a graph for each length
REFUSED: dict[str, Callable[[Experiment], object]] = {  # what several replicas cannot do; why: README
    "--task similarity, whose loss compares all clips of a batch,": lambda experiment: experiment.task == "similarity",
    "--sequences, whose batches are of any size,": lambda experiment: experiment.sequences is not None,
    "--fit.precision float16": lambda experiment: experiment.fit.precision == "float16",
    "--fit.xla on": lambda experiment: experiment.fit.xla == "on",
    "--fit.steps-per-execution": lambda experiment: experiment.fit.steps_per_execution > 1,
}


class WorkerLost(InputError):
    """Another process of the team is gone."""


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes and devices that train one net together.

    Args:
        strategy: of TensorFlow; its default one for one device.
        worker: number of this process `int >= 0`.
        workers: processes `int > 0`.
    """

    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1

    @property
    def replicas(self) -> int:
        """Devices of all processes, each of which has its own part of every batch."""
        return self.strategy.num_replicas_in_sync

    @property
    def chief(self) -> bool:
        """Whether this process decides and writes."""
        return self.worker == 0

    def told(self, function: Callable[[], Value]) -> Value:
        """What a function returns to the chief, on every worker; so are its mistakes of a user.

        Args:
            function: called by the chief alone; what it returns can be pickled.

        Raises:
            InputError: the function did.
            WorkerLost: a worker is gone.
        """
        if self.workers == 1:
            return function()
        content = b""
        if self.chief:
            try:
                content = pickle.dumps((function(), None))
            except InputError as error:
                content = pickle.dumps((None, error))
        with self.together():
            (size,) = self._from_first(np.array([len(content)], WORD))
            block_bytes = next((block_bytes for block_bytes in BLOCKS_BYTES if size <= block_bytes), BLOCKS_BYTES[-1])
            words = np.zeros((-(-int(size) // block_bytes), block_bytes // WORD.itemsize), WORD)
            words.reshape(-1).view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
            value, error = pickle.loads(b"".join(self._from_first(block).tobytes() for block in words))
        if error is not None:
            raise error
        return value

    def mean(self, variables: Sequence[keras.Variable]) -> None:
        """Sets variables, which each replica has changed by itself, to their mean over the replicas.

        Moving statistics of batch normalization are linear in those of the batches: their mean once an epoch is that of every step.
        """
        if self.replicas > 1 and variables:
            with self.together():
                for variable, value in zip(variables, self._reduced("MEAN", [one.value for one in variables]), strict=True):
                    variable.assign(value)

    def batches(self, stream: tf.data.Dataset) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """A process' stream of its replicas' batches, one after the other, as Keras takes it."""
        return self.strategy.distribute_datasets_from_function(lambda context: stream) if self.replicas > 1 else stream

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What all workers do at the same time; one that is gone becomes a line on all others, once TensorFlow has missed its heartbeats.

        Raises:
            WorkerLost: a worker is gone.
        """
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.FailedPreconditionError) as error:
            if self.workers == 1:
                raise
            raise WorkerLost(
                f"worker {self.worker} of {self.workers} lost another one, whose own output says why; go on with all of them: "
                "python train.py --resume RUN"
            ) from error

    def _from_first(self, words: np.ndarray) -> np.ndarray:
        return self._reduced("FIRST", [tf.constant(words)])[0].numpy()

    def _reduced(self, how: str, values: list) -> list[tf.Tensor]:
        return [self.strategy.experimental_local_results(value)[0] for value in _reducer(self.strategy)(how, values)]


@functools.cache
def _reducer(strategy: tf.distribute.Strategy) -> Callable:
    """The "MEAN" of values over a strategy's replicas, or the "FIRST" replica's; one graph a strategy and shape."""

    def of_replica(how, values):
        context = tf.distribute.get_replica_context()
        share = 1 / strategy.num_replicas_in_sync if how == "MEAN" else context.replica_id_in_sync_group == 0
        return context.all_reduce("SUM", [value * tf.cast(share, value.dtype) for value in values])

    return tf.function(lambda how, values: strategy.run(of_replica, args=(how, values)), autograph=False)


class MeanStatistics(keras.callbacks.Callback):
    """Gives all replicas the mean of their moving statistics at the end of every epoch. Stands before what reads them.

    Args:
        team: of the replicas.
        variables: the statistics.
    """

    def __init__(self, team: Team, variables: Sequence[keras.Variable]):
        super().__init__()
        self.team, self.variables = team, variables

    def on_epoch_end(self, epoch, logs=None):
        self.team.mean(self.variables)


def cluster() -> tuple[int, int]:
    """Number of this process and of all processes of TF_CONFIG; (0, 1) without one, or with one that names a single process.

    Raises:
        InputError: TF_CONFIG is not as TensorFlow wants it.
    """
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        jobs, task = config.get("cluster", {}), config.get("task", {})
        counts = {job: len(addresses) for job, addresses in jobs.items()}
        if sum(counts.values()) < 2:
            return 0, 1
        kind, index = task["type"], int(task["index"])
        if not {*counts} <= {"chief", "worker"} or counts.get("chief", 0) > 1 or not 0 <= index < counts[kind]:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            'TF_CONFIG must be {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": N}}, its processes chief and '
            f"worker, got {os.environ['TF_CONFIG']}"
        ) from None
    return (index if kind == "chief" else index + counts.get("chief", 0)), sum(counts.values())


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    """Waits for the other workers; once a process, which knows one cluster."""
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InputError("TF_CONFIG must be joined before TensorFlow computes anything: call distribution.join(Fit()) first") from error


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def join(settings: Fit, alone: bool = False) -> Team:
    """Whom this process trains with, by `fit.strategy` and TF_CONFIG. To be called before TensorFlow computes anything; waits for all workers.

    Args:
        settings: of the experiment.
        alone: whether it is of a kind that several replicas cannot train; auto then takes one device.

    Raises:
        InputError: a strategy that does not go with TF_CONFIG.
    """
    worker, workers = cluster()
    if settings.strategy != "auto" and (settings.strategy == "multi_worker") != (workers > 1):
        raise InputError(
            f"--fit.strategy must be auto, or multi_worker exactly where TF_CONFIG names two processes or more, got {settings.strategy} and {workers}"
        )
    if workers > 1:
        return Team(_multi_worker(), worker, workers)
    several = len(tf.config.list_physical_devices("GPU")) > 1
    if settings.strategy == "mirrored" or (settings.strategy == "auto" and several and not alone):
        return Team(_mirrored())
    return Team(tf.distribute.get_strategy())


def processes() -> Team:
    """The processes of TF_CONFIG, this one alone without it, whatever they train."""
    return join(Fit(), alone=True)


def refused(experiment: Experiment) -> list[str]:
    """What of an experiment several replicas cannot train."""
    return [flag for flag, has in REFUSED.items() if has(experiment)]


def check(team: Team, experiment: Experiment) -> None:
    """Refuses what a team cannot train.

    Raises:
        InputError: a batch that cannot be divided, or what `refused` names.
    """
    if team.replicas == 1:
        return
    for flag in refused(experiment):
        raise InputError(f"{flag} must be left out, or trained by one process on one device, got {team.replicas} replicas")
    if experiment.fit.batch_size % team.replicas:
        raise InputError(f"--fit.batch-size must be a multiple of the {team.replicas} replicas, got {experiment.fit.batch_size}")


@contextlib.contextmanager
def mended(team: Team) -> Iterator[None]:
    """Keras' `fit` under MultiWorkerMirroredStrategy, in which two things fail in version 3.15 (keras-team/keras#20585).

    It builds a model from a batch that lies on several replicas, though a functional model is built already; and it takes the mean of scalars along
    an axis that they do not have.
    """
    if team.replicas == 1 or not keras.__version__.startswith(DEFECTIVE):
        yield
        return
    from keras.src.backend.tensorflow import trainer

    original = trainer.reduce_per_replica

    def reduce_per_replica(values, strategy, reduction):
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or reduction not in ("auto", "mean"):
            return original(values, strategy, reduction)
        return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    with (
        mock.patch.object(trainer, "reduce_per_replica", reduce_per_replica),
        mock.patch.object(trainer.TensorFlowTrainer, "_maybe_symbolic_build", lambda self, iterator=None, data_batch=None: None),
    ):
        yield
