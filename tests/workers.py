"""What each process of `test_distribution` does: `python -m tests.workers JOB`, with a TF_CONFIG of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from tests.conftest import EXPERIMENT
from tfmusic import callbacks, cli, config, distribution, models, optimizers, training
from tfmusic.config import Experiment


def experiment(net: str, /, **changes: dict) -> Experiment:
    """The suite's, for a net at 1/8 width, without dropout, whose masks a process draws for its own rows."""
    merged = EXPERIMENT.model_dump() | {"net": {"name": net, "width": 0.125}}
    for sections in ({"fit": {"epochs": 2, "precision": "float32"}}, changes):
        merged |= {name: merged[name] | values for name, values in sections.items()}
    return Experiment.model_validate(merged)


def without_normalization():
    """`cnn2d`, `linear` and others of their module without batch normalization, which all nets of the table have."""
    return mock.patch.object(models.cnn, "BatchNormalization", keras.layers.Identity)


def main() -> None:
    """Every run of the job, one after the other."""
    job = json.loads(sys.argv[1])
    if job.get("devices"):
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * job["devices"]
        )
    team, records = distribution.processes(), Path(job["records"])
    if "unmended" in job:
        Path(job["unmended"] + str(team.worker)).write_text(json.dumps(unmended(team)))
        Path(job["failed"] + str(team.worker)).write_text(json.dumps(first_failed(team)))
    for number, one in enumerate(job["runs"]):
        out, begun = Path(one["out"]), time.monotonic()
        follow(out.with_name(f"{out.name}.{team.worker}.npz"), one.get("kill") if one.get("killed") == team.worker else None)
        with without_normalization() if one.get("plain") else contextlib.nullcontext():
            if one.get("resume"):
                training.resume(out)
            else:
                training.fit(experiment(one["net"], **one.get("changes", {})), records, out)
        print(f"run {number} took {time.monotonic() - begun:.1f} s", flush=True)


def follow(path: Path, last_epoch: int | None) -> None:
    """Keeps what a worker has at the end of every epoch, or kills it there."""
    if not hasattr(callbacks.SaveState, "original"):
        callbacks.SaveState.original = callbacks.SaveState.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        self.original(epoch, logs)
        kept = {place: keras.ops.convert_to_numpy(variable) for place, variable in self._places().items()}
        np.savez(path, logs=json.dumps(logs), **kept)
        if epoch == last_epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    callbacks.SaveState.on_epoch_end = on_epoch_end


def unmended(team: distribution.Team) -> list[str]:
    """What plain Keras says to training by several workers, before and after the first of the two defects is gone round."""
    from keras.src.backend.tensorflow import trainer

    found = []
    with team.strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    for build in (trainer.TensorFlowTrainer._maybe_symbolic_build, lambda self, iterator=None, data_batch=None: None):
        with mock.patch.object(trainer.TensorFlowTrainer, "_maybe_symbolic_build", build):
            stream = team.batches(tf.data.Dataset.from_tensors((tf.ones((4, 3)), tf.ones((4, 1)))).repeat())
            try:
                model.fit(stream, steps_per_epoch=1, verbose=0)
                found.append("")
            except (ValueError, TypeError, AttributeError, RuntimeError) as error:
                found.append(f"{type(error).__name__}: {error}")
    return found


def first_failed(team: distribution.Team) -> int:
    """The step that all workers hold for the first that is not finite, when a statistic of worker 1 alone is not in the second."""
    with team.strategy.scope():
        weight, statistic = keras.Variable(np.ones(3, "float32")), keras.Variable(np.zeros(3, "float32"), trainable=False)
        optimizer = optimizers.make(config.Fit(), watched=[statistic])
        optimizer.build([weight])

    @tf.function
    def step(value):
        def of_replica(value):
            statistic.assign(value)
            optimizer.apply([tf.ones(3)], [weight])

        team.strategy.run(of_replica, args=(value,))

    for value in (0.0, np.inf * team.worker if team.worker else 0.0, 0.0):
        step(tf.fill((3,), tf.constant(value, tf.float32)))
    return int(optimizer.failed.numpy())


if __name__ == "__main__":
    cli.main(main)
