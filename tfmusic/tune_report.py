"""The page of a search: the winner's command, the table of trials, what mattered, and how it went. No TensorFlow, no Optuna."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfmusic import page
from tfmusic.config import Experiment
from tfmusic.tables import NAMES, Rows

TRIALS_FOR_IMPORTANCE = 8  # of whose best quarter there are two then
STYLES = {"finished": {"marker": "o", "color": "C0"}, "pruned": {"marker": "x", "color": "C1"}, "in work": {"marker": "^", "color": "C2"}}


@dataclasses.dataclass(frozen=True)
class Trial:
    """A row of the table."""

    number: int
    state: str  # a key of STYLES, or "failed: why"
    value: float | None  # of its best epoch; none before there is one
    epochs: int
    settings: Mapping[str, object]


def page_of(
    experiment: Experiment,
    space: Mapping[str, str],
    trials: Sequence[Trial],
    best: int | None,
    importance: Mapping[str, float],
    command: str,
    figures: Rows,
) -> str:
    """The whole page, self-contained.

    Args:
        experiment: what all trials share.
        space: field to range or choices, as text.
        trials: in the order of their numbers.
        best: number of the winner so far, if any.
        importance: field to share; empty: not known yet.
        command: that trains the winner again.
        figures: table of the winner's validation and test figures; one row or none: not evaluated yet.
    """
    monitor = _named(experiment.fit.monitor)
    counts = {state: sum(trial.state.startswith(state) for trial in trials) for state in (*STYLES, "failed")}
    exhibits = [
        page.Exhibit(
            "Trials",
            f"{', '.join(f'{count} {state}' for state, count in counts.items() if count)}. Best first; {monitor} is of the best epoch, on "
            "validation tracks, by which the winner is chosen: of many trials the best is partly the luckiest, so expect less on the test split.",
            table(trials, best, monitor),
        ),
        page.Exhibit("What was searched", "", [["field", "range or choices"], *([path, one] for path, one in space.items())]),
    ]
    known = [trial for trial in trials if trial.value is not None]
    if importance:
        told = "Share of each field in what sets the best quarter of the trials apart (PED-ANOVA); with few trials no more than a hint."
        exhibits.insert(0, page.Exhibit("Importance", told, figure=bars(importance)))
    if known:
        exhibits.insert(0, page.Exhibit("History", "The line is the best finished trial until then.", figure=history(known, monitor)))
        exhibits.append(page.Exhibit("Settings of the trials", "", figure=slices(known, space, monitor)))
    if len(figures) > 1:
        told = "The test split was looked at once, after the search, for this trial alone."
        exhibits.insert(0, page.Exhibit(f"Figures of the winner, trial {best}", told, figures))
    title = f"Search of {experiment.recipe}"
    again = f"<p>The best so far, trial {best}, is trained again by</p><pre>{html.escape(command)}</pre>" if command else ""
    return page.document(title, [f"<h1>{html.escape(title)}</h1>", again, *map(page.section, exhibits)])


def table(trials: Sequence[Trial], best: int | None, monitor: str) -> list[list[str]]:
    """A row for each trial, the best first, those without a figure last."""
    order = sorted(trials, key=lambda trial: (trial.number != best, -np.inf if trial.value is None else -trial.value, trial.number))
    order = sorted(order, key=lambda trial: trial.value is None)
    fields = [*trials[0].settings] if trials else []
    rows = [
        [str(one.number), one.state, "" if one.value is None else f"{one.value:.4f}", str(one.epochs), *(str(one.settings[name]) for name in fields)]
        for one in order
    ]
    return [["trial", "state", monitor, "epochs", *fields], *rows]


def history(trials: Sequence[Trial], monitor: str) -> Figure:
    """The figure of every trial, and the best finished one until then.

    Args:
        trials: with a value.
        monitor: name of the figure.
    """
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, trials, [trial.number for trial in trials])
    finished = [trial for trial in trials if trial.state == "finished"]
    if finished:
        best = np.maximum.accumulate([trial.value for trial in finished])
        axes.step([trial.number for trial in finished], best, where="post", color="C0", linewidth=1, label="best until then")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"{monitor}, validation")
    axes.legend(fontsize="small")
    return figure


def bars(importance: Mapping[str, float]) -> Figure:
    """A bar for each field, the most important on top."""
    order = sorted(importance.items(), key=lambda item: item[1])
    figure = Figure(figsize=(8, 1 + 0.35 * len(order)), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in order], [share for _, share in order])
    axes.set(xlim=(0, 1), xlabel="importance")
    return figure


def slices(trials: Sequence[Trial], space: Mapping[str, str], monitor: str) -> Figure:
    """The figure over each field by itself.

    Args:
        trials: with a value.
        space: field to range or choices, as text; `log:` means that axis.
        monitor: name of the figure.
    """
    columns = min(3, len(space))
    rows = -(-len(space) // columns)
    figure = Figure(figsize=(1 + 3.2 * columns, 0.5 + 2.6 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, (path, one) in zip(places, space.items(), strict=False):
        values = [trial.settings[path] for trial in trials]
        if ".." in one:
            axes.set_xscale("log" if one.startswith("log:") else "linear")
            axes.xaxis.set_major_formatter("{x:g}")  # powers of ten are mathematical text otherwise, which labels with dollar signs forbid
            axes.xaxis.set_minor_formatter("")
        else:  # choices, numbers or not, side by side
            words = one.split(",")
            values = [words.index(str(value)) for value in values]
            axes.set_xticks(range(len(words)), words)
        _scatter(axes, trials, values)
        axes.set_xlabel(path, fontsize="small")
    for axes in places[len(space) :]:
        axes.remove()
    for row in range(rows):
        places[row * columns].set_ylabel(monitor)
    return figure


def _scatter(axes, trials: Sequence[Trial], values: Sequence[float]) -> None:
    for state, style in STYLES.items():
        chosen = [place for place, trial in enumerate(trials) if trial.state == state]
        if chosen:
            axes.plot([values[place] for place in chosen], [trials[place].value for place in chosen], linestyle="", label=state, **style)


def _named(monitor: str) -> str:
    return NAMES.get(monitor.removeprefix("val_"), monitor)
