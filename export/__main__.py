"""`python -m export bundle | predict`: from a run to files that ship, and from audio files to tags."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfmusic import cli
from tfmusic.config import InputError


def bundle(run: tyro.conf.Positional[Path], /, out: Path | None = None) -> None:
    """SavedModel, TFLite files, labels and card of a run, each reloaded, compared and scored before it gets its name.

    Args:
        run: run directory of train.py.
        out: directory of the bundle; must not exist. Default: RUN/bundle.
    """
    cli.load_tensorflow()
    from export.bundle import bundle

    print(f"bundle: {bundle(run, out)}")


def predict(
    bundle: tyro.conf.Positional[Path],
    files: tyro.conf.Positional[tuple[Path, ...]],
    /,
    json: bool = False,
    over_time: bool = False,
    top: Annotated[int, tyro.conf.arg(metavar="N")] = 5,
    precision: Literal["float32", "float16"] = "float32",
) -> None:
    """Tags with scores over whole files, without TensorFlow.

    Args:
        bundle: directory that `python -m export bundle` wrote.
        files: audio files: wav, flac, ogg, mp3 and what else libsndfile reads.
        json: one JSON document with all labels, highest first.
        over_time: the scores of every window: csv, or inside the JSON.
        top: labels shown for each file in plain text.
        precision: which .tflite of the bundle.
    """
    if top < 1:
        raise InputError(f"--top must be > 0, got {top}")
    from export.predict import main

    if main(bundle, files, json_output=json, over_time=over_time, top=top, precision=precision):
        sys.exit(cli.FAILED)


if __name__ == "__main__":
    cli.main(lambda: cli.dispatch({"bundle": bundle, "predict": predict}, prog="python -m export"))
