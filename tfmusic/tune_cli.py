"""Flags of `python -m tfmusic tune`: those of a recipe, as train.py has them, and the search's own. No TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import tyro

from tfmusic import cli, recipes
from tfmusic.config import Experiment, Settings
from tfmusic.files import Location

PROG = "python -m tfmusic tune"


class Search(Settings):
    """What is searched, on what, and where it is kept."""

    trials: int = pydantic.Field(30, gt=0, description="Of the whole search, in all processes that work on it, pruned ones included.")
    sampler: Literal["tpe", "grid", "random"] = pydantic.Field(
        "tpe", description="tpe: where trials were good so far. grid: ends and middle of ranges, every combination. random: anywhere."
    )
    space: tuple[str, ...] = pydantic.Field(
        (), description="Fields in place of the recipe's own: FIELD=LOW..HIGH, FIELD=log:LOW..HIGH, FIELD=A,B,C; FIELD=A is set and not searched."
    )
    only: tuple[str, ...] = pydantic.Field((), description="Fields of the recipe's space to search; none: all.")
    seed: int = pydantic.Field(0, ge=0, description="Of what is drawn; the trials themselves train with --fit.seed.")
    records: Location | None = pydantic.Field(None, description="Directory, local or gs://, that `python -m records build` wrote.")
    demo: bool = pydantic.Field(False, description="Trains on the embedded demo collection.")
    out: Path | None = pydantic.Field(
        None, description="Folder of the search, new or to go on with; the same in other processes: they share it. None: runs/<time>-search-<recipe>."
    )
    epochs: int | None = pydantic.Field(None, gt=0, description="Short for --fit.epochs.")
    limit: int | None = pydantic.Field(None, gt=0, description="Short for --data.limit.")


class Tune(Settings):
    """Searches for the settings of a recipe, on validation tracks. Settings that are not searched can be overridden as of train.py."""

    search: Annotated[Search, tyro.conf.arg(name="")] = Search()
    experiment: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]


def tune(args: Sequence[str] = ()) -> None:
    """Searches for the settings of a recipe with Optuna: --recipe R, the flags of train.py, and its own (tune --help)."""
    import train  # a command line as this one is, with the same recipes and records
    from tfmusic import space

    choice, rest = cli.parse(train.Choice, prog=PROG, args=args, return_unknown_args=True, add_help=False)
    experiment = train.defaults(choice.model_copy(update={"epochs": None}), rest)
    settings = cli.parse(Tune, prog=PROG, args=args, default=Tune(experiment=_with_epochs(experiment, choice.epochs)))
    search, chosen = settings.search, settings.experiment
    train.check_strengths(chosen, experiment)
    train.check_source(chosen, search.records, search.demo, experiment.recipe in recipes.DEFAULTS.values())
    found = space.read(chosen, recipes.space(chosen), search.space, search.only)
    out = search.out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-search-{chosen.recipe}"
    cli.load_tensorflow()
    from tfmusic import tune

    tune.library()
    print(f"search: {out}")
    try:
        tune.search(chosen, search.records or train.demo_records(chosen), out, found, search.trials, search.sampler, search.seed, experiment)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on, with --out {out}") from None


def _with_epochs(experiment: Experiment, epochs: int | None) -> Experiment:
    if epochs is None:
        return experiment
    return experiment.model_copy(update={"fit": experiment.fit.model_copy(update={"epochs": epochs})})
