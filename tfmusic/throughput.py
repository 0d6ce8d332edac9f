"""How fast a training goes, and whether it waits for its data."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # as Keras does: no public name tells


class Throughput(keras.callbacks.Callback):
    """Tells after every epoch how many windows a second were learnt from, how long a step took, and for which share of that it waited for data.

    The stream is asked for a batch inside the training step, where no callback looks, so a clock stands around the stream itself (`watched`): it
    reads the time when a batch is asked for and again when it has come. A share near 0 says that the net is the brake, a large one the stream.
    The first step of a training, which is traced, does not count; neither does validation. On an accelerator the figure holds where the loss
    of every step is read, as `fit` does it to stop at a NaN; else the host runs ahead of the device, and waits without it having to.

    Args:
        directory: of a run of TensorBoard's own, for the same figures as scalars; none: they are only printed.
        now: the clock of the steps, in seconds.

    >>> throughput = Throughput()
    >>> model.fit(throughput.watched(dataset), callbacks=[throughput])  # doctest: +SKIP
    """

    def __init__(self, directory: Path | None = None, now: Callable[[], float] = time.perf_counter):
        super().__init__()
        self.directory, self.now = directory, now
        self.figures: dict[str, float] = {}  # of the last epoch
        self.traced = False
        with tf.device("CPU:0"):
            self.waited, self.rows, self.steps = (tf.Variable(0, dtype=dtype, trainable=False) for dtype in (tf.float64, tf.int64, tf.int64))
        self._begin_anew()

    def watched(self, stream: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, timed where they leave the stream."""

        def clock(*_) -> tf.Tensor:
            # TensorFlow refuses its own clock where operations must be deterministic; Python's takes a tenth of a millisecond.
            return tf.numpy_function(time.time, [], tf.float64) if is_op_determinism_enabled() else tf.timestamp()

        def arrived(asked: tf.Tensor, batch):
            rows = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
            with tf.control_dependencies([rows]):  # which are there when the batch is
                counted = [self.waited.assign_add(clock() - asked), self.rows.assign_add(rows), self.steps.assign_add(1)]
            with tf.control_dependencies(counted):
                return tf.nest.map_structure(tf.identity, batch)

        # zip asks from left to right. A prefetch behind it would ask in its own time.
        timed = tf.data.Dataset.zip((tf.data.Dataset.counter().map(clock), stream)).map(arrived)
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return timed.with_options(options)

    def on_epoch_begin(self, epoch, logs=None):
        self._begin_anew()

    def on_train_batch_begin(self, batch, logs=None):
        if self.begin is None:
            self.begin = self.now()

    def on_train_batch_end(self, batch, logs=None):
        self.end = self.now()
        if not self.traced:
            self.traced = True
            self._begin_anew()

    def on_epoch_end(self, epoch, logs=None):
        steps, rows, waited_s = (float(counted) for counted in (self.steps, self.rows, self.waited))
        if self.begin is None or not steps:
            return
        seconds = self.end - self.begin
        self.figures = figures = {"windows_per_s": rows / seconds, "step_s": seconds / steps, "data_wait": waited_s / seconds}
        rate, step_s, share = figures.values()
        print(f"{rate:.0f} windows/s, {1000 * step_s:.1f} ms a step, {share:.0%} of it waiting for data")
        if self.writer:
            with self.writer.as_default(step=epoch):
                for name, value in figures.items():
                    tf.summary.scalar(name, value)
            self.writer.flush()

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(str(self.directory)) if self.directory else None

    def on_train_end(self, logs=None):
        if self.writer:
            self.writer.close()

    def _begin_anew(self) -> None:
        self.begin, self.end = None, 0.0
        for counted in (self.waited, self.rows, self.steps):
            counted.assign(0)
