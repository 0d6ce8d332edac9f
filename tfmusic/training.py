"""One run from start to end: records and experiment to a run directory with the best deployed model, resumable after any kill."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import callbacks, data, evaluate, files, models, run, schema
from tfmusic.config import Experiment, InputError
from tfmusic.frontend import LogMel
from tfmusic.tasks import TASKS

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # precision -> Keras dtype policy
CPU_FLAGS = Path("/proc/cpuinfo")


def fit(experiment: Experiment, records: Path | str, out: Path | str) -> Path:
    """Trains a new run and evaluates its best epoch.

    Args:
        experiment: a recipe's, with or without changes.
        records: directory that `python -m records build` wrote.
        out: run directory; new or empty.

    Returns:
        The run directory: best.keras, metrics.json and the rest of `tfmusic.run`.

    Raises:
        InputError: records that do not fit, or `out` in use.
        KeyboardInterrupt: Ctrl-C; `resume` goes on.

    >>> fit(recipes.tagging(), "data/records", "runs/first")  # doctest: +SKIP
    """
    out, records = Path(out), files.location(records)
    manifest = schema.read_manifest(records)
    _check(manifest, experiment)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out must be a new or empty folder, got {out}; to go on with it: python train.py --resume {out}")
    experiment = experiment.model_copy(update={"fit": experiment.fit.model_copy(update={"precision": precision_of(experiment.fit.precision)})})
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / run.LABELS, manifest.vocabulary.text())
    files.write_text(out / run.EXPERIMENT, run.describe(experiment, records, manifest.sha1, manifest.vocabulary_sha1).model_dump_json(indent=1))
    return resume(out)


def resume(out: Path | str) -> Path:
    """Goes on with a run at its last finished epoch, and evaluates it; a finished run is only evaluated.

    Args:
        out: run directory.

    Returns:
        The run directory.

    Raises:
        InputError: no run, or its records are gone or are others.
        KeyboardInterrupt: Ctrl-C; `resume` goes on.
    """
    out = Path(out)
    info = run.read(out)
    manifest = evaluate.records_of(out, info)
    _check(manifest, info.experiment)
    _train(out, info, manifest)
    score = evaluate.scorer(evaluate.load_best(out))
    figures = {name: evaluate.figures(score, info.records, manifest, info, split) for name, split in (("validation", "valid"), ("test", "test"))}
    files.write_json(out / run.METRICS, figures)
    return out


def precision_of(setting: str) -> str:
    """What "auto" means here: bfloat16 on processors that compute in it, float32 on those that would emulate it.

    >>> precision_of("float32")
    'float32'
    """
    if setting != "auto":
        return setting
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capable = all(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= (8, 0) for gpu in gpus)
    else:
        flags = CPU_FLAGS.read_text() if CPU_FLAGS.is_file() else ""
        capable = re.search(r"\b(avx512_bf16|amx_bf16)\b", flags) is not None
    return "bfloat16" if capable else "float32"


def _check(manifest: schema.Manifest, experiment: Experiment) -> None:
    """Everything that can be refused before the first step."""
    data.check_records(manifest, experiment)
    data.steps_per_epoch(manifest, experiment)
    for name in ("valid", "test"):
        split = manifest.split(name)
        if not any(0 < count < split.tracks for count in split.label_counts):
            raise InputError(f"the {name} split must have a label that some of its {split.tracks} tracks have and some have not, got none")


def _train(out: Path, info: run.RunInfo, manifest: schema.Manifest) -> None:
    experiment, task = info.experiment, TASKS[info.experiment.task]
    settings = experiment.fit
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)

    frontend = LogMel(experiment.frontend)
    shape, classes = frontend.compute_output_shape((None, experiment.frontend.window_samples))[1:], len(manifest.labels)
    net = models.build(experiment.net, shape, classes, POLICIES[settings.precision])
    # A net that trains in bfloat16 is served by a float32 twin: TFLite converts no other.
    twin = net if settings.precision == "float32" else models.build(experiment.net, shape, classes)
    deployed = models.deploy(frontend, twin, task.activation)
    net.compile(optimizer=_optimizer(experiment), loss=task.loss(experiment.loss))
    net.optimizer.build(net.trainable_variables)

    score = evaluate.scorer(deployed)

    def validate() -> dict[str, float]:
        if twin is not net:
            twin.set_weights(net.get_weights())
        tracks = data.tracks(info.records, manifest, "valid")
        scored = evaluate.score_tracks(score, tracks, experiment.frontend, experiment.evaluation)
        if not np.isfinite(scored.scores).all():
            return dict.fromkeys(task.watched, math.nan)
        figures = task.figures(scored.y_true, scored.scores, 0, settings.seed)
        return {name: figures[name] for name in task.watched}

    watchers = [
        callbacks.TrackMetrics(validate),
        callbacks.SaveBest(deployed, out / run.BEST, settings.monitor),
        keras.callbacks.EarlyStopping(settings.monitor, mode="max", patience=settings.patience),
        keras.callbacks.TensorBoard(out / run.TENSORBOARD, write_graph=False),
    ]
    state = callbacks.SaveState(out, watchers)
    first_epoch, stopped = state.load()
    if settings.epochs == 0:
        callbacks.save_model(deployed, out / run.BEST)  # the fresh weights
    if stopped or first_epoch >= settings.epochs:
        return
    with data.damage_named(info.records):
        net.fit(
            data.train_batches(info.records, manifest, experiment, first_epoch),
            initial_epoch=first_epoch,
            epochs=settings.epochs,
            steps_per_epoch=data.steps_per_epoch(manifest, experiment),
            callbacks=[*watchers, state],
            shuffle=False,  # the stream is shuffled
            verbose=1 if sys.stdout.isatty() else 2,
        )


def _optimizer(experiment: Experiment) -> keras.optimizers.Optimizer:
    settings = experiment.fit
    if settings.weight_decay:
        return keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
    return keras.optimizers.Adam(settings.learning_rate)
