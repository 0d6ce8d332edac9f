"""Memory of `records build`: the greatest resident set of the whole program, for few clips and for many.

`python -m tests.benchmarks.memory`

Equal on both sides: clips of half a second (hard links to eight .wav files of 16 kHz mono, each a clip of its own with its own name, artist and
two labels), two workers, shards of about 2 MiB, so that both sets are many of them.

The figure is the kernel's own high-water mark, VmHWM, which a child process reads of itself when it ends: getrusage would count what the
process that started it held. TensorFlow's import is in it. What grows with the clips is their list, from the csv to the plan.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydantic
import soundfile

from tests.benchmarks import common
from tests.conftest import ROOT, write_csv
from tfmusic import cli, files
from tfmusic.config import InputError

UNIQUE, CLIP_S, RATE_HZ = 8, 0.5, 16_000
CHILD = """
import atexit, pathlib, runpy, sys
atexit.register(lambda: print(pathlib.Path("/proc/self/status").read_text(), file=sys.stderr))
runpy.run_module("records", run_name="__main__", alter_sys=True)
"""


class Sizes(common.Sizes):
    """What a build holds in memory."""

    clips: tuple[int, int] = pydantic.Field((1_000, 20_000), description="Clips of the small and of the large set.")
    shard_mb: float = pydantic.Field(2, gt=0, description="About the size of a shard in MiB.")
    rounds: int = pydantic.Field(2, gt=0, description="Pairs; figures and ratios are medians over them.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Sizes:
        if not 0 < self.clips[0] < self.clips[1]:
            raise ValueError(f"--clips must be two numbers, the second greater, got {self.clips[0]} and {self.clips[1]}")
        return self


def measure(sizes: Sizes, directory: Path) -> list[common.Row]:
    """Rows of the large set against the small one."""
    if not Path("/proc/self/status").is_file():
        raise InputError("memory must be measured on Linux: nothing else has /proc/self/status")
    runs = {str(count): _build_of(count, directory / str(count), sizes) for count in sizes.clips}
    small, large = common.alternate(runs, sizes.rounds).values()
    few, many = sizes.clips
    rows = [common.compare(f"records build, {many:,} clips: peak memory", "MB", large["mb"], f"{few:,} clips", small["mb"], higher=False)]
    rows.append(common.Row("records build: growth of the peak", "bytes a clip", 1e6 * (rows[0].ours - rows[0].peer) / (many - few)))
    return rows


def _build_of(count: int, directory: Path, sizes: Sizes) -> Callable[[], dict[str, float]]:
    """A function that builds records of so many clips in a process of its own."""
    directory.mkdir()
    rows = []
    for number in range(count):
        path = directory / f"{number:06d}.wav"
        if number < UNIQUE:
            soundfile.write(path, common.music(CLIP_S, RATE_HZ, seed=number, channels=1), RATE_HZ, subtype="PCM_16")
        else:
            os.link(directory / f"{number % UNIQUE:06d}.wav", path)
        tags = f"tag{number % 50:02d}|tag{number % 49:02d}"
        rows.append({"path": path.name, "split": "train", "group": f"artist{number // 10:06d}", "tags": tags})
    table, out = write_csv(directory / "clips.csv", rows), directory / "records"
    arguments = ["--dataset", "csv", "--csv", table, "--audio", directory, "--out", out, "--workers", "2", "--shard-mb", sizes.shard_mb]
    command = [sys.executable, "-c", CHILD, "build", *map(str, arguments)]

    def once() -> dict[str, float]:
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if process.returncode:
            raise RuntimeError(f"records build ended with {process.returncode}: {process.stderr}")
        files.remove_tree(out)
        return {"mb": int(re.findall(r"VmHWM:\s*(\d+) kB", process.stderr)[-1]) * 1024 / 1e6}

    return once


if __name__ == "__main__":
    cli.main(lambda: common.run(Sizes, measure))
