"""`python -m records build | datasets | check | info | demo`: from a dataset to TFRecord shards, and what is in them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from records.datasets import READERS
from records.datasets.clip import Source
from records.selection import histogram
from records.settings import Selection, Work
from tfmusic import cli, files
from tfmusic.config import InputError, Layout

Group = tyro.conf.arg(name="")  # a group of settings whose flags have no prefix


def build(
    source: Annotated[Source, Group],
    out: Path,
    layout: Annotated[Layout, Group] = Layout(),  # noqa: B008 (frozen)
    selection: Annotated[Selection, Group] = Selection(),  # noqa: B008
    work: Annotated[Work, Group] = Work(),  # noqa: B008
    vocabulary: Path | None = None,
) -> None:
    """Builds the records of a dataset; the same command goes on after an interruption.

    Args:
        source: the dataset.
        out: directory of the shards, local or gs://, new, empty or begun by the same command.
        layout: audio of the records.
        selection: clips, labels and splits.
        work: how the shards are written.
        vocabulary: labels.txt that fixes the labels and their order, for instance of a run; none: all labels, in alphabetical order.
    """
    out = files.location(out)
    cli.load_tensorflow()
    from records.build import QUARANTINE, build
    from tfmusic.labels import Vocabulary

    manifest = build(source, out, layout, Vocabulary.read(vocabulary) if vocabulary else None, selection, work)
    if manifest.merges:
        print(histogram(manifest.counts_before, manifest.counts_after, manifest.merges))
    tracks = ", ".join(f"{split.tracks} {name}" for name, split in manifest.splits.items())
    print(f"{out}: {tracks} tracks, {len(manifest.labels)} labels, {len(manifest.shards)} shards")
    if manifest.quarantined:
        print(f"{manifest.quarantined} files could not be used: {out / QUARANTINE}")


def datasets() -> None:
    """Lists the datasets that `build` reads, with their label sets, protocols and maps, the default of each first."""
    for name, reader in READERS.items():
        about = sys.modules[reader.read.__module__].__doc__.splitlines()[0]
        print(f"{name}\n    {about}")
        options = {"--label-set": reader.label_sets, "--protocol": reader.protocols, "--merge": reader.merges}
        for flag, values in options.items():
            if values:
                print(f"    {flag} {' | '.join(values)}")
        if reader.takes:
            print(f"    takes {' '.join('--' + field.replace('_', '-') for field in reader.takes)}")


def check(directory: tyro.conf.Positional[Path], /) -> None:
    """Re-reads all shards: hashes, lengths, offsets, counts, and what spoils figures: clips twice, groups in two splits, silence, clipping.

    Args:
        directory: of the records, local or gs://.
    """
    directory = files.location(directory)
    cli.load_tensorflow()
    from records.inspect import check

    found = check(directory)
    for line in found.notes:
        print(f"note: {line}")
    for line in found.errors:
        print(f"error: {line}", file=sys.stderr)
    if found.errors:
        advice = "; the command that built it, with --repair, writes damaged shards anew" if found.damaged else ""
        raise InputError(f"{directory}: {len(found.errors)} error{'s'[: len(found.errors) > 1]}{advice}")
    print(f"{directory}: all {found.tracks} tracks as the manifest says, {len(found.notes)} notes")


def info(directory: tyro.conf.Positional[Path], /) -> None:
    """Prints what is inside, and draws the label counts.

    Args:
        directory: of the records, local or gs://.
    """
    directory = files.location(directory)
    cli.load_tensorflow()
    from records.inspect import info

    print(info(directory))


def demo(out: tyro.conf.Positional[Path], /, clips: int = 600, seed: int = 0) -> None:
    """Synthesises the embedded demo collection as audio files, a csv that `build` takes, and the families of its column event.

    Args:
        out: directory of the audio, demo.csv and demo_families.csv.
        clips: how many.
        seed: of everything in it.
    """
    from records.demo import write

    print(write(out, clips, seed))


if __name__ == "__main__":
    cli.main(lambda: cli.dispatch({"build": build, "datasets": datasets, "check": check, "info": info, "demo": demo}, prog="python -m records"))
