"""`python -m export bundle | predict | similar`: from a run to files that ship, and from audio files to tags and to tracks like them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfmusic import cli
from tfmusic.config import InputError


def bundle(
    run: tyro.conf.Positional[Path | None] = None, /, out: Path | None = None, pretrained: str | None = None, weights: Path | None = None
) -> None:
    """SavedModel, TFLite files, labels and card of a run, each reloaded, compared and scored before it gets its name.

    Args:
        run: run directory of train.py.
        out: directory of the bundle; must not exist. Default: RUN/bundle, of published weights NAME.bundle.
        pretrained: published weights in place of a run: mtt_musicnn, mtt_vgg, msd_musicnn or msd_vgg.
        weights: directory with their folders. Default: the installed package musicnn.
    """
    if (run is None) == (pretrained is None):
        raise InputError(f"bundle takes either a run or --pretrained, got {'both' if run else 'neither'}")
    if weights and not pretrained:
        raise InputError(f"--weights are for --pretrained, got {weights} without it")
    cli.load_tensorflow()
    from export.bundle import bundle, bundle_pretrained

    print(f"bundle: {bundle_pretrained(pretrained, weights, out) if pretrained else bundle(run, out)}")


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


def similar_build(bundle: tyro.conf.Positional[Path], directory: tyro.conf.Positional[Path], /, out: Path | None = None) -> None:
    """Makes the index of a folder of audio, or brings it up to date.

    Args:
        bundle: directory that `python -m export bundle` wrote, of a model with an embedding.
        directory: folder of audio; names that begin with a dot are left out, links to folders not followed.
        out: directory of the index. Default: DIRECTORY/similar.index.
    """
    from export.similar import build

    if build(bundle, directory, out)["failed"]:
        sys.exit(cli.FAILED)


def similar_query(
    index: tyro.conf.Positional[Path],
    files: tyro.conf.Positional[tuple[Path, ...]],
    /,
    top: Annotated[int, tyro.conf.arg(metavar="N")] = 10,
    json: bool = False,
    bundle: Path | None = None,
) -> None:
    """The tracks of an index nearest to audio files, by cosine similarity.

    Args:
        index: directory that `similar build` wrote.
        files: audio files; one that is in the index is left out itself.
        top: tracks shown for each file.
        json: one JSON document instead of text.
        bundle: of the model that built the index. Default: where it lay then.
    """
    from export.similar import query

    if query(index, files, top=top, json_output=json, bundle=bundle):
        sys.exit(cli.FAILED)


if __name__ == "__main__":
    commands = {"bundle": bundle, "predict": predict, "similar": {"build": similar_build, "query": similar_query}}
    cli.main(lambda: cli.dispatch(commands, prog="python -m export"))
