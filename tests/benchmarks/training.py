"""The training step: our fused batch normalisation against Keras' own, float32 and bfloat16, and what `fit` adds to a bare step.

`python -m tests.benchmarks.training` (`--large` for the short-chunk residual net too)

Equal on both sides of a step: batch 16, 231 frames of 128 bands (59,049 samples), 50 labels, Adam, the task's loss, Keras' own compiled train
function, one constant batch of noise in memory; the peer is the same table built with keras.layers.BatchNormalization. Convolutions are the
floor, about 86 % of our step on the large net.

`fit` is a whole run of `tfmusic.training.fit` on real records, measured from the beginning to the end of each epoch without the validation
scores, but with every callback: TensorBoard, best model, state, history. The bare loop calls the same train function on a second copy of the
same stream, once after each epoch, so that both pay for decoding, log-mel and augmentation.
"""

from __future__ import annotations

import time
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pydantic
import soundfile
import tensorflow as tf

from records.build import build
from records.datasets.clip import Source
from tests.benchmarks import common
from tests.conftest import write_csv
from tfmusic import data, losses, models, training
from tfmusic.config import Data, Evaluation, Experiment, Fit, FrontEnd, Layout, Loss, Net
from tfmusic.models import cnn, resnet

FRONTEND = FrontEnd(window_s=59_049 / 16_000, n_mels=128)
SHAPE, LABELS = (231, 128), 50


class Sizes(common.Sizes):
    """The training step and `fit`."""

    large: bool = pydantic.Field(False, description="Also measures short_chunk_res (12 M parameters), a second a step on two cores.")
    batch_size: int = pydantic.Field(16, gt=0, description="Windows a step.")
    steps: int = pydantic.Field(16, gt=0, description="Steps a measurement; of the large net a quarter.")
    epoch_steps: int = pydantic.Field(64, gt=0, description="Steps of an epoch of `fit`.")
    width: float = pydantic.Field(1.0, gt=0, description="Factor on the filters.")


