"""Which rows of a batch each process and device has, where several train one net."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of every batch that one process reads, for devices that have an equal part of them each.

    Batches are split by rows, not the epoch by shards: shards hold different numbers of tracks, so that some workers would run out of windows before
    the others. A batch is thus the same, row by row, whoever reads it; each worker reads all records and decodes, augments and transforms its own.

    Args:
        worker: number of the process `int >= 0`.
        workers: processes `int > 0`.
        devices: of one process `int > 0`.

    >>> Part(worker=1, workers=2).rows(16)
    8
    """

    worker: int = 0
    workers: int = 1
    devices: int = 1

    def rows(self, batch_size: int) -> int:
        """Rows of a batch that one device has."""
        return batch_size // (self.workers * self.devices)

    def own(self, dataset: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """The elements of the worker's rows, of a dataset whose every `batch_size` elements are a batch."""
        if self.workers == 1:
            return dataset
        rows = batch_size // self.workers
        return dataset.enumerate().filter(lambda place, _: place % batch_size // rows == self.worker).map(lambda _, element: element)

    def place(self, number: int | tf.Tensor) -> int | tf.Tensor:
        """Number, among the parts of all devices, of the worker's part `number` in an epoch: its devices take them in turn."""
        step, device = number // self.devices, number % self.devices
        return (step * self.workers + self.worker) * self.devices + device


WHOLE = Part()
