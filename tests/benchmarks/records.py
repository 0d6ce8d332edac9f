"""Building records: decode, mono, resample, chunk, encode, write, hash and manifest, in x real time.

`python -m tests.benchmarks.records`

Equal on all sides: the same files (29 s, 44.1 kHz, stereo, MP3 and FLAC), warm in the page cache, to 16 kHz mono, soxr HQ. The peers read
one file after the other and write nothing; the builder with one worker does the same and all the rest. The floor is decode + resample:
soundfile.read, half the sum of the channels, soxr. All files are training clips, so the builder writes each about twice (chunks overlap). Shards
are small here, so that few files make more shards than cores, as any real set does. `as flac` is the same build with --payload flac, held against
the same floor, which encodes nothing.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pydantic
import soundfile
import soxr

from records.build import build
from records.datasets.clip import Source
from records.settings import Work
from tests.benchmarks import common
from tests.conftest import write_csv
from tfmusic.config import Layout

RATE_HZ, TO_HZ = 44_100, 16_000
PCM, FLAC = (Layout(sample_rate_hz=TO_HZ, payload=payload) for payload in ("pcm16", "flac"))
UNIQUE = 8  # synthesised files; the rest are links to them
BARS = {"mp3": (0.85, 1.05), "flac": (0.85, 1.2)}  # against decode + resample, librosa.load
SCALING_BAR = 1.8  # of two workers
SHARD_CLIPS = 4  # about, per shard


class Sizes(common.Sizes):
    """The record builder against loops that only decode and resample."""

    clips: int = pydantic.Field(96, gt=0, description="Files of each format.")
    clip_s: float = pydantic.Field(29.0, gt=0, description="Their length in seconds.")
    rounds: int = pydantic.Field(3, gt=0, description="Pairs; figures and ratios are medians over them.")


def measure(sizes: Sizes, directory: Path) -> list[common.Row]:
    """Rows of both formats."""
    rows, cores = [], common.machine()["cores"]
    seconds = sizes.clips * sizes.clip_s
    for suffix, (floor_bar, librosa_bar) in BARS.items():
        paths = _files(directory / suffix, suffix, sizes)
        source = Source(dataset="csv", csv=directory / suffix / "clips.csv", audio=directory / suffix)
        runs = {
            "floor": functools.partial(_each, _decode_and_resample, paths),
            "one": functools.partial(_build, source, directory / "out", 1, sizes),
            "flac": functools.partial(_build, source, directory / "out", 1, sizes, FLAC),
            "librosa": functools.partial(_each, functools.partial(librosa.load, sr=TO_HZ), paths),
        }
        if cores > 1:
            runs["all"] = functools.partial(_build, source, directory / "out", cores, sizes)
        for path in paths[:UNIQUE]:
            librosa.load(path, sr=TO_HZ)  # imports what it imports lazily
        found = common.alternate(runs, sizes.rounds)
        speeds = {
            unit: {name: [seconds / second for second in figures[clock]] for name, figures in found.items()}
            for unit, clock in (("s of audio per s", "wall_s"), ("s of audio per CPU-s", "cpu_s"))
        }
        for unit, speed in speeds.items():
            for peer, name, bar in (("floor", "decode + resample", floor_bar), ("librosa", "librosa.load", librosa_bar)):
                rows.append(common.compare(f"records from {suffix}, 1 worker", unit, speed["one"], name, speed[peer], higher=True, bar=bar))
            what = f"records from {suffix} as flac, 1 worker"
            rows.append(common.compare(what, unit, speed["flac"], "decode + resample", speed["floor"], higher=True))
        if cores > 1:
            unit, what = "s of audio per s", f"records from {suffix}, {cores} workers"
            bar = SCALING_BAR if cores == 2 else None
            rows.append(common.compare(what, unit, speeds[unit]["all"], "1 worker", speeds[unit]["one"], higher=True, bar=bar))
    return rows


def _files(directory: Path, suffix: str, sizes: Sizes) -> list[Path]:
    """The clips and their list."""
    directory.mkdir()
    paths = [directory / f"{number:04d}.{suffix}" for number in range(sizes.clips)]
    for number, path in enumerate(paths):
        if number < UNIQUE:
            soundfile.write(path, common.music(sizes.clip_s, RATE_HZ, seed=number), RATE_HZ)
        else:
            os.link(paths[number % UNIQUE], path)
    write_csv(directory / "clips.csv", [{"path": path.name, "split": "train", "tags": f"tag{number % 50}"} for number, path in enumerate(paths)])
    return paths


def _decode_and_resample(path: Path) -> np.ndarray:
    waveform, rate_hz = soundfile.read(path, dtype="float32")
    mono = (waveform[:, 0] + waveform[:, 1]) * np.float32(0.5)  # waveform.mean(axis=1) takes a third of the whole
    return soxr.resample(mono, rate_hz, TO_HZ, quality="HQ")


def _each(function: Callable[[Path], object], paths: list[Path]) -> dict[str, float]:
    return common.clocked(lambda: [function(path) is None for path in paths])


def _build(source: Source, out: Path, workers: int, sizes: Sizes, layout: Layout = PCM) -> dict[str, float]:
    shard_mb = SHARD_CLIPS * 2 * sizes.clip_s * 2 * TO_HZ / 2**20
    with common.quiet():
        figures = common.clocked(lambda: build(source, out, layout, work=Work(shard_mb=shard_mb, workers=workers)))
    shutil.rmtree(out)
    return figures


if __name__ == "__main__":
    common.run(Sizes, measure)
