"""The training stream: windows a second and CPU-seconds per 1,000 windows, from a warm page cache and from a cold one.

`python -m tests.benchmarks.pipeline`

Equal on both sides: the same 29 s tracks as int16 at 16 kHz, windows of 59,049 samples at uniform random starts, one window of every track
an epoch, batches of 16 of int16 windows and float32 labels, no worker processes. The peer is what PyTorch training loops do: a .npy file
a track, np.load(mmap_mode="r") and a copied slice an item, in torch's DataLoader where torch is installed (with one
thread, at which it is fastest), else in a loop that stacks 16 items, which takes about the same CPU time. The floor is the copy of .118 MB a
window out of the page cache.

Three comparisons: `data.windows` batched; `data.train_batches` with its shuffle buffer and conversion to floats but without log-mel; and all
of it (128 bands, SpecAugment, mixup), where the peer calls the same functions on each batch in one tf.function. A stream lives over all rounds, as
in training: what is built and traced once is not in the figures, and each measurement drops its first batches, which were waiting.

The cold row is less than an epoch after the files were dropped from the page cache (Linux): what a set larger than the memory costs on this disk.

The second table is the curve that the default chunk length was chosen from: the windows of a chunk minus stride of 3.7 s or more, against
disk space and against what a window costs to read (bytes that passed through read(), which includes what read-ahead threw away).
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pydantic
import soundfile
import tensorflow as tf

from records.build import build
from records.datasets.clip import Source
from tests.benchmarks import common
from tests.conftest import write_csv
from tfmusic import augment, data, schema
from tfmusic.config import Augment, Data, Experiment, Fit, FrontEnd, Layout, SpecAugment
from tfmusic.frontend import LogMel

RATE_HZ, BATCH, LABELS = 16_000, 16, 50
FRONTEND = FrontEnd(window_s=59_049 / RATE_HZ, n_mels=128)
AUGMENT = Augment(spec_augment=SpecAugment(probability=1.0), mixup_alpha=0.3)
CURVE = ((5.7, 2.0), (7.0, 3.0), (8.0, 4.0), (12.0, 8.0), (64.0, 60.0))  # chunk, stride in s; the last holds any track whole
PEER = f"memmap, {common.LOADER}"
WAITING = 8  # batches that may have been made before the clock started
Batch = tuple[np.ndarray, np.ndarray]


class Sizes(common.Sizes):
    """The training stream against a memmap loader."""

    tracks: int = pydantic.Field(512, gt=0, description="Tracks of the set.")
    track_s: float = pydantic.Field(29.0, gt=4, description="Their length in seconds.")
    batches: int = pydantic.Field(192, gt=0, description="Batches a measurement.")
    curve: bool = pydantic.Field(True, description="Also measures other chunk lengths.")


def measure(sizes: Sizes, directory: Path) -> list[common.Row]:
    """Rows of plain, shuffled and augmented streams, then one a chunk length."""
    source, paths, labels = _tracks(directory / "tracks", sizes)
    experiment = Experiment(recipe="benchmark", frontend=FRONTEND, data=Data(), fit=Fit(batch_size=BATCH, epochs=1_000_000))
    augmented = experiment.model_copy(update={"augment": AUGMENT})
    out = directory / "records"
    manifest = _build(source, out, Layout(sample_rate_hz=RATE_HZ))

    def peer_batches() -> Iterator[Batch]:
        return common.loader(windows_of(paths, labels), len(paths), BATCH)

    comparisons = [  # what, bars for windows/s and CPU-s, batches, ours, peer
        ("windows, int16", (1.0, 1.0), sizes.batches, stream(out, manifest, experiment).as_numpy_iterator(), peer_batches()),
        ("windows, float32, shuffled", (1.0, 1.0), sizes.batches, iter(shuffled(out, manifest, experiment)), _floats(peer_batches())),
        ("log-mel, SpecAugment, mixup", (1.5, None), sizes.batches // 4 or 1, iter(data.train_batches(out, manifest, augmented)),
         _augmented(peer_batches())),
    ]  # fmt: skip
    rows = []
    for what, bars, batches, ours, peer in comparisons:
        found = common.alternate({"ours": measured(ours, batches), "peer": measured(peer, batches)}, sizes.rounds)
        rows += rows_of(what, found["ours"], PEER, found["peer"], bars)
    del comparisons, ours, peer
    if hasattr(os, "posix_fadvise"):
        shards = [out / shard.file for shard in manifest.shards]
        rows.append(_cold(stream(out, manifest, experiment).as_numpy_iterator(), shards, peer_batches(), paths, sizes))
    shutil.rmtree(out)
    return rows + (_curve(source, directory, experiment, sizes) if sizes.curve else [])


def stream(directory: Path, manifest: schema.Manifest, experiment: Experiment) -> tf.data.Dataset:
    """Batches of `data.windows`, epoch after epoch."""
    epochs = tf.data.Dataset.range(experiment.fit.epochs)
    windows = epochs.flat_map(lambda epoch: data.windows(directory, manifest, experiment, epoch))
    return windows.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def shuffled(directory: Path, manifest: schema.Manifest, experiment: Experiment) -> tf.data.Dataset:
    """`data.train_batches` with a front end that hands the waveform through."""
    with mock.patch.object(data, "LogMel", lambda frontend: tf.identity):
        return data.train_batches(directory, manifest, experiment)


def windows_of(paths: list[Path], labels: np.ndarray) -> Callable[[int], Batch]:
    """The peer's item: a random window of a memory-mapped track."""
    random = np.random.default_rng(0)

    def item(number: int) -> Batch:
        track = np.load(paths[number], mmap_mode="r")
        first = random.integers(0, len(track) - FRONTEND.window_samples + 1)
        return np.array(track[first : first + FRONTEND.window_samples]), labels[number]

    return item


