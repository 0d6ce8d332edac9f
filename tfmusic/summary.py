"""Several runs of one kind, such as the folds of a protocol or the seeds of a recipe: mean, deviation and interval of every figure. No TensorFlow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfmusic import metrics, regression, run, tables
from tfmusic.config import InputError

LEVEL = 0.95
BOUNDS = metrics.BOUNDS | regression.BOUNDS  # of the figures that are not between 0 and 1


def student_t(level: float, degrees: int) -> float:
    """How many standard errors around a mean hold `level` of Student's t distribution (Student 1908).

    The share within +-t in closed form for whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4), solved by bisection.

    Args:
        level: `0 < float < 1`.
        degrees: of freedom, one less than there are values `int > 0`.

    Raises:
        ValueError: out of range.

    >>> round(student_t(0.95, 4), 3)
    2.776
    """
    if not 0 < level < 1 or degrees < 1:
        raise ValueError(f"level must be between 0 and 1 and degrees > 0, got {level!r} and {degrees!r}")

    def within(angle: float) -> float:
        """Share within +-sqrt(degrees) tan(angle)."""
        term, total = (math.cos(angle), 0.0) if degrees % 2 else (1.0, 0.0)
        for step in range(degrees % 2 + 1, degrees, 2):
            total += term
            term *= step / (step + 1) * math.cos(angle) ** 2
        return 2 / math.pi * (angle + math.sin(angle) * total) if degrees % 2 else math.sin(angle) * total

    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if within(middle) < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def summary(runs: Sequence[Path | str]) -> dict:
    """Mean, standard deviation and 95 % t interval over runs of the figures of their test splits; ready for JSON.

    `mean -+ t(n - 1) s / sqrt(n)`, s with n - 1 in its denominator, cut where the figure ends. Several seeds of several folds are no independent
    runs: each fold's are averaged first, and n is the number of folds. The runs must be independent for the interval to hold what it says. Seeds
    are, on one test set: it is then about other seeds on these very tracks (for other tracks read the bootstrap interval of each run). Folds share
    training tracks, and no estimate of their variance is unbiased (Bengio and Grandvalet, JMLR 2004): theirs is too short. Two runs leave a factor
    of 12.7, five one of 2.8.

    Args:
        runs: run directories, evaluated, all of one task and with the same labels.

    Returns:
        "runs": their paths; "task"; "folds": what n is, sets of records or, where all have the same, runs; "tracks": those of each test split;
        "differing": settings that are not the same in all, with their values; "figures": name to "mean", "std", "interval" (both None where n is
        1), "values" (None where a run has none, left out of the mean).

    Raises:
        InputError: no runs, one that is given twice or not evaluated, or tasks or labels that differ.
    """
    runs = [Path(one) for one in runs]
    if not runs:
        raise InputError("runs must be given to be summarised, got none")
    infos, found = [run.read(one) for one in runs], [run.figures(one)["test"] for one in runs]
    check_distinct(runs)
    check_alike(runs, infos, found)
    folds = [str(info.records) for info in infos]
    if len({*folds}) == 1:  # seeds
        folds = [str(one) for one in runs]
    names = [name for name in tables.NAMES if any(name in figures for figures in found)]
    return {
        "runs": [str(one) for one in runs],
        "task": infos[0].experiment.task,
        "folds": len({*folds}),
        "tracks": [figures["tracks"] for figures in found],
        "differing": differing([info.model_dump(mode="json", include={"experiment", "records"}) for info in infos]),
        "figures": {name: _over_runs([figures.get(name) for figures in found], folds, BOUNDS.get(name, (0, 1))) for name in names},
    }


def text(found: dict) -> str:
    """A summary as a table, with the settings in which the runs differ."""
    count = len(found["runs"])
    heading = ["", "mean", "std", f"{LEVEL:.0%} interval", *(f"run {place}" for place in range(1, count + 1))]
    rows = [heading, ["tracks", "", "", "", *map(str, found["tracks"])]]
    for name in [name for name in tables.of_task(found["task"]) if name in found["figures"]]:
        figure = found["figures"][name]
        interval = f"[{', '.join(map(tables.number, figure['interval']))}]" if figure["interval"] else "none"
        rows.append([tables.NAMES[name], *map(tables.number, (figure["mean"], figure["std"])), interval, *map(tables.number, figure["values"])])
    lines = [f"run {place}: {path}" for place, path in enumerate(found["runs"], start=1)]
    lines += [f"{name}: {', '.join(values)}" for name, values in found["differing"].items()]
    units = f"{count} runs" if found["folds"] == count else f"{found['folds']} folds, each the mean of its runs"
    note = f"Mean, standard deviation, t interval over {units}; too short for folds, which share training tracks; for seeds about other seeds."
    return "\n".join([tables.text(rows), "", *lines, "", note])


def check_distinct(runs: Sequence[Path]) -> None:
    """Refuses a run that is given twice: it is no second piece of evidence.

    Raises:
        InputError: there is one.
    """
    places = [one.resolve() for one in runs]
    twice = [one for place, one in enumerate(runs) if places[place] in places[:place]]
    if twice:
        raise InputError(f"runs must be different ones, got {twice[0]} twice")


def check_alike(runs: Sequence[Path], infos: Sequence[run.RunInfo], figures: Sequence[Mapping]) -> None:
    """Refuses runs whose figures have one name and mean different things.

    Raises:
        InputError: tasks, labels, targets, or whether one label of all is true differ; it names the runs and what differs.
    """
    for name, values in (
        ("task", [info.experiment.task for info in infos]), ("kind of labels", [info.experiment.activation for info in infos]),
        ("labels", [one.get("labels") for one in figures]), ("targets", [one.get("targets") for one in figures]),
    ):  # fmt: skip
        for place, value in enumerate(values):
            if value != values[0]:
                raise InputError(f"{runs[place]} must have the {name} of {runs[0]}, {_told(values[0], value)}, got {_told(value, values[0])}")


def differing(settings: Sequence[Mapping]) -> dict[str, list[str]]:
    """Settings that are not the same in all, by their flag's name, with the value of each.

    >>> differing([{"fit": {"seed": 0, "epochs": 5}}, {"fit": {"seed": 1, "epochs": 5}}])
    {'fit.seed': ['0', '1']}
    """
    flat = [dict(_flat(one)) for one in settings]
    names = dict.fromkeys(name for one in flat for name in one)
    values = {name: [str(one.get(name)) for one in flat] for name in names}
    return {name.removeprefix("experiment."): told for name, told in values.items() if len({*told}) > 1}


def _flat(settings: Mapping, prefix: str = ""):
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _told(value: object, other: object) -> str:
    """A value in a few words; of two lists what they do not share."""
    if isinstance(value, list):
        own = [item for item in value if not isinstance(other, list) or item not in other] or value
        return f"{len(value)} such as {', '.join(map(str, own[:3]))}"
    return str(value)


def _over_runs(values: Sequence[float | None], folds: Sequence[str], bounds: tuple[float, float]) -> dict:
    of_folds: dict[str, list[float]] = {}
    for fold, value in zip(folds, values, strict=True):
        if value is not None:
            of_folds.setdefault(fold, []).append(value)
    present = [statistics.fmean(own) for own in of_folds.values()]
    mean = statistics.fmean(present) if present else None
    if len(present) < 2:
        return {"mean": mean, "std": None, "interval": None, "values": [*values]}
    std = statistics.stdev(present)
    reach = student_t(LEVEL, len(present) - 1) * std / math.sqrt(len(present))
    interval = [max(bounds[0], mean - reach), min(bounds[1], mean + reach)]
    return {"mean": mean, "std": std, "interval": interval, "values": [*values]}
