"""Exact figures of merit over whole tracks, in numpy: what they measure, per class, as a macro mean, and how far to trust it.

Thresholds are the scores themselves, ties are counted as ties, and a class without positives is nan and counted, never 0. All figures of
a class follow from one sort; a resample of the bootstrap only re-weighs the tracks and sorts nothing.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

BLOCK = 1 << 18  # weights that the bootstrap sums at a time: bounds its memory, and stays in the processor's cache


class Ranked(NamedTuple):
    """One class, sorted once from its lowest to its highest score: all that its figures need, whatever the items' weights.

    Items of equal score form a group. Positives are few and both figures are sums over them, so only their groups are kept.
    """

    items: int
    positives: int
    order: np.ndarray | None  # items, lowest score first (items,); none: no weights will come
    first: np.ndarray  # place where the group of every positive begins (positives,)
    end: np.ndarray  # place after it
    rank_first: np.ndarray  # the same two places, counted among the positives alone
    rank_end: np.ndarray
    positive_order: np.ndarray | None  # items that are positive, lowest score first (positives,)


def _rank(positive: np.ndarray, scores: np.ndarray, weighted: bool) -> Ranked:
    """Sorts one class `[shape=(items,)]`."""
    order = positive_order = None
    if weighted:
        order = np.argsort(scores)
        positive_order = order[positive[order]]
        ordered, of_positives = scores[order], scores[positive_order]
    else:  # a sort of the values costs half of an argsort
        ordered, of_positives = np.sort(scores), np.sort(scores[positive])
    first, end = ordered.searchsorted(of_positives, "left"), ordered.searchsorted(of_positives, "right")
    rank_first, rank_end = of_positives.searchsorted(of_positives, "left"), of_positives.searchsorted(of_positives, "right")
    return Ranked(len(scores), len(of_positives), order, first, end, rank_first, rank_end, positive_order)


def _rank_classes(y_true: np.ndarray, scores: np.ndarray, weighted: bool) -> list[Ranked]:
    """Checks the arguments that all figures share, and sorts every class."""
    y_true, scores = np.asarray(y_true), np.asarray(scores)
    if y_true.ndim != 2 or 0 in y_true.shape:
        raise ValueError(f"y_true must be of shape (items, classes), got {y_true.shape}")
    if scores.shape != y_true.shape:
        raise ValueError(f"scores must be of the shape of y_true, {y_true.shape}, got {scores.shape}")
    positive = y_true.astype(bool)
    if not np.array_equal(positive, y_true):
        raise ValueError(f"y_true must be 0 or 1, got {y_true[positive != y_true][0]}")
    if scores.dtype != np.float32:
        scores = scores.astype(np.float64, copy=False)
    if np.isnan(scores.min()):
        raise ValueError(f"scores must be numbers, got nan in class {np.isnan(scores).any(axis=0).argmax()}")
    columns = zip(np.ascontiguousarray(positive.T), np.ascontiguousarray(scores.T), strict=True)  # a sort runs along memory
    return [_rank(*column, weighted) for column in columns]


def _figures(ranked: Ranked, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Both figures of one class, the formulas of `roc_auc` and `average_precision`.

    Args:
        ranked: the sorted class.
        weights: multiplicities of the items `[shape=(resamples, items)]`; none: every item once.

    Returns:
        "roc_auc" and "map" `[shape=(resamples,)]`, or numbers without weights.
    """
    if weights is None:  # a cumulative sum of ones is the place itself
        total, positives, weight = ranked.items, ranked.positives, 1
        found, found_above = total - ranked.first, total - ranked.end
        hits, hits_above = positives - ranked.rank_first, positives - ranked.rank_end
    else:
        line, hit_line = _cumulative(weights, ranked.order), _cumulative(weights, ranked.positive_order)
        total, positives, weight = line[:, -1:], hit_line[:, -1:], weights[:, ranked.positive_order]
        found, found_above = total - line[:, ranked.first], total - line[:, ranked.end]  # items scored at or above, and above
        hits, hits_above = positives - hit_line[:, ranked.rank_first], positives - hit_line[:, ranked.rank_end]  # positives among them
    negatives = total - positives
    precision = np.divide(hits, found, out=np.zeros(hits.shape), where=found > 0)  # nothing found: every weight from there up is 0
    wins = negatives - ((found - hits) + (found_above - hits_above)) / 2  # negatives below, a tie is half a win
    with np.errstate(invalid="ignore"):  # 0 / 0: no positives, or no negatives
        return {
            "roc_auc": np.divide((weight * wins).sum(-1), np.squeeze(positives * negatives)),
            "map": np.divide((weight * precision).sum(-1), np.squeeze(positives)),
        }