def measure(sizes: Sizes, directory: Path) -> list[common.Row]:
    """Rows of the steps, then of `fit`."""
    rows = []
    for name in ("cnn2d", "short_chunk_res") if sizes.large else ("cnn2d",):
        steps = max(1, sizes.steps // (1 if name == "cnn2d" else 4))
        runs = {}
        for precision in dict.fromkeys(("float32", training.precision_of("auto"))):
            runs[precision, "ours"] = _steps(name, precision, sizes, steps)
            with mock.patch.object(cnn, "BatchNormalization", _keras_norm), mock.patch.object(resnet, "BatchNormalization", _keras_norm):
                runs[precision, "keras"] = _steps(name, precision, sizes, steps)
        found = common.alternate(runs, sizes.rounds)
        for precision in dict.fromkeys(precision for precision, _ in runs):
            ours, peer = found[precision, "ours"], found[precision, "keras"]
            what, peer_name = f"training step, {name}, {precision}, batch {sizes.batch_size}", "keras.layers.BatchNormalization"
            rows.append(common.compare(what, "ms", ours["ms"], peer_name, peer["ms"], higher=False))
            rows.append(common.compare(what, "CPU-ms", ours["cpu_ms"], peer_name, peer["cpu_ms"], higher=False))
            rows.append(common.compare(what, "clips/s", ours["rate"], peer_name, peer["rate"], higher=True))
    return rows + _fit(directory, sizes)


def _keras_norm(name: str) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(momentum=0.9, name=name)


def _steps(name: str, precision: str, sizes: Sizes, steps: int):
    """A function that times training steps of a new net on a constant batch."""
    whole = models.build(Net(name=name, width=sizes.width), SHAPE, LABELS, training.POLICIES[precision])
    net = keras.Model(whole.input, whole.output["logits"])
    net.compile(optimizer=keras.optimizers.Adam(1e-3), loss=losses.make(Loss()))
    random = np.random.default_rng(0)
    features = random.normal(-40, 20, (sizes.batch_size, *SHAPE)).astype(np.float32)
    y_true = (random.random((sizes.batch_size, LABELS)) < 0.05).astype(np.float32)
    batches = iter(tf.data.Dataset.from_tensors((tf.constant(features), tf.constant(y_true))).repeat())
    net.make_train_function()
    step = net.train_function
    _run(step, batches, 3)

    def once() -> dict[str, float]:
        found = common.clocked(lambda: _run(step, batches, steps))
        return {"ms": 1000 * found["wall_s"] / steps, "cpu_ms": 1000 * found["cpu_s"] / steps, "rate": steps * sizes.batch_size / found["wall_s"]}

    return once


def _run(step, batches, count: int) -> None:
    for _ in range(count):
        logs = step(batches)
    keras.tree.map_structure(np.asarray, logs)  # waits for the last step


def _fit(directory: Path, sizes: Sizes) -> list[common.Row]:
    """A run with a stopwatch among its callbacks."""
    tracks, epochs = min(64, sizes.epoch_steps * sizes.batch_size), sizes.rounds + 1  # the first epoch traces
    rows, waveform = [], common.music(10, 16_000, channels=1)
    for number in range(tracks + 4):
        split = "train" if number < tracks else ("valid", "test")[number % 2]
        soundfile.write(directory / f"{number}.wav", np.roll(waveform, 1000 * number), 16_000, subtype="PCM_16")
        rows.append({"path": f"{number}.wav", "split": split, "tags": f"tag{number % LABELS}"})
    source = Source(dataset="csv", csv=write_csv(directory / "clips.csv", rows), audio=directory)
    experiment = Experiment(
        recipe="benchmark",
        frontend=FRONTEND,
        data=Data(crops_per_clip=max(1, -(-sizes.epoch_steps * sizes.batch_size // tracks))),
        net=Net(name="cnn2d", width=sizes.width),
        fit=Fit(epochs=epochs, batch_size=sizes.batch_size, patience=epochs),
        evaluation=Evaluation(bootstrap=0),
    )
    with common.quiet():
        manifest = build(source, directory / "records", Layout())
        stopwatch = _Stopwatch(directory / "records", manifest, experiment)
        with mock.patch.object(keras.Model, "fit", stopwatch.wrap(keras.Model.fit)):
            training.fit(experiment, directory / "records", directory / "run")
    fit, steps, bare, saving = (np.array(column[1:]) for column in (stopwatch.epoch_s, stopwatch.steps_s, stopwatch.bare_s, stopwatch.end_s))
    scale = 1000 / data.steps_per_epoch(manifest, experiment)
    what, peer_name = f"cnn2d in fit, {training.precision_of('auto')}", "the same steps and stream, no callbacks"
    return [
        common.compare(f"{what}: an epoch with all callbacks", "ms a step", list(fit * scale), peer_name, list(bare * scale), higher=False, bar=0.95),
        common.compare(f"{what}: the steps alone", "ms a step", list(steps * scale), peer_name, list(bare * scale), higher=False, bar=0.95),
        common.Row(f"{what}: TensorBoard, best model, state at the end", "ms an epoch", float(np.median(saving) * 1000)),
    ]


class _Stopwatch:
    """Times epochs of a run from the inside: stands around the run's callbacks, and runs the bare loop between epochs."""

    def __init__(self, records: Path, manifest, experiment: Experiment):
        self.steps = data.steps_per_epoch(manifest, experiment)
        batches = data.train_batches(records, manifest, experiment)
        self.batches = iter(batches.map(lambda features, truth: (features, {"logits": truth["labels"]})))
        self.epoch_s, self.steps_s, self.bare_s, self.end_s = [], [], [], []

    def wrap(self, fit):
        """Keras' fit with the stopwatch first, behind the validation, and last."""
        on = keras.callbacks.LambdaCallback

        def watched(net, *arguments, callbacks, **options):
            validation, *rest = callbacks
            begin = on(on_epoch_begin=lambda epoch, logs: self._begin(), on_epoch_end=lambda epoch, logs: self._steps_end())
            validated = on(on_epoch_end=lambda epoch, logs: self._validated())
            end = on(on_epoch_end=lambda epoch, logs: self._end(net))
            return fit(net, *arguments, callbacks=[begin, validation, validated, *rest, end], **options)

        return watched

    def _begin(self) -> None:
        self.start = time.perf_counter()

    def _steps_end(self) -> None:
        self.steps_s.append(time.perf_counter() - self.start)

    def _validated(self) -> None:
        self.start = time.perf_counter()

    def _end(self, net: keras.Model) -> None:
        self.end_s.append(time.perf_counter() - self.start)
        self.epoch_s.append(self.steps_s[-1] + self.end_s[-1])
        self.bare_s.append(common.clocked(lambda: _run(net.train_function, self.batches, self.steps))["wall_s"])


if __name__ == "__main__":
    common.run(Sizes, measure)
