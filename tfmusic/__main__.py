"""`python -m tfmusic compare | doctor | layers | preview | summary | tune`: what one does with runs, before the first, and to find the best."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import Annotated

import tyro

from tfmusic import cli
from tfmusic.config import InputError
from tfmusic.doctor_cli import doctor
from tfmusic.preview_cli import preview
from tfmusic.tune_cli import tune


def compare(
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN RUN [RUN ...]")],
    /,
    out: Path | None = None,
    resamples: int = 500,
    seed: int = 0,
) -> None:
    """Two or more runs on the same test tracks: a table with paired intervals, and a page with bars for every label.

    Args:
        runs: run directories of one task, labels and test tracks.
        out: html file. Default: compare-FIRST-SECOND.html in this folder.
        resamples: bootstrap draws over test tracks, for the intervals of the differences; 0: none.
        seed: of the draws.
    """
    for name, value in (("resamples", resamples), ("seed", seed)):
        if value < 0:
            raise InputError(f"--{name} must be >= 0, got {value}")
    from tfmusic.compare import NOTE, compare

    text, path = compare(runs, out, resamples, seed)
    print(f"{text}\n\n{NOTE}\nbars for every label: {path}")


def summary(runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")], /, json: bool = False) -> None:
    """Runs of one kind, such as folds or seeds: mean, standard deviation and t interval of every figure.

    Args:
        runs: run directories of one task and labels; their test tracks may differ, as folds' do.
        json: one JSON document instead of the table.
    """
    from tfmusic.summary import summary, text

    found = summary(runs)
    print(json_.dumps(found, indent=1) if json else text(found))


def layers(run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")], /, count: int = 2, track: int = 0) -> None:
    """Filters, activations and gradients of a run's first layers, as a page in the run and in TensorBoard.

    Args:
        run: run directory.
        count: layers, from the input on.
        track: place of the validation track whose first window is looked at.
    """
    cli.load_tensorflow()
    from tfmusic.layers import write

    print(f"layers: {write(run, count, track)}")


COMMANDS = {"compare": compare, "doctor": doctor, "layers": layers, "preview": preview, "summary": summary, "tune": tune}
DEPENDENT = {"doctor": doctor, "preview": preview, "tune": tune}  # whose flags depend on the recipe, and are read in two steps


def main() -> None:
    """The program."""
    if (command := DEPENDENT.get("".join(sys.argv[1:2]))) is not None:
        return command(sys.argv[2:])
    cli.dispatch(COMMANDS, prog="python -m tfmusic")


if __name__ == "__main__":
    cli.main(main)
