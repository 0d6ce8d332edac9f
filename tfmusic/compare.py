"""Runs side by side on the same test tracks: figures, how sure their differences are, and which labels gain. No TensorFlow."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfmusic import bootstrap, decisions, files, metrics, page, pictures, regression, run, tables
from tfmusic.config import InputError
from tfmusic.summary import check_alike, check_distinct, differing

UNBOUNDED = -math.inf, math.inf
PER_LABEL = {"roc_auc_per_class": "ROC-AUC", "map_per_class": "average precision", "f1_per_class": "F1"}  # figures with bars, and their names
PER_TARGET = {"r2_per_target": "R2", "spearman_per_target": "Spearman"}
NOTE = (
    "Brackets: 95 % bootstrap interval over the test tracks; that of a difference draws the same tracks for both runs. One that leaves out 0 "
    "would hold on other tracks like these; it says nothing about another training seed (python -m tfmusic summary does)."
)
Resample = Callable[[np.ndarray], Mapping[str, np.ndarray]]  # times that each track counts (rows, tracks) -> figures (rows,)


def compare(runs: Sequence[Path | str], out: Path | str | None = None, resamples: int = 500, seed: int = 0) -> tuple[str, Path]:
    """Figures of two or more runs, their paired differences to the first, and bars for every label, as text and as a page.

    Args:
        runs: run directories, evaluated, all of one task, with the same labels and test tracks.
        out: the page to write; none: compare-FIRST-SECOND.html where one stands.
        resamples: bootstrap draws over tracks `int >= 0`; 0: no intervals of differences.
        seed: of the draws `int >= 0`.

    Returns:
        The table as text, and where the page is.

    Raises:
        InputError: fewer than two runs, one that is given twice or not evaluated, or tasks, labels or test tracks that differ.
    """
    runs = [Path(one) for one in runs]
    if len(runs) < 2:
        raise InputError(f"runs to compare must be two or more, got {len(runs)}")
    infos, figures = [run.read(one) for one in runs], [run.figures(one)["test"] for one in runs]
    check_distinct(runs)
    check_alike(runs, infos, figures)
    kept = _aligned(runs, [run.outputs(one) for one in runs])
    names = _short(runs)
    differences = [difference(kept[0], figures[0], other, its, resamples, seed) for other, its in zip(kept[1:], figures[1:], strict=True)]

    common = [name for name in tables.NAMES if all(name in one for one in differences)]
    columns = dict(zip(names, figures, strict=True))
    columns |= {f"{name} - {names[0]}": found for name, found in zip(names[1:], differences, strict=True)}
    printed = [name for name in tables.of_task(infos[0].experiment.task) if name in common]
    settings = differing([info.model_dump(mode="json", include={"experiment", "records"}) for info in infos])
    changed = [["setting", *names], *([name, *values] for name, values in settings.items())]
    pairs = [(names[place], one) for place, one in enumerate(figures[1:], start=1)]
    bars = [bar for name, one in pairs for bar in _bars(names[0], figures[0], name, one)]
    path = Path(out) if out else Path(f"compare-{runs[0].resolve().name}-{runs[1].resolve().name}.html")
    title = " and ".join(names)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        page.table(tables.of_figures(columns, common)),
        f"<p>{figures[0]['tracks']} test tracks. {html.escape(NOTE)}</p>",
    ]
    body += [f"<h2>Settings that differ</h2>{page.table(changed)}" if len(changed) > 1 else "", *map(page.section, bars)]
    files.write_text(path, page.document(title, body))
    return tables.text(tables.of_figures(columns, printed)), path


def difference(first: Mapping, first_figures: Mapping, other: Mapping, other_figures: Mapping, resamples: int, seed: int) -> dict:
    """How much better another run is than the first, with the interval of a paired bootstrap: both are scored on the same resamples.

    Tracks that are hard for one run are mostly hard for the other, so the difference is known far better than either figure: two intervals
    may overlap widely around a sure difference. Formula: `bootstrap.normal_interval` of `other - first`.

    Args:
        first: its outputs for the test tracks (`run.outputs`).
        first_figures: its figures of them.
        other: outputs for the same tracks in the same order.
        other_figures: its figures.
        resamples: `int >= 0`.
        seed: `int >= 0`.

    Returns:
        For every figure that both have its difference, and "..._interval" of those that follow from scores and numbers; retrieval's have none.
    """
    left, right = ([*_resamplers(kept, figures)] for kept, figures in ((first, first_figures), (other, other_figures)))
    names = [name for name in tables.NAMES if None not in (first_figures.get(name), other_figures.get(name))]
    found = {name: other_figures[name] - first_figures[name] for name in names}
    for one, two in zip(left, right, strict=True):

        def resample(weights: np.ndarray, one: Resample = one, two: Resample = two) -> dict[str, np.ndarray]:
            earlier, later = one(weights), two(weights)
            return {name: later[name] - earlier[name] for name in earlier}

        estimates = {name: float(value[0]) for name, value in resample(np.ones((1, len(first["ids"])), np.int64)).items()}
        bounds = dict.fromkeys(estimates, UNBOUNDED)
        intervals = bootstrap.intervals(estimates, resample, len(first["ids"]), resamples, seed, bounds=bounds)
        for name, value in estimates.items():
            found |= {name: bootstrap.for_json(value), f"{name}_interval": bootstrap.for_json(intervals[name])}
    return found


def _resamplers(kept: Mapping, figures: Mapping):
    """Of each output that a run has kept, what gives its figures on a resample."""
    if "scores" in kept:
        truth, scores = kept["y_true"], kept["scores"]
        yield metrics.resampler(truth, scores)
        if "confusion" in figures or "thresholds" in figures:
            yield decisions.resampler(truth, scores, None if "confusion" in figures else np.array(figures["thresholds"]))
        if "families_true" in kept:
            of_families = metrics.resampler(kept["families_true"], kept["family_scores"])
            yield lambda weights: {f"family_{name}": values for name, values in of_families(weights).items() if name in ("roc_auc", "map")}
    if "targets" in kept:
        yield regression.resampler(kept["targets_true"], kept["targets"])


def _aligned(runs: Sequence[Path], kept: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The outputs of all runs with their tracks in one order.

    Raises:
        InputError: they are not of the same tracks, or these have other labels or targets.
    """
    ids = [{*one["ids"].tolist()} for one in kept]
    for place, own in enumerate(ids):
        if own != ids[0]:
            alone, missing = sorted(own - ids[0]), sorted(ids[0] - own)
            told = ", ".join(f"{len(names)} {what} such as {names[0]}" for names, what in ((alone, "others"), (missing, "missing")) if names)
            raise InputError(f"the test tracks of {runs[place]} must be those of {runs[0]}, got {told}; compare runs on the same records")
    rows = [np.argsort(one["ids"]) for one in kept]
    aligned = [{name: values[order] for name, values in one.items()} for one, order in zip(kept, rows, strict=True)]
    for place, one in enumerate(aligned):
        if one.keys() != aligned[0].keys():
            raise InputError(f"{runs[place]} and {runs[0]} must be made by one version; evaluate both again: python train.py --resume RUN")
        for name in {"y_true", "targets_true", "families_true"} & one.keys():
            if not np.array_equal(one[name], aligned[0][name], equal_nan=True):
                raise InputError(f"{name} of the test tracks of {runs[place]} must be that of {runs[0]}, got other values")
    return aligned


def _bars(first: str, first_figures: Mapping, other: str, other_figures: Mapping) -> list[page.Exhibit]:
    """A picture for each figure that both runs have by label or target."""
    exhibits = []
    for kind, of in ((PER_LABEL, "label"), (PER_TARGET, "target")):
        for key, name in kind.items():
            if key in first_figures and key in other_figures:
                values = {first: first_figures[key], other: other_figures[key]}
                figure = pictures.side_by_side(first_figures[f"{of}s"], values, name)
                exhibits.append(page.Exhibit(f"{name} of each {of}: {other} against {first}", figure=figure))
    return exhibits


def _short(runs: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as few as tell them apart."""
    paths = [one.resolve().parts for one in runs]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len({*names}) == len(names):
            return names
    return [*map(str, runs)]
