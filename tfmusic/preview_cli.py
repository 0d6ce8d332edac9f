"""Flags of `python -m tfmusic preview`: those of a recipe, as train.py has them, and the preview's own. No TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pydantic
import tyro

from tfmusic import cli, recipes
from tfmusic.config import Experiment, Sampling, Settings
from tfmusic.files import Location

PROG = "python -m tfmusic preview"


class Shown(Settings):
    """What is shown, and where it goes."""

    records: Location | None = pydantic.Field(None, description="Directory, local or gs://, that `python -m records build` wrote.")
    demo: bool = pydantic.Field(False, description="Shows the embedded demo collection.")
    count: int = pydantic.Field(8, gt=0, description="Training examples: the first windows of the first epoch.")
    limit: int | None = pydantic.Field(None, gt=0, description="Short for --data.limit.")
    out: Path = pydantic.Field(Path("preview"), description="Folder of wavs, pictures and index.html, new or empty.")


class Preview(Settings):
    """Writes training examples before and after augmentation, to hear and to see. Settings of the recipe can be overridden as of train.py."""

    shown: Annotated[Shown, tyro.conf.arg(name="")] = Shown()
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]


def preview(args: Sequence[str] = ()) -> None:
    """Training examples of a recipe before and after augmentation, as sounds and pictures: the flags of train.py, --count and --out."""
    import train  # a command line as this one is, with the same recipes and records

    settings, experiment = train.read(Preview, PROG, args)
    shown, chosen = settings.shown, settings.experiment
    plain = chosen.model_copy(update={"sampling": Sampling()})  # no tagger is asked which windows to take
    train.check_source(plain, shown.records, shown.demo, experiment.recipe in recipes.DEFAULTS.values())
    cli.load_tensorflow()
    from tfmusic import catalogue, files, schema
    from tfmusic.preview import write

    records = files.location(shown.records or train.demo_records(chosen))
    manifest = catalogue.limited(records, schema.read_manifest(records), chosen.data.limit)
    print(f"examples: {write(records, manifest, chosen, shown.count, shown.out)}")
