"""What the benchmarks share: paired measuring, rows of a table, the machine they ran on, the peer of every stream, and synthesised music.

Nothing here compares a time with a bar and fails: a bar of performance.md stands beside the ratio for a person to read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
import tyro

from tfmusic import cli
from tfmusic.config import Settings

try:
    import torch
except ImportError:
    torch = None

LOADER = "torch DataLoader" if torch else "numpy loop"
PACKAGES = ("tensorflow", "keras", "numpy", "soundfile", "soxr", "librosa", "torch", "faiss-cpu", "ai-edge-litert")

JsonFlag = Annotated[bool, tyro.conf.arg(name="json")]  # the plain name is a method of pydantic's


class Sizes(Settings):
    """How much is measured; every benchmark adds its own."""

    json_line: JsonFlag = pydantic.Field(False, description="Prints one line of JSON last.")
    rounds: int = pydantic.Field(5, gt=0, description="Pairs; figures and ratios are medians over them.")


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is above 1 where ours is better, a median of the ratios of pairs; `bar` is what performance.md asks of it."""

    what: str
    unit: str
    ours: float
    peer_name: str = ""
    peer: float | None = None
    ratio: float | None = None
    bar: float | None = None


def compare(what: str, unit: str, ours: list[float], peer_name: str, peer: list[float], *, higher: bool, bar: float | None = None) -> Row:
    """The row of paired measurements.

    Args:
        what: is measured.
        unit: of the figures.
        ours: one figure a round.
        peer_name: what ours is held against.
        peer: figures of the same rounds.
        higher: whether more is better.
        bar: least ratio that performance.md asks for.
    """
    ratios = np.divide(ours, peer) if higher else np.divide(peer, ours)
    return Row(what, unit, float(np.median(ours)), peer_name, float(np.median(peer)), float(np.median(ratios)), bar)


def alternate(runs: Mapping[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Calls every run once a round, in turn, each second round backwards.

    Args:
        runs: name to a function that measures once and returns its figures.
        rounds: `int > 0`.

    Returns:
        Name to figure to its values, one a round.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            for figure, value in runs[name]().items():
                found[name].setdefault(figure, []).append(value)
    return found


def clocked(function: Callable[[], object]) -> dict[str, float]:
    """Seconds that a call takes, on the wall and of all threads of this process and of its workers: {"wall_s": ..., "cpu_s": ...}."""
    wall_s, cpu_s = time.perf_counter(), _cpu_s()
    function()
    return {"wall_s": time.perf_counter() - wall_s, "cpu_s": _cpu_s() - cpu_s}


def _cpu_s() -> float:
    """CPU seconds of this process and of its living worker processes; of those in steps of 10 ms, and only where there is a /proc."""
    total_s = time.process_time()
    for process in multiprocessing.active_children():
        status = Path(f"/proc/{process.pid}/stat")
        if status.is_file():
            user, system = status.read_text().rpartition(")")[2].split()[11:13]  # the name in brackets may hold spaces
            total_s += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total_s


def machine() -> dict[str, str | int]:
    """Processor and cores this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cpu": " ".join((found[1] if found else platform.processor() or platform.machine()).split()), "cores": cores}


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def figure(value: float | None) -> str:
    """Three significant digits, no exponent."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: list[Row]) -> str:
    """Rows as aligned text."""
    cells = [("", "unit", "ours", "peer", "", "ratio", "bar")]
    cells += [(r.what, r.unit, figure(r.ours), figure(r.peer), r.peer_name, "" if r.ratio is None else f"{r.ratio:.2f}", figure(r.bar)) for r in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(7)]
    left = (0, 1, 4)
    return "\n".join(
        "  ".join(f"{cell:{'<' if column in left else '>'}{width}}" for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in cells
    )


def markdown(results: list[dict]) -> str:
    """JSON lines of several benchmarks as one table of the README: only rows that have a peer."""
    lines = ["| what | ours | peer | ratio | hardware |", "|---|---|---|---|---|"]
    for result in results:
        hardware = f"{result['machine']['cpu']}, {result['machine']['cores']} cores"
        for row in result["rows"]:
            if row["peer"] is not None:
                peer = f"{figure(row['peer'])} ({row['peer_name']})"
                lines.append(f"| {row['what']}, {row['unit']} | {figure(row['ours'])} | {peer} | {row['ratio']:.2f} | {hardware} |")
    return "\n".join(lines)


def run(sizes: type[Sizes], measure: Callable[[Sizes, Path], list[Row]], arguments: list[str] | None = None) -> None:
    """The program around a benchmark: flags, a temporary directory, the table, the JSON line.

    Args:
        sizes: its flags.
        measure: (sizes, empty directory) to rows.
        arguments: of the command line; none: sys.argv's.
    """
    area = measure.__module__.rpartition(".")[2]
    if area == "__main__":
        area = Path(sys.modules["__main__"].__file__).stem
    given = cli.parse(sizes, prog=f"python -m tests.benchmarks.{area}", **({} if arguments is None else {"args": arguments}))
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        rows = measure(given, Path(directory))
    hardware, found = machine(), versions()
    print(f"{area}: {hardware['cpu']}, {hardware['cores']} cores; {', '.join(' '.join(item) for item in found.items())}")
    print(table(rows))
    if given.json_line:
        seconds = round(time.perf_counter() - start_s, 1)
        rows = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"area": area, "seconds": seconds, "machine": hardware, "versions": found, "rows": rows}))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back progress bars and epoch lines, which belong to what is measured and not to its table."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


