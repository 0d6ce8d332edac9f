"""One 3 s window through the shipped files, and `predict` from start to end.

`python -m tests.benchmarks.inference`

Equal on all sides of a window: the deployed model of `cnn2d` (299,892 parameters, 50 labels, log-mel inside), batch 1, one thread for the
kernels, a window of noise in memory. Peers are Keras' call inside a tf.function, TensorFlow's fastest way, and model.predict(), which is what a
script calls first. The bundle comes out of `training.fit` without an epoch and `export.bundle`, so what is measured is what ships.

`predict` is a new process on a 30 s MP3 (44.1 kHz, stereo), decoding, 19 windows and start-up included; the peer is the import of
TensorFlow alone, which is the floor of every client that needs it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydantic
import soundfile
import tensorflow as tf

from export.bundle import bundle
from export.predict import Predictor
from records.build import build
from records.datasets.clip import Source
from tests.benchmarks import common
from tests.conftest import ROOT, write_csv
from tfmusic import evaluate, training
from tfmusic.config import Evaluation, Experiment, Fit, Layout, Net

LABELS = 50


class Sizes(common.Sizes):
    """LiteRT against Keras, and `predict` as a process."""

    windows: int = pydantic.Field(100, gt=0, description="Windows a measurement; of model.predict a tenth.")
    width: float = pydantic.Field(1.0, gt=0, description="Factor on the filters.")


def measure(sizes: Sizes, directory: Path) -> list[common.Row]:
    """Rows of one window, then of the process."""
    shipped, run = _bundle(directory, sizes)
    model = evaluate.load_best(run)
    window = np.random.default_rng(0).uniform(-0.5, 0.5, (1, model.inputs[0].shape[1])).astype(np.float32)
    # One window a call, as ours; evaluate.scorer always computes a full batch.
    graph = tf.function(lambda window: model(window, training=False), input_signature=[tf.TensorSpec(window.shape, tf.float32)])
    full, half = (Predictor(shipped, precision, threads=1) for precision in ("float32", "float16"))
    runs = {
        "float32": _each(lambda: full.score(window), sizes.windows),
        "float16": _each(lambda: half.score(window), sizes.windows),
        "call": _each(lambda: graph(window)["tags"].numpy(), sizes.windows),
        "predict": _each(lambda: model.predict(window, verbose=0), max(1, sizes.windows // 10)),
    }
    found = {name: figures["ms"] for name, figures in common.alternate(runs, sizes.rounds).items()}
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    call = f"keras model in a tf.function, {threads or 'all'} thread{'s' * (threads != 1)}"
    rows = []
    for precision in ("float32", "float16"):
        what = f"cnn2d, 3 s window, LiteRT {precision}, 1 thread"
        rows.append(common.compare(what, "ms", found[precision], call, found["call"], higher=False))
        rows.append(common.compare(what, "ms", found[precision], "model.predict()", found["predict"], higher=False))

    song = directory / "song.mp3"
    soundfile.write(song, common.music(30, 44_100), 44_100)
    runs = {
        "predict": _process("-m", "export", "predict", str(shipped), str(song)),
        "import": _process("-c", "import tensorflow"),
    }
    found = {name: figures["wall_s"] for name, figures in common.alternate(runs, sizes.rounds).items()}
    return [*rows, common.compare("predict, one 30 s MP3, whole process", "s", found["predict"], "import tensorflow", found["import"], higher=False)]


def _each(function: Callable[[], object], count: int) -> Callable[[], dict[str, float]]:
    """A function that times `count` calls; the first calls trace and are lost."""
    for _ in range(3):
        function()
    return lambda: {"ms": 1000 * common.clocked(lambda: [function() is None for _ in range(count)])["wall_s"] / count}


def _process(*arguments: str) -> Callable[[], dict[str, float]]:
    def once() -> dict[str, float]:
        return common.clocked(lambda: subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True))

    return once


def _bundle(directory: Path, sizes: Sizes) -> tuple[Path, Path]:
    """Bundle and run of a net with fresh weights."""
    rows, waveform = [], common.music(4, 16_000, channels=1)
    for number in range(LABELS):
        split = ("valid", "valid", "test", "test")[number] if number < 4 else "train"
        soundfile.write(directory / f"{number}.wav", np.roll(waveform, 1000 * number), 16_000, subtype="PCM_16")
        rows.append({"path": f"{number}.wav", "split": split, "tags": f"tag{number}"})
    source = Source(dataset="csv", csv=write_csv(directory / "clips.csv", rows), audio=directory)
    experiment = Experiment(
        recipe="benchmark", net=Net(name="cnn2d", width=sizes.width), fit=Fit(epochs=0, precision="float32"), evaluation=Evaluation(bootstrap=0)
    )
    with common.quiet():
        build(source, directory / "records", Layout())
        run = training.fit(experiment, directory / "records", directory / "run")
        return bundle(run), run


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    common.run(Sizes, measure)
