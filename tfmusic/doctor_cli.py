"""Flags of `python -m tfmusic doctor`: those of a recipe, as train.py has them, and the doctor's own. No TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import pydantic
import tyro

from tfmusic import cli, recipes
from tfmusic.config import Experiment, Settings
from tfmusic.files import Location

PROG = "python -m tfmusic doctor"


class Examined(Settings):
    """What is timed, and for how long."""

    records: Location | None = pydantic.Field(None, description="Directory, local or gs://, that `python -m records build` wrote.")
    demo: bool = pydantic.Field(False, description="Times the embedded demo collection.")
    seconds: float = pydantic.Field(2.0, gt=0, le=600, description="For each stage.")
    limit: int | None = pydantic.Field(None, gt=0, description="Short for --data.limit.")


class Doctor(Settings):
    """Times every stage of a recipe's training, and says which one is the brake. Settings of the recipe can be overridden as of train.py."""

    examined: Annotated[Examined, tyro.conf.arg(name="")] = Examined()
    experiment: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]


def doctor(args: Sequence[str] = ()) -> None:
    """Which stage of a recipe's training is the brake, and what to change: the flags of train.py, and --seconds."""
    import train  # a command line as this one is, with the same recipes and records

    settings, experiment = train.read(Doctor, PROG, args)
    examined, chosen = settings.examined, settings.experiment
    train.check_strengths(chosen, experiment)
    train.check_source(chosen, examined.records, examined.demo, experiment.recipe in recipes.DEFAULTS.values())
    cli.load_tensorflow()
    from tfmusic.doctor import examine

    print(examine(chosen, examined.records or train.demo_records(chosen), examined.seconds))
