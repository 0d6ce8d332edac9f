"""Trains a recipe, evaluates it on whole tracks, writes a report and a bundle that ships.

python train.py --task tagging                           the embedded demo collection
python train.py --task tagging --records data/records    records of your own
python train.py --list                                   all recipes
python train.py --resume runs/NAME                       after any interruption
"""

from __future__ import annotations

import csv
import difflib
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated

import pydantic
import tyro

from tfmusic import cli, recipes, run
from tfmusic.config import Experiment, Features, InputError, Settings
from tfmusic.files import Location

PROG = "python train.py"
DEMO = Path("data/demo")
USES = {"similarity": "python -m export similar build {bundle} DIR"}  # of a bundle, by task; of all others:
USE = "python -m export predict {bundle} FILE..."
DEMO_TAGS = {  # column of the demo's listing, by task and activation; of all others "tags"
    ("genre", "softmax"): "genre",
    ("multitask", "softmax"): "genre",
    ("events", "softmax"): "family",
    ("events", "sigmoid"): "event",
}
DEMO_TARGETS = ("valence", "energy", "danceability")


class Modes(Settings):
    """What else than a new run can be asked for."""

    resume: Path | None = pydantic.Field(None, description="Goes on with this run directory; takes no other flag.")
    list: bool = pydantic.Field(False, description="Lists the recipes and ends.")


class Choice(Modes):
    """Flags that decide the defaults of all others, so they are read first."""

    task: str | None = None
    recipe: str | None = None
    init: Path | None = None
    epochs: int | None = None
    limit: int | None = None


class Options(Modes):
    """Data and output."""

    records: Location | None = pydantic.Field(None, description="Directory, local or gs://, that `python -m records build` wrote.")
    demo: bool = pydantic.Field(False, description="Trains on the embedded demo collection.")
    out: Path | None = pydantic.Field(None, description="Run directory, new or empty; none: runs/<time>-<recipe>.")
    epochs: int | None = pydantic.Field(None, ge=0, description="Short for --fit.epochs; 0 evaluates what --init or a published net knows.")
    limit: int | None = pydantic.Field(None, gt=0, description="Short for --data.limit: tracks of each split at most, for a quick look.")
    overfit_batch: bool = pydantic.Field(False, description="Only tries whether the net learns one batch by heart; no run is written.")
    overfit_steps: int = pydantic.Field(300, gt=0, description="--overfit-batch: steps on it at most.")
    fold: tuple[int, ...] = pydantic.Field((), description="A run for each of these folds, on the records in the folder of its number in --records.")
    seeds: int = pydantic.Field(1, gt=0, description="A run for each of so many seeds, from --fit.seed on; with --fold for each fold.")


class Train(Settings):
    """Trains a recipe, evaluates it on whole tracks, writes a report and a bundle. Every setting of the recipe can be overridden."""

    options: Annotated[Options, tyro.conf.arg(name="")] = Options()
    experiment: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]


def main() -> None:
    """The program."""
    choice, rest = cli.parse(Choice, prog=PROG, return_unknown_args=True, add_help=False)
    if choice.list:
        for name, recipe in recipes.RECIPES.items():
            print(f"{name:{max(map(len, recipes.RECIPES))}} {recipe.__doc__.splitlines()[0]}")
        return
    if choice.resume:
        given = [*rest, *(str(value) for value in (choice.task, choice.recipe, choice.init, choice.epochs, choice.limit) if value is not None)]
        if given:
            raise InputError(f"--resume takes no other flag, got {' '.join(given)}")
        cli.load_tensorflow()
        from tfmusic import training

        finish(choice.resume, lambda: training.resume(choice.resume))
        return
    experiment = defaults(choice, rest)
    settings = cli.parse(Train, prog=PROG, default=Train(experiment=experiment))
    check_strengths(settings.experiment, experiment)
    start(settings.experiment, settings.options, any_records=experiment.recipe in recipes.DEFAULTS.values())


def read(target: type[Settings], prog: str, args: Sequence[str]) -> tuple[Settings, Experiment]:
    """Flags of another program that has those of a recipe in its field `experiment`, and what they stand at."""
    choice, rest = cli.parse(Choice, prog=prog, args=args, return_unknown_args=True, add_help=False)
    standing = defaults(choice, rest)
    return cli.parse(target, prog=prog, args=args, default=target(experiment=standing)), standing


