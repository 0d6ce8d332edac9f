"""What augmentation does to training examples, to look at and to listen to: windows of the training stream before and after each of its steps."""

from __future__ import annotations

import dataclasses
import html
import wave
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmusic import data, files, noises, page, pictures, schema, waveform
from tfmusic.config import Augment, Experiment, InputError
from tfmusic.files import RemotePath
from tfmusic.frontend import LogMel
from tfmusic.page import Exhibit, Sound

INDEX = "index.html"
BEFORE, CHANGED, MASKED, MIXED = "before", "waveform changed", "SpecAugment", "mixup"
SHARE = 0.005  # of a label after mixup, below which it is not told


@dataclasses.dataclass(frozen=True)
class Example:
    """One window of the training stream."""

    before: np.ndarray  # int16 (samples,): as it was cut
    after: np.ndarray  # int16 (samples,): what the front end gets
    drawn: tuple[str, ...]  # changes of the waveform that it was drawn for
    features: dict[str, np.ndarray]  # step -> what the front end makes of it then, (frames, mels[, channels]); steps that are off are not there
    labels: dict[str, float]  # label -> share of it in what is learnt, after mixup


def examples(records: Path | RemotePath, manifest: schema.Manifest, experiment: Experiment, count: int, epoch: int = 0) -> list[Example]:
    """The first windows of an epoch as `data.train_batches` makes them: its functions one after the other, with its seeds.

    Oversampling and metric learning draw other tracks in place of these, which then go through the same. What stands beside the log-mel, a frozen
    net, hears "after" too.

    Args:
        records: directory.
        manifest: of the records.
        experiment: its augmentation, front end, batch size and seed.
        count: `int > 0`; fewer where the epoch has fewer.
        epoch: its number `int >= 0`.

    Raises:
        InputError: the records do not fit the experiment, or it reads sequences of features, which nothing augments.

    >>> examples(records, schema.read_manifest(records), recipes.tagging(), count=4)  # doctest: +SKIP
    """
    if experiment.sequences:
        raise InputError(f"a preview is of windows of audio, got {experiment.recipe}, which reads sequences of features that nothing augments")
    if count < 1:
        raise InputError(f"the number of examples must be > 0, got {count}")
    data.check_records(manifest, experiment)
    frontend, augment, number = LogMel(experiment.frontend), experiment.augment, tf.constant(epoch, tf.int64)
    seed = data.epoch_seed(experiment, number)
    samples, batch_size = experiment.frontend.window_samples, experiment.fit.batch_size
    found: list[Example] = []
    recorded = noises.of(experiment)
    stream = data.raw_batches(records, manifest, experiment, number)
    with schema.damage_named(records):
        for step, (waveforms, truth, index) in enumerate(stream.take(-(-count // batch_size))):
            before = tf.cast(waveforms[:, :samples], tf.float32) / 32768.0
            after = data.heard(experiment, waveforms, seed, index, recorded)
            steps = {BEFORE: frontend(before)}
            if augment.waveform.probability:
                steps[CHANGED] = frontend(after)
            masked = data.masked(experiment, steps.get(CHANGED, steps[BEFORE]), seed, index)
            if augment.spec_augment.probability:
                steps[MASKED] = masked
            mixed, learnt = data.mixed(experiment, masked, truth, seed, tf.constant(step, tf.int64))
            if augment.mixup_alpha:
                steps[MIXED] = mixed
            drawn = waveform.changes(data.seeds_of_waveforms(seed, index), augment.waveform)
            for row in range(min(batch_size, count - len(found))):
                shares = learnt["labels"].numpy()[row]
                found.append(
                    Example(
                        before=waveforms.numpy()[row, :samples],
                        after=_int16(after.numpy()[row]),
                        drawn=tuple(name for name, chosen in drawn.items() if chosen[row]),
                        features={name: values.numpy()[row] for name, values in steps.items()},
                        labels={label: float(share) for label, share in zip(manifest.labels, shares, strict=True) if share > SHARE},
                    )
                )
    return found


def exhibits(found: list[Example], augment: Augment) -> list[Exhibit]:
    """The examples as pictures and sounds."""
    shown = []
    for number, example in enumerate(found, start=1):
        told = ", ".join(label if share > 1 - SHARE else f"{share:.2f} {label}" for label, share in example.labels.items()) or "no label"
        sounds = [Sound("before", example.before)]
        if augment.waveform.probability:
            told += f". Waveform: {', '.join(example.drawn) or 'none of the changes'}"
            sounds.append(Sound("after the changes of the waveform", example.after))
        shown.append(Exhibit(f"Training example {number}", f"{told}.", figure=pictures.spectrograms(example.features), sounds=tuple(sounds)))
    return shown


def write(records: Path | RemotePath, manifest: schema.Manifest, experiment: Experiment, count: int, out: Path) -> Path:
    """Writes sounds and pictures of training examples, and a page that shows and plays them offline.

    Args:
        records, manifest, experiment, count: as of `examples`.
        out: new or empty directory.

    Returns:
        The page: index.html, beside NN-before.wav, NN-after.wav and NN.png.

    Raises:
        InputError: as of `examples`, or `out` is in use.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out must be a new or empty folder, got {out}")
    found, rate_hz = examples(records, manifest, experiment, count), manifest.layout.sample_rate_hz
    shown = exhibits(found, experiment.augment)
    out.mkdir(parents=True, exist_ok=True)
    for number, (example, exhibit) in enumerate(zip(found, shown, strict=True), start=1):
        (out / f"{number:02d}.png").write_bytes(page.png(exhibit.figure))
        for name, samples in {"before": example.before, "after": example.after}.items():
            _write_wav(out / f"{number:02d}-{name}.wav", samples, rate_hz)
    told = (
        f"The first {len(found)} windows of the first epoch with --fit.seed {experiment.fit.seed}, of the records {records}, as the training stream "
        "makes them. Validation and test tracks go through none of this."
    )
    if experiment.augment == Augment():
        told += " No augmentation is on: --augment.waveform.probability, --augment.spec-augment.probability and --augment.mixup-alpha are 0."
    body = [
        f"<h1>{html.escape(f'Training examples of {experiment.recipe}')}</h1><p>{html.escape(told)}</p>",
        *(page.section(exhibit, rate_hz) for exhibit in shown),
        f"<h2>Settings</h2><pre>{html.escape(experiment.augment.model_dump_json(indent=1))}</pre>",
    ]
    files.write_text(out / INDEX, page.document(f"Training examples of {experiment.recipe}", body))
    return out / INDEX


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)


def _write_wav(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
