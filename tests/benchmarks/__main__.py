"""All benchmarks, each in a process of its own: `python -m tests.benchmarks`, with `--readme` as a Markdown table, with `--json` one line each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pydantic

from tests.benchmarks import common
from tfmusic import cli
from tfmusic.config import Settings

AREAS = ("records", "memory", "pipeline", "payloads", "training", "inference", "retrieval")
ROOT = Path(__file__).parents[2]


class All(Settings):
    """Runs every benchmark at its default size, about ten minutes on two cores."""

    readme: bool = pydantic.Field(False, description="Prints nothing but a Markdown table.")
    json_lines: common.JsonFlag = pydantic.Field(False, description="Prints nothing but one line of JSON an area.")
    rounds: int | None = pydantic.Field(None, gt=0, description="Pairs of every benchmark; none: its own default.")


def main() -> None:
    """The program."""
    given = cli.parse(All, prog="python -m tests.benchmarks")
    results = []
    for area in AREAS:
        rounds = ["--rounds", str(given.rounds)] if given.rounds else []
        command = [sys.executable, "-m", f"tests.benchmarks.{area}", "--json", *rounds]
        process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if process.returncode:
            sys.exit(f"error: {' '.join(command[1:])} ended with {process.returncode}")
        *text, line = process.stdout.rstrip().split("\n")
        results.append(json.loads(line))
        if given.json_lines:
            print(line, flush=True)
        elif not given.readme:
            print("\n".join(text), f"({results[-1]['seconds']:.0f} s)\n", flush=True)
    if given.readme:
        print(common.markdown(results))


if __name__ == "__main__":
    cli.main(main)