def defaults(choice: Choice, rest: Sequence[str]) -> Experiment:
    """What all flags that are not given stand at: the recipe, with what `--init` brings, and without what the net that is chosen does not read."""
    experiment = recipe_of(choice)
    if experiment.sequences is None and any(flag.startswith("--sequences.") for flag in rest):
        experiment = experiment.hearing("sequences", sequences=Features())
    if experiment.net.name != "mlp" and "--net.name mlp" in " ".join(rest).replace("=", " "):
        experiment = experiment.hearing("a frozen vector")
    if init := choice.init or experiment.init:
        experiment = begun_with(experiment, init)
    if choice.epochs is not None:
        experiment = experiment.model_copy(update={"fit": experiment.fit.model_copy(update={"epochs": choice.epochs})})
    if choice.limit is not None:
        experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"limit": choice.limit})})
    return experiment


def recipe_of(choice: Choice) -> Experiment:
    """The recipe that is named, or the task's default.

    Raises:
        InputError: no such recipe. (An unknown task is refused with the other flags.)
    """
    name = choice.recipe or recipes.DEFAULTS.get(choice.task, next(iter(recipes.DEFAULTS.values())))
    if name not in recipes.RECIPES:
        near = difflib.get_close_matches(name, recipes.RECIPES)
        raise InputError(f"--recipe must be one that --list names, got {name!r}" + (f"; perhaps you meant {' or '.join(near)}" if near else ""))
    return recipes.RECIPES[name]()


def begun_with(experiment: Experiment, init: Path) -> Experiment:
    """A recipe with the front end and net of the run, or of the published tagger, that it is to begin with: nobody must repeat their flags.

    Raises:
        InputError: there is no such run.
    """
    if str(init) in recipes.PUBLISHED:
        source = recipes.RECIPES[str(init)]()
    else:
        check_made(experiment, init, "--init")
        source = run.read(init).experiment
    net = experiment.net.model_copy(update={"name": source.net.name, "width": source.net.width})
    evaluation = experiment.evaluation.model_copy(update={"hop_s": source.evaluation.hop_s})  # which belongs to the window
    return experiment.model_copy(update={"init": init, "frontend": source.frontend, "net": net, "evaluation": evaluation})


def check_made(experiment: Experiment, source: Path, flag: str) -> None:
    """Refuses a recipe that looks for another's run where none is yet, with the command that makes it."""
    maker = recipes.MADE_BY.get(source)
    if maker and not (source / run.EXPERIMENT).is_file():
        raise InputError(
            f"{experiment.recipe} learns from a run, which {flag} must name, got none in {source}; "
            f"make it with: {PROG} --recipe {maker} --records DIR --out {source}, or with --demo in place of --records DIR"
        )


def check_strengths(chosen: Experiment, standing: Experiment) -> None:
    """Refuses a strength of an augmentation that is given while its probability is 0; one that a recipe has may stay."""
    for kind in ("waveform", "spec_augment"):
        ours, theirs = getattr(chosen.augment, kind), getattr(standing.augment, kind)
        given = [name for name, value in ours if name != "probability" and value != getattr(theirs, name)]
        if given and not ours.probability:
            flag = f"--augment.{kind}.".replace("_", "-")
            raise InputError(f"{flag}{given[0].replace('_', '-')} does nothing while {flag}probability is 0; set it, to .5 for instance")


def check_source(experiment: Experiment, records: Location | None, demo: bool, any_records: bool) -> None:
    """Refuses a recipe that has no records, both kinds of them, or no run that it learns from."""
    if records and demo:
        raise InputError(f"--demo brings its own records, got --records {records} beside it")
    if not (records or demo or any_records):
        raise InputError(
            f"{experiment.recipe} needs its dataset: give --records DIR, made by `{recipes.build_line(experiment)}`, "
            "or --demo to try it on the embedded demo collection"
        )
    if experiment.sampling.tagger:
        check_made(experiment, experiment.sampling.tagger, "--sampling.tagger")


def start(experiment: Experiment, options: Options, any_records: bool) -> None:
    """A new run: finds or makes the records, trains, and finishes."""
    check_source(experiment, options.records, options.demo, any_records)
    if experiment.init is None and not experiment.fit.epochs:
        raise InputError("--epochs 0 evaluates what --init knows, and must be greater without it, got 0")
    cli.load_tensorflow()
    from tfmusic import distribution, pretrained, training

    team = distribution.processes()  # before the demo's records are made
    out = options.out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{experiment.recipe}"
    if options.fold and not options.records:
        raise InputError("--fold needs --records: a folder with the records of every fold in a folder of its number")
    begun, frozen = str(experiment.init), experiment.frozen
    for name in {begun, frozen} & {*recipes.PUBLISHED}:
        pretrained.folder_of(name)  # before minutes go into records
    known = pretrained.PRETRAINED[begun].labels if begun in recipes.PUBLISHED and not experiment.fit.epochs else ()
    records = options.records or demo_records(experiment, known)
    if options.overfit_batch:
        memorise(experiment, records, options)
        return
    if options.fold or options.seeds > 1:
        series(experiment, records, out, options.fold, options.seeds)
        return
    if team.chief:
        print(f"run: {out}")
    finish(out, lambda: training.fit(experiment, records, out))


