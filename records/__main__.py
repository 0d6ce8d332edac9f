"""`python -m records build | check | info | demo`: from a dataset to TFRecord shards, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from records.datasets.clip import Source
from tfmusic import cli
from tfmusic.config import InputError, Layout


def build(
    source: Annotated[Source, tyro.conf.arg(name="")],
    out: Path,
    layout: Annotated[Layout, tyro.conf.arg(name="")] = Layout(),  # noqa: B008 (frozen)
    labels: Path | None = None,
    min_s: float = 0.1,
    shard_mb: Annotated[float, tyro.conf.arg(metavar="MB")] = 128,
    workers: int | None = None,
) -> None:
    """Builds the records of a dataset; the same command goes on after an interruption.

    Args:
        source: the dataset.
        out: directory of the shards, new, empty or begun by the same command.
        layout: audio of the records.
        labels: labels.txt that fixes the vocabulary and its order, for instance of a run; none: all labels, in alphabetical order.
        min_s: shorter clips go to quarantine.csv.
        shard_mb: about the size of a shard.
        workers: threads; none: one per core.
    """
    if min_s < 0 or shard_mb <= 0 or (workers is not None and workers < 1):
        raise InputError(f"--min-s must be >= 0, --shard-mb > 0 and --workers > 0, got {min_s:g}, {shard_mb:g} and {workers}")
    cli.load_tensorflow()
    from records.build import QUARANTINE, build
    from tfmusic.labels import Vocabulary

    manifest = build(source, out, layout, Vocabulary.read(labels) if labels else None, min_s, round(shard_mb * 2**20), workers)
    tracks = ", ".join(f"{split.tracks} {name}" for name, split in manifest.splits.items())
    print(f"{out}: {tracks} tracks, {len(manifest.labels)} labels, {len(manifest.shards)} shards")
    if manifest.quarantined:
        print(f"{manifest.quarantined} files could not be used: {out / QUARANTINE}")


def check(directory: tyro.conf.Positional[Path], /) -> None:
    """Re-reads all shards and verifies counts, lengths, offsets and hashes.

    Args:
        directory: of the records.
    """
    cli.load_tensorflow()
    from records.inspect import check

    manifest = check(directory)
    print(f"{directory}: all {sum(split.tracks for split in manifest.splits.values())} tracks as the manifest says")


def info(directory: tyro.conf.Positional[Path], /) -> None:
    """Prints what is inside, and draws the label counts.

    Args:
        directory: of the records.
    """
    cli.load_tensorflow()
    from records.inspect import info

    print(info(directory))


def demo(out: tyro.conf.Positional[Path], /, clips: int = 600, seed: int = 0) -> None:
    """Synthesises the embedded demo collection as audio files and a csv that `build` takes.

    Args:
        out: directory of the audio and demo.csv.
        clips: how many.
        seed: of everything in it.
    """
    from records.demo import write

    print(write(out, clips, seed))


if __name__ == "__main__":
    cli.main(lambda: cli.dispatch({"build": build, "check": check, "info": info, "demo": demo}, prog="python -m records"))