def _floats(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The peer's windows in [-1, 1), as a front end wants them."""
    for waveforms, labels in batches:
        yield np.multiply(waveforms, 1 / 32_768, dtype=np.float32), labels


def _augmented(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The peer's batches through our own functions."""
    frontend, masks = LogMel(FRONTEND), AUGMENT.spec_augment.model_dump()

    @tf.function
    def features_of(waveforms, labels, step):
        features = frontend(tf.cast(waveforms, tf.float32) / 32768.0)
        seeds = tf.stack([tf.range(BATCH, dtype=tf.int64), tf.fill([BATCH], step)], axis=1)
        return augment.mixup(augment.spec_augment(features, seeds, **masks), labels, tf.stack([step, step]), AUGMENT.mixup_alpha)

    for step, (waveforms, labels) in enumerate(batches):
        yield features_of(waveforms, labels, tf.constant(step, tf.int64))


def measured(batches: Iterator[tuple], count: int) -> Callable[[], dict[str, float]]:
    """A function that takes `count` batches from the stream where it stands; what is built once is built here.

    Args:
        batches: of tuples whose second part has a row for each window.
        count: `int > 0`.
    """
    for _ in range(2 * WAITING):
        next(batches)

    def once() -> dict[str, float]:
        for _ in range(WAITING):
            next(batches)
        read, sizes = _bytes_read(), []
        figures = common.clocked(lambda: sizes.extend(len(next(batches)[1]) for _ in range(count)))
        windows = sum(sizes)
        return {
            "rate": windows / figures["wall_s"],
            "cpu_s": 1000 * figures["cpu_s"] / windows,
            "mb": (_bytes_read() - read) / windows / 1e6,
        }

    return once


def rows_of(
    what: str, ours: dict, peer_name: str, peer: dict, bars: tuple[float | None, float | None] = (None, None), unit: str = "windows"
) -> list[common.Row]:
    """Speed and cost of two `measured` streams."""
    return [
        common.compare(what, f"{unit}/s", ours["rate"], peer_name, peer["rate"], higher=True, bar=bars[0]),
        common.compare(what, "CPU-s per 1,000", ours["cpu_s"], peer_name, peer["cpu_s"], higher=False, bar=bars[1]),
    ]


def _cold(ours: Iterator[Batch], shards: list[Path], peer: Iterator[Batch], paths: list[Path], sizes: Sizes) -> common.Row:
    """Row of streams from files that are not in the page cache."""
    batches = max(1, sizes.tracks // BATCH - WAITING)  # what is read twice is warm the second time

    def dropped(files: list[Path], once: Callable[[], dict[str, float]]) -> dict[str, float]:
        for path in files:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return once()

    os.sync()  # pages that are not on disk yet cannot be dropped
    runs = {
        "ours": functools.partial(dropped, shards, measured(ours, batches)),
        "peer": functools.partial(dropped, paths, measured(peer, batches)),
    }
    found = {name: figures["rate"] for name, figures in common.alternate(runs, sizes.rounds).items()}
    return common.compare("windows, int16, cold page cache", "windows/s", found["ours"], PEER, found["peer"], higher=True, bar=2.0)


def _curve(source: Source, directory: Path, experiment: Experiment, sizes: Sizes) -> list[common.Row]:
    """Disk space, bytes read and speed for several chunk lengths."""
    rows, runs, plain_bytes = [], {}, sizes.tracks * round(sizes.track_s * RATE_HZ) * 2
    for chunk_s, stride_s in CURVE:
        out = directory / f"chunk-{chunk_s:g}"
        manifest = _build(source, out, Layout(sample_rate_hz=RATE_HZ, chunk_s=chunk_s, stride_s=stride_s))
        name = f"chunk {chunk_s:g} s, stride {stride_s:g} s" if chunk_s < sizes.track_s else "whole tracks"
        rows.append(common.Row(f"{name}: storage", "of the audio", sum(shard.bytes for shard in manifest.shards) / plain_bytes))
        runs[name] = measured(stream(out, manifest, experiment).as_numpy_iterator(), sizes.batches)
    for name, found in common.alternate(runs, sizes.rounds).items():
        for key, label, unit in (("mb", "read", "MB a window"), ("rate", "speed", "windows/s"), ("cpu_s", "cost", "CPU-s per 1,000")):
            rows.append(common.Row(f"{name}: {label}", unit, float(np.median(found[key]))))
    return sorted(rows, key=lambda row: list(runs).index(row.what.split(":")[0]))


def _tracks(directory: Path, sizes: Sizes) -> tuple[Source, list[Path], np.ndarray]:
    """The set for both: .wav files with their list for the builder, .npy files and a label matrix for the peer."""
    directory.mkdir()
    audio = common.music(sizes.track_s, RATE_HZ, channels=1)[:, 0]
    integers = (audio * 32_767).astype(np.int16)
    random, paths, rows = np.random.default_rng(0), [], []
    for number in range(sizes.tracks):
        waveform = np.roll(integers, int(random.integers(len(integers))))
        paths.append(directory / f"{number:05d}.npy")
        np.save(paths[-1], waveform)
        soundfile.write(paths[-1].with_suffix(".wav"), waveform, RATE_HZ, subtype="PCM_16")
        rows.append({"path": f"{number:05d}.wav", "split": "train", "tags": f"tag{number % LABELS:02d}"})
    labels = np.eye(LABELS, dtype=np.float32)[np.arange(sizes.tracks) % LABELS]
    return Source(dataset="csv", csv=write_csv(directory / "clips.csv", rows), audio=directory), paths, labels


def _build(source: Source, out: Path, layout: Layout) -> schema.Manifest:
    with common.quiet():
        return build(source, out, layout)


def _bytes_read() -> int:
    """Bytes this process has read so far, from the page cache too; 0 where the system does not count them."""
    counters = Path("/proc/self/io")
    return int(counters.read_text().split("rchar: ")[1].split()[0]) if counters.is_file() else 0


if __name__ == "__main__":
    common.run(Sizes, measure)