def memorise(experiment: Experiment, records: Location, options: Options) -> None:
    """Whether the net can learn one batch by heart: a line, and exit code 0 or 1."""
    if options.fold or options.seeds > 1 or options.out:
        raise InputError("--overfit-batch writes no run, and --fold, --seeds and --out must be left out beside it")
    from tfmusic.overfit import overfit

    found = overfit(experiment, records, options.overfit_steps)
    print(found)
    sys.exit(not found.learnt)


def series(experiment: Experiment, records: Location, out: Path, folds: tuple[int, ...], seeds: int) -> None:
    """A run for each fold and seed, then their mean and interval; the same command goes on where it was interrupted."""
    import keras

    from tfmusic import distribution, report, summary, training

    team, runs = distribution.processes(), []
    for fold in folds or (None,):
        for seed in range(experiment.fit.seed, experiment.fit.seed + seeds):
            name = "-".join([f"fold{fold}"] * (fold is not None) + [f"seed{seed}"] * (seeds > 1))
            one = experiment.model_copy(update={"fit": experiment.fit.model_copy(update={"seed": seed})})
            runs.append(out / name)
            team.told(lambda: print(f"run: {runs[-1]}"))
            keras.backend.clear_session()
            try:
                training.fit_or_resume(one, records / str(fold) if folds else records, runs[-1])
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the same command goes on, with --out " + str(out)) from None
            team.told(lambda: print(report.write(runs[-1])))
    team.told(lambda: print(summary.text(summary.summary(runs))))
    if team.chief:
        print(f"\nnext:\n  tensorboard --logdir {out}\n  python -m export bundle {runs[0]}")


def demo_records(experiment: Experiment, known: Collection[str] = ()) -> Path:
    """Records of the embedded demo collection, made when they are not there yet, with chunks that the experiment's windows fit into.

    Args:
        experiment: which column it learns, and from what windows.
        known: labels that are kept, where the demo has them; none: all.
    """
    from records import demo
    from records.build import build
    from records.datasets.clip import Source
    from records.settings import Selection
    from tfmusic import schema

    print("records: the embedded demo collection, synthesised here; its scores mean nothing outside")
    listing = demo.write(DEMO)
    column, layout = DEMO_TAGS.get((experiment.task, experiment.activation), "tags"), recipes.layout(experiment)
    source = Source(dataset="csv", csv=listing, audio=listing.parent / "audio", tags_column=column, targets=DEMO_TARGETS)
    if column == "event":
        source = source.model_copy(update={"families": listing.parent / "demo_families.csv"})
    kind = "-".join(str(value) for value in layout.features.model_dump(exclude_none=True).values()) if experiment.sequences else f"{layout.chunk_s:g}"
    out = DEMO / f"records-v{demo.VERSION}.{schema.FORMAT}-{column}-{layout.sample_rate_hz}-{kind}"
    kept: tuple[str, ...] = ()
    if known:
        with open(listing, encoding="utf-8", newline="") as file:
            kept = tuple(sorted({label for row in csv.DictReader(file) for label in row[column].split("|")} & {*known}))
        out = out.with_name(f"{out.name}-{experiment.init}")
    build(source, out, layout, selection=Selection(tags=kept))
    return out


def finish(run_directory: Path, train: Callable[[], object]) -> None:
    """Trains, writes report and bundle, prints the figures and what to do next; what a kill leaves undone, --resume does."""
    from export.bundle import bundle
    from tfmusic import distribution, report

    target = run_directory / "bundle"

    def shown() -> None:
        print(report.write(run_directory))
        if not target.exists():
            bundle(run_directory)

    team = distribution.processes()
    try:
        train()
        team.told(shown)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {PROG} --resume {run_directory}") from None
    if not team.chief:
        return
    experiment = run.read(run_directory).experiment
    task, use = experiment.task, "" if experiment.sequences else f"\n  {USES.get(experiment.task, USE).format(bundle=target)}"
    print(
        f"""
next:
  tensorboard --logdir {run_directory}/tensorboard{use}
  python -m records build --dataset csv --csv FILE --audio DIR --out data/mine && {PROG} --task {task} --records data/mine"""
    )


if __name__ == "__main__":
    cli.main(main)
