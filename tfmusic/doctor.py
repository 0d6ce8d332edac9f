"""The input doctor: every stage of a training by itself against the clock, which of them is the brake, and what to change."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from pathlib import Path

import tensorflow as tf

from tfmusic import data, files, noises, schema, tables, throughput, training
from tfmusic.config import Experiment

FOREVER = 1_000_000  # epochs
FEWEST = 3  # batches, or steps
READ, PARSE, DECODE, WAVEFORM, FRONTEND, MASKS, BATCH, STREAM, STEP = (
    "read", "parse", "cut, decode", "waveform augmentation", "front end", "SpecAugment, mixup", "shuffle, batch", "whole stream", "step",
)  # fmt: skip
ADVICE = {  # for the costliest stage
    READ: "put the records on a faster disk, or build them with --payload flac, about half the bytes, or with a shorter --chunk-s",
    PARSE: "build the records with a shorter --chunk-s, so that less is read around a window",
    DECODE: "build the records with --payload pcm16, which is cut without decoding",
    WAVEFORM: "lower --augment.waveform.probability, or leave --augment.waveform.stretch and --augment.waveform.pitch-semitones out, the dearest",
    FRONTEND: "take a longer --frontend.hop-samples or a smaller --frontend.n-fft, or more processors, on which it runs, whatever the net runs on",
    MASKS: "leave --augment.spec-augment.probability or --augment.mixup-alpha out",
    BATCH: "take a smaller --data.shuffle-buffer",
    STEP: "a quicker one takes an accelerator, a smaller --net.width, --fit.precision bfloat16 or --fit.xla on",
}
NOTED = 0.2  # share of shared processors from which on a stream that is not the brake is spoken of


@dataclasses.dataclass(frozen=True)
class Findings:
    """Windows a second of every stage."""

    stages: dict[str, float]  # each alone, in their order
    stream: float  # all of them, as training runs them
    step: float  # on a batch that is there
    fit: dict[str, float]  # `throughput.Throughput.figures`, of both together
    pcm: bool  # whether cutting decodes nothing
    shared: bool  # whether stream and step run on the same processors

    @property
    def brake(self) -> str:
        """The step where it alone is slower than the stream alone; else the stage that costs most.

        The share of waiting does not tell by itself: on shared processors a dear stream takes the step's time and is rarely waited for.
        """
        return STEP if self.step <= self.stream else self.dearest

    @property
    def dearest(self) -> str:
        """The stage that costs most."""
        return min(self.stages, key=self.stages.__getitem__)

    def _advice(self, stage: str) -> str:
        return f"{stage}: {ADVICE[PARSE if stage == DECODE and self.pcm else stage]}"

    def __str__(self) -> str:
        whole = sum(1 / rate for rate in self.stages.values())
        rows = [["", "windows/s", "of the stages' time"]]
        rows += [[name, f"{rate:.0f}", f"{1 / rate / whole:.0%}"] for name, rate in self.stages.items()]
        rows += [[STREAM, f"{self.stream:.0f}", ""], [STEP, f"{self.step:.0f}", ""], ["both, in training", f"{self.fit['windows_per_s']:.0f}", ""]]
        share = self.step / (self.stream + self.step)  # of both, one after the other
        beside = ""
        if self.shared and self.brake == STEP and share >= NOTED:
            beside = f"; the stream takes {share:.0%} of their time beside it, most of it the {self._advice(self.dearest)}"
        told = f"{self.fit['data_wait']:.0%} of a step in training waits for data{'; both share the processors' if self.shared else ''}"
        return f"{tables.text(rows)}\n\n{told}; the brake is the {self._advice(self.brake)}{beside}"


def examine(experiment: Experiment, records: Path | str, seconds: float = 2.0) -> Findings:
    """Times the stages of a training, each alone on inputs that are there, then the stream, the step, and both in Keras' fit.

    All processors work on each. Oversampling and metric learning read single records in place of runs of them: their reading is in the whole stream.

    Args:
        experiment: a recipe's.
        records: directory.
        seconds: for each stage `float > 0`.

    Raises:
        InputError: records that do not fit.

    >>> print(examine(recipes.tagging(), "data/records"))  # doctest: +SKIP
    """
    records = files.location(records)
    longer = {"epochs": FOREVER, "steps_per_execution": 1}
    found = training.rehearse(experiment.model_copy(update={"fit": experiment.fit.model_copy(update=longer)}), records)
    rows, model = found.experiment.fit.batch_size, found.model
    with schema.damage_named(records):
        stages = {name: _rate(stream, windows, seconds) for name, (stream, windows) in _stages(found, records).items()}
        batch = next(iter(found.stream.take(1)))
        stream = _rate(found.stream, None, seconds)
        standing = tf.data.Dataset.from_tensors(batch).repeat()
        first = _fitted(model, standing, FEWEST)
        step = _fitted(model, standing, _steps(seconds, first["step_s"]))["windows_per_s"]
        fit = _fitted(model, found.stream, _steps(seconds, max(rows / stream, rows / step)))
    return Findings(stages, stream, step, fit, found.manifest.layout.payload == "pcm16", not tf.config.list_physical_devices("GPU"))


def _steps(seconds: float, step_s: float) -> int:
    return max(FEWEST, round(seconds / step_s))


def _stages(found: training.Rehearsal, records: Path) -> dict[str, tuple[tf.data.Dataset, int]]:
    """Each stage on the same input again and again, and how many windows an element of it is."""
    experiment, manifest = found.experiment, found.manifest
    reading = {READ: (data.stored_records(records, manifest).repeat(), 1)}
    if experiment.sequences:
        return reading
    block = next(iter(data.stored_records(records, manifest).repeat().batch(data.PARSED_TOGETHER).take(1)))
    settings, augment = experiment.frontend, experiment.augment
    samples = augment.waveform.cut_samples(settings.window_samples)
    seed, step = tf.constant([experiment.fit.seed, 0], tf.int64), tf.constant(0, tf.int64)
    waveforms, truth, index = next(iter(data.raw_batches(records, manifest, experiment, tf.constant(0, tf.int64)).take(1)))
    recorded = noises.of(experiment)
    heard = data.heard(experiment, waveforms, seed, index, recorded)

    def parse(one):
        return schema.parse(one, len(manifest.labels), len(manifest.targets), ("payload",))

    def cut(one):
        return schema.decode_window(one, tf.zeros(tf.shape(one), tf.int64), samples, settings.short, manifest.layout.payload)

    def masked(one):
        return data.mixed(experiment, data.masked(experiment, one, seed, index), truth, seed, step)

    features, payload, rows = found.frontend(heard), parse(block)["payload"], experiment.fit.batch_size
    stages = reading | {PARSE: (_again(block, parse), data.PARSED_TOGETHER), DECODE: (_again(payload, cut), data.PARSED_TOGETHER)}
    window = tf.data.Dataset.from_tensors(tf.nest.map_structure(lambda one: one[0], (waveforms, truth, index))).repeat()
    stages[BATCH] = window.shuffle(experiment.data.shuffle_buffer, 0).batch(rows, drop_remainder=True).prefetch(tf.data.AUTOTUNE), rows
    if augment.waveform.probability:
        stages[WAVEFORM] = _again(waveforms, lambda one: data.heard(experiment, one, seed, index, recorded)), rows
    stages[FRONTEND] = _again(heard, found.frontend), rows
    if augment.spec_augment.probability or augment.mixup_alpha:
        stages[MASKS] = _again(features, masked), rows
    return stages


def _again(value, function) -> tf.data.Dataset:
    """A function of the stream on one input, as often as it is asked for, on all processors."""
    plain = tf.autograph.experimental.do_not_convert(function)
    return tf.data.Dataset.from_tensors(value).repeat().map(plain, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _rate(stream: tf.data.Dataset, windows: int | None, seconds: float) -> float:
    """Windows a second, after the first elements; none an element: the rows of each."""
    counted, begin, passed = 0, 0.0, 0.0
    for element, batch in enumerate(stream, start=1):  # without end
        if element <= FEWEST:
            begin = time.perf_counter()
            continue
        counted, passed = counted + (windows or len(tf.nest.flatten(batch)[0])), time.perf_counter() - begin
        if passed >= seconds:
            break
    return counted / passed


def _fitted(model, stream: tf.data.Dataset, steps: int) -> dict[str, float]:
    """`throughput.Throughput.figures` of so many steps, after a first one."""
    clock = throughput.Throughput()
    with contextlib.redirect_stdout(io.StringIO()):
        model.fit(clock.watched(stream), steps_per_epoch=steps + 1, callbacks=[clock], verbose=0, shuffle=False)
    return clock.figures