Item = tuple[np.ndarray, ...]


def loader(
    item: Callable[[int], Item], count: int, batch: int, workers: int = 0, join: Callable[[Sequence[Item]], Item] | None = None
) -> Iterator[Item]:
    """The peer of a stream: endless batches in shuffled order, by torch's DataLoader where torch is installed, else by a loop.

    Args:
        item: number to arrays; draws its own random numbers.
        count: items of an epoch `int >= batch`.
        batch: items of a batch `int > 0`.
        workers: processes of the DataLoader; 0: it works in this one.
        join: items to a batch; none: each column is stacked, by torch's own default_collate.

    Yields:
        Tuples of arrays `[shape=(batch, ...)]`.
    """
    order = _Endless(count)
    if torch is None:
        numbers = iter(order)
        while True:
            yield (join or _stack)([item(number) for number in itertools.islice(numbers, batch)])
    torch.set_num_threads(1)  # with more, its copies of 0.1 MB go to a pool that spins: ten times the CPU time, and slower
    items = type("Items", (torch.utils.data.Dataset,), {"__len__": lambda self: count, "__getitem__": lambda self, number: item(number)})()
    collate = join and (lambda members: tuple(map(torch.from_numpy, join(members))))
    timeout_s = 60 if workers else 0  # workers are forked beside TensorFlow's threads: one that hangs must end the run, not hold it
    for columns in torch.utils.data.DataLoader(items, batch, sampler=order, num_workers=workers, collate_fn=collate, timeout=timeout_s):
        yield tuple(column.numpy() for column in columns)


@dataclasses.dataclass(frozen=True)
class _Endless:
    """Numbers below `count`, each once an epoch, without end: a DataLoader that comes to an end empties its queues and fills them again."""

    count: int

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng(0)
        while True:
            yield from random.permutation(self.count).tolist()


def _stack(items: Sequence[Item]) -> Item:
    return tuple(np.stack(column) for column in zip(*items, strict=True))


def music(seconds: float, rate_hz: int, seed: int = 0, channels: int = 2) -> np.ndarray:
    """Four plucked notes a second of eight harmonics each, over noise at -50 dB: what a codec finds about as hard as music.

    Returns:
        float32 in [-1, 1] `[shape=(samples, channels)]`.
    """
    random = np.random.default_rng(seed)
    samples = round(seconds * rate_hz)
    waveform = random.normal(0, 0.003, (samples, channels)).astype(np.float32)
    note = np.arange(min(rate_hz, samples)) / rate_hz  # one second
    harmonics = np.arange(1, 9)[:, None]
    for first in range(0, samples - len(note) + 1, max(1, rate_hz // 4)):
        frequency_hz = 110 * 2 ** (random.integers(0, 36) / 12)
        tone = (np.sin(2 * np.pi * frequency_hz * harmonics * note) / harmonics).sum(axis=0) * np.exp(-4 * note)
        waveform[first : first + len(note)] += (0.12 * tone[:, None] * random.uniform(0.3, 1, channels)).astype(np.float32)
    return np.clip(waveform, -1, 1)