def _cumulative(weights: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Weight of the first 0, 1, 2, ... of these items `[shape=(resamples, len(items) + 1)]`."""
    line = np.zeros((len(weights), len(items) + 1), np.int64)
    np.cumsum(weights[:, items], axis=1, out=line[:, 1:])
    return line


def _per_class(name: str, y_true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    ranked = _rank_classes(y_true, scores, weights is not None)
    if weights is not None:
        weights = np.asarray(weights)
        if weights.shape != (ranked[0].items,):
            raise ValueError(f"weights must be of shape ({ranked[0].items},), got {weights.shape}")
        if not np.issubdtype(weights.dtype, np.integer) or weights.min() < 0:
            raise ValueError(f"weights must be integers >= 0, got {weights.dtype} down to {weights.min()}")
        weights = weights[None]
    return np.array([_figures(one, weights)[name] for one in ranked], np.float64).ravel()


def roc_auc(y_true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Chance that an item of the class is scored above one that is not, a tie counting half; .5 is guessing.

    `1 / (P N) sum over positives i, negatives j of [s_i > s_j] + [s_i = s_j] / 2` (Hanley and McNeil, Radiology 1982), the area under the
    ROC curve. It does not depend on how rare the class is, and so hides how many false alarms a rare class brings: read it beside
    `average_precision`.

    Args:
        y_true: 0/1 `[shape=(items, classes)]`.
        scores: greater means more likely, any scale `[shape=(items, classes)]`.
        weights: times that each item counts `int >= 0` `[shape=(items,)]`; none: once.

    Returns:
        `0 <= float64 <= 1`, nan for a class without positives or without negatives `[shape=(classes,)]`.

    Raises:
        ValueError: shapes that differ, labels other than 0 and 1, scores that are nan, weights that are not multiplicities.

    >>> roc_auc(np.array([[0], [0], [1], [1]]), np.array([[0.1], [0.4], [0.35], [0.8]]))
    array([0.75])
    """
    return _per_class("roc_auc", y_true, scores, weights)


def average_precision(y_true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean, over the items of the class, of the share of true items among all scored at least as high as it.

    `1 / P sum over positives i of precision(s_i)`: the area under the step-wise precision-recall curve, what the field calls PR-AUC or,
    averaged over classes, mAP. Guessing reaches the share of positives, so a figure means nothing without it.

    Args:
        y_true: 0/1 `[shape=(items, classes)]`.
        scores: greater means more likely, any scale `[shape=(items, classes)]`.
        weights: times that each item counts `int >= 0` `[shape=(items,)]`; none: once.

    Returns:
        `0 < float64 <= 1`, nan for a class without positives `[shape=(classes,)]`.

    Raises:
        ValueError: as `roc_auc`.

    >>> average_precision(np.array([[0], [0], [1], [1]]), np.array([[0.1], [0.4], [0.35], [0.8]]))  # (1/1 + 2/3) / 2
    array([0.83333333])
    """
    return _per_class("map", y_true, scores, weights)


def macro(per_class: np.ndarray) -> float:
    """Mean over the classes that have a figure; every class counts alike, however rare. nan when none has one.

    >>> macro(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    per_class = np.asarray(per_class, np.float64)
    per_class = per_class[~np.isnan(per_class)]
    return float(per_class.mean()) if per_class.size else float("nan")


def _normal_interval(estimate: float, resampled: np.ndarray, level: float) -> tuple[float, float]:
    """Interval of a figure between 0 and 1: the bias-corrected normal one (Davison and Hinkley 1997, chapter 5; R's `boot.ci`, type "norm").

    `(2 estimate - mean(resampled)) -+ z std(resampled)`, cut at 0 and 1, z the (1 + level) / 2 quantile of the standard normal. A positive
    counts itself among what it finds, so average precision reads high on few positives; a resample holds copies of positives, and reads
    high once more. `mean(resampled) - estimate` measures that and is taken off; the percentiles of the resamples would keep both.

    Args:
        estimate: figure of the test set, not nan.
        resampled: figures of its resamples, without nan `[shape=(resamples,)]`.
        level: `0 < float < 1`.

    Returns:
        (low, high); nan without resamples.

    >>> np.round(_normal_interval(0.5, np.array([0.5, 0.7]), level=0.95), 3)  # .4 -+ 1.96 * .1
    array([0.204, 0.596])
    """
    if not len(resampled):
        return float("nan"), float("nan")
    centre, reach = 2 * estimate - resampled.mean(), NormalDist().inv_cdf((1 + level) / 2) * resampled.std()
    low, high = np.clip([centre - reach, centre + reach], 0, 1).tolist()
    return low, high


def bootstrap_interval(y_true: np.ndarray, scores: np.ndarray, resamples: int, seed: int, level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Where the macro figures would settle with ever more tracks like these: bias-corrected normal intervals from a bootstrap over tracks.

    Tracks are drawn with replacement, as many as there are (Efron 1979); the macro figures of the draws give deviation and bias (formula:
    `_normal_interval`). A class that lost its positives in a resample is left out of that resample's mean. The interval is about the
    population, not about the average of test sets of this size, whose average precision is higher: the estimate lies above the middle,
    in tiny sets now and then above the interval. It says nothing about another training seed. Two runs on the same tracks may differ surely
    although their intervals overlap.

    Share of simulated test sets whose nominal 95 % interval held the population's value (three populations of 20 to 50 correlated labels,
    prevalence 2 to 50 %, ROC-AUC .86 to .94, mAP .44 to .73; 150 to 600 sets each; lowest - highest), and that of the percentiles for mAP:

        tracks              75          350          800         5000
        mAP          .70 - .84    .88 - .95    .93 - .95    .93 - .96
        percentiles  .03 - .79    .30 - .94    .50 - .92    .78 - .94
        ROC-AUC      .88 - .90    .94 - .95    .93 - .96    .93 - .95

    At 75 tracks many labels have one or two positives: mAP itself read .02 to .08 high there, and the resamples knew of half to three
    quarters of it. With that few, read the interval as too short.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`; whole tracks, since windows of one track are no independent draws.
        scores: greater means more likely `[shape=(tracks, classes)]`.
        resamples: draws `int > 0`; 500 settle the bounds to about a fiftieth of the interval.
        seed: of the draws `int >= 0`.
        level: share of test sets whose interval is to hold the population's value `0 < float < 1`.

    Returns:
        (low, high) of "roc_auc" and of "map"; nan where no class has a figure.

    Raises:
        ValueError: as `roc_auc`, and for `resamples` or `level` out of range.
    """
    ranked = _rank_classes(y_true, scores, weighted=True)
    return _bootstrap_interval(ranked, [_figures(one) for one in ranked], resamples, seed, level)


def _bootstrap_interval(
    ranked: list[Ranked], figures: list[dict[str, np.ndarray]], resamples: int, seed: int, level: float
) -> dict[str, tuple[float, float]]:
    """`bootstrap_interval` of sorted classes and their `_figures`."""
    if resamples < 1:
        raise ValueError(f"resamples must be > 0, got {resamples!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    random = np.random.default_rng(seed)
    tracks = ranked[0].items
    macros: dict[str, list[float]] = {"roc_auc": [], "map": []}
    block = max(1, BLOCK // tracks)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = random.integers(tracks, size=(rows, tracks)) + tracks * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)  # multinomial; numpy's own is slower
        resampled = [_figures(one, weights) for one in ranked]
        for name, values in macros.items():
            values += [macro(row) for row in np.stack([one[name] for one in resampled], axis=-1)]  # (rows, classes)
    intervals = {}
    for name, values in macros.items():
        kept = np.array([value for value in values if not np.isnan(value)])
        intervals[name] = _normal_interval(macro([one[name] for one in figures]), kept, level)
    return intervals


def ranking(y_true: np.ndarray, scores: np.ndarray, resamples: int, seed: int) -> dict:
    """The report on a test set: macro figures, their 95 % intervals and every class, from one sort; ready for JSON.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`.
        scores: greater means more likely `[shape=(tracks, classes)]`.
        resamples: bootstrap draws `int >= 0`; 0: the intervals are None.
        seed: of the draws `int >= 0`.

    Returns:
        "roc_auc", "map": macro means over the classes that have the figure, nan when none has.
        "roc_auc_interval", "map_interval": [low, high] of `bootstrap_interval`.
        "classes": number of classes, "absent": how many of them have no positive and are left out.
        "roc_auc_per_class", "map_per_class": one figure a class, None where there is none; "positives": items of each class.

    Raises:
        ValueError: as `roc_auc`, and for negative `resamples`.
    """
    if resamples < 0:
        raise ValueError(f"resamples must be >= 0, got {resamples!r}")
    ranked = _rank_classes(y_true, scores, weighted=resamples > 0)
    figures = [_figures(one) for one in ranked]
    intervals = _bootstrap_interval(ranked, figures, resamples, seed, level=0.95) if resamples else {}
    positives = [one.positives for one in ranked]
    report: dict = {"classes": len(ranked), "absent": positives.count(0), "positives": positives}
    for name in ("roc_auc", "map"):
        per_class = [float(one[name]) for one in figures]
        report[name] = macro(per_class)
        report[f"{name}_interval"] = list(intervals[name]) if resamples else None
        report[f"{name}_per_class"] = [None if np.isnan(figure) else figure for figure in per_class]
    return report
