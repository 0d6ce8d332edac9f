"""Rate, step time and the share of waiting: arithmetic on a clock of our own, then streams that are slow on purpose."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from tfmusic.throughput import Throughput, is_op_determinism_enabled


def test_the_arithmetic(capsys):
    """Traced step: 9 s, not counted. Then two steps from 10 to 14 s, .5 + .7 s of it until their 8 rows each have come: 4 windows a second, 2 s
    a step, 30 %."""
    times = iter([0, 9, 10, 12, 14])
    throughput = Throughput(now=lambda: next(times))
    throughput.on_train_begin()
    throughput.on_epoch_begin(0)
    for step, waited_s in enumerate((8.0, 0.5, 0.7)):
        throughput.on_train_batch_begin(step)
        for counted, value in zip((throughput.waited, throughput.rows, throughput.steps), (waited_s, 8, 1), strict=True):
            counted.assign_add(value)
        throughput.on_train_batch_end(step)
    throughput.on_epoch_end(0)
    throughput.on_train_end()
    assert capsys.readouterr().out == "4 windows/s, 2000.0 ms a step, 30% of it waiting for data\n"


def test_an_epoch_of_the_traced_step_alone_tells_nothing(capsys):
    throughput = Throughput()
    throughput.on_train_begin()
    throughput.on_epoch_begin(0)
    throughput.on_train_batch_begin(0)
    throughput.on_train_batch_end(0)
    throughput.on_epoch_end(0)
    assert capsys.readouterr().out == ""


class Slow(keras.callbacks.Callback):
    """A step that takes its time besides the stream."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.03)


@pytest.mark.parametrize(("stream_s", "slow", "low", "high"), [(0.03, [], 0.6, 1.0), (0.0, [Slow()], 0.0, 0.4), (0.03, [Slow()], 0.0, 0.5)])
def test_who_waits_for_whom(stream_s, slow, low, high, tmp_path):
    """Batches that take .03 s: a quick step waits for them, one that takes as long itself finds them prefetched. The figures are scalars."""

    def delayed(number):
        time.sleep(stream_s)
        return number

    def batch(number):
        tf.ensure_shape(tf.numpy_function(delayed, [number], tf.int64), [])
        return tf.ones((4, 2)), tf.ones((4, 1))

    stream = tf.data.Dataset.range(40).map(batch).prefetch(4)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    throughput = Throughput(tmp_path)
    model.fit(throughput.watched(stream), epochs=2, steps_per_epoch=20, callbacks=[*slow, throughput], verbose=0, shuffle=False)
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    found = {name: [tf.make_ndarray(event.tensor_proto).item() for event in events.Tensors(name)] for name in events.Tags()["tensors"]}
    assert {*found} == {"windows_per_s", "step_s", "data_wait"} and [len(values) for values in found.values()] == [2, 2, 2]
    assert low <= found["data_wait"][1] <= high, found
    assert found["windows_per_s"][1] * found["step_s"][1] == pytest.approx(4, rel=1e-5)


def test_batches_are_the_same_of_any_structure(monkeypatch):
    """Features and truth; one dict for metric learning; epochs that go on in one stream."""
    features, truth = np.arange(12.0).reshape(6, 2), np.arange(6)
    pairs = tf.data.Dataset.from_tensor_slices((features, {"logits": truth})).batch(2)
    single = tf.data.Dataset.from_tensor_slices(({"features": features},)).batch(2)
    for stream, deterministic in ((pairs, True), (single, False), (tf.data.Dataset.from_tensor_slices(features).batch(2), True)):
        on = deterministic or is_op_determinism_enabled()  # by a test before: nobody can switch it off
        monkeypatch.setattr("tfmusic.throughput.is_op_determinism_enabled", lambda on=on: on)
        throughput = Throughput()
        found = [*throughput.watched(stream).as_numpy_iterator()]
        tf.nest.map_structure(np.testing.assert_array_equal, found, [*stream.as_numpy_iterator()])
        assert throughput.rows == 6 and throughput.steps == 3 and 0 < float(throughput.waited) < 10
