"""Exact figures of merit over whole tracks, in numpy: what they measure, per class, as a macro mean, and how far to trust it.

Thresholds are the scores themselves, ties are counted as ties, and a class without positives is nan and counted, never 0. All figures of
a class follow from one sort (lwlrap, which ranks the labels of a track, from one comparison); a resample of the bootstrap only re-weighs the
tracks and sorts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from tfmusic import bootstrap
from tfmusic.bootstrap import cumulative, for_json
from tfmusic.labels import family_matrix

FIGURES = ("roc_auc", "map", "d_prime", "lwlrap")  # of `ranking`
BOUNDS = {"d_prime": (-inf, inf)}  # the others are between 0 and 1


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


def checked(y_true: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The arguments that all figures share: bool and float32 or float64 `[shape=(items, classes)]`.

    Raises:
        ValueError: shapes that differ or are empty, labels other than 0 and 1, scores that are nan.
    """
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
    return positive, scores


def _checked_weights(weights: np.ndarray, items: int) -> np.ndarray:
    weights = np.asarray(weights)
    if weights.shape != (items,):
        raise ValueError(f"weights must be of shape ({items},), got {weights.shape}")
    if not np.issubdtype(weights.dtype, np.integer) or weights.min() < 0:
        raise ValueError(f"weights must be integers >= 0, got {weights.dtype} down to {weights.min()}")
    return weights


def _rank_classes(positive: np.ndarray, scores: np.ndarray, weighted: bool) -> list[Ranked]:
    """Sorts every class of `checked` arguments."""
    columns = zip(np.ascontiguousarray(positive.T), np.ascontiguousarray(scores.T), strict=True)  # a sort runs along memory
    return [_rank(*column, weighted) for column in columns]


def _figures(ranked: Ranked, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The figures of one class, the formulas of `roc_auc`, `average_precision` and `d_prime`.

    Args:
        ranked: the sorted class.
        weights: multiplicities of the items `[shape=(resamples, items)]`; none: every item once.

    Returns:
        "roc_auc", "map" and "d_prime" `[shape=(resamples,)]`, or numbers without weights.
    """
    if weights is None:  # a cumulative sum of ones is the place itself
        total, positives, weight = ranked.items, ranked.positives, 1
        found, found_above = total - ranked.first, total - ranked.end
        hits, hits_above = positives - ranked.rank_first, positives - ranked.rank_end
    else:
        line, hit_line = cumulative(weights, ranked.order), cumulative(weights, ranked.positive_order)
        total, positives, weight = line[:, -1:], hit_line[:, -1:], weights[:, ranked.positive_order]
        found, found_above = total - line[:, ranked.first], total - line[:, ranked.end]  # items scored at or above, and above
        hits, hits_above = positives - hit_line[:, ranked.rank_first], positives - hit_line[:, ranked.rank_end]  # positives among them
    negatives = total - positives
    precision = np.divide(hits, found, out=np.zeros(hits.shape), where=found > 0)  # nothing found: every weight from there up is 0
    wins = negatives - ((found - hits) + (found_above - hits_above)) / 2  # negatives below, a tie is half a win
    pairs = np.squeeze(positives * negatives)
    with np.errstate(invalid="ignore"):  # 0 / 0: no positives, or no negatives
        auc = np.divide((weight * wins).sum(-1), pairs)
        return {"roc_auc": auc, "map": np.divide((weight * precision).sum(-1), np.squeeze(positives)), "d_prime": _separation(auc, pairs)}


def _separation(auc: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """`d_prime` of areas that so many pairs of a positive and a negative gave."""
    step = 0.5 / np.maximum(pairs, 1)  # a tie: only 0 and 1 lie beyond
    inverse = NormalDist().inv_cdf
    places = [inverse(area) if area == area else area for area in np.ravel(np.clip(auc, step, 1 - step)).tolist()]
    return sqrt(2) * np.reshape(places, np.shape(auc))


def _per_class(name: str, y_true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    ranked = _rank_classes(*checked(y_true, scores), weights is not None)
    if weights is not None:
        weights = _checked_weights(weights, ranked[0].items)[None]
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


def d_prime(y_true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """How many standard deviations apart two normal distributions of equal width are whose scores have this ROC-AUC; 0 is guessing.

    `sqrt(2) inverse_normal(ROC-AUC)` (Green and Swets 1966; AudioSet's baseline, Hershey et al., ICASSP 2017). It still grows where ROC-AUC
    is crowded below 1: .90, .95, .99 are 1.81, 2.33, 3.29. The formula is infinite at an area of 1, and one perfect class would make the mean
    over classes infinite. P positives and N negatives know no more than that the area is beyond their last step, so 1 and 0 are read as one tie
    short of them, `1 - 1 / (2 P N)` and `1 / (2 P N)`; no other area is that close. The mean over classes is of the classes' own d'; where
    others report d' of the mean area, which is lower for areas above .5, that is `sqrt(2) NormalDist().inv_cdf(macro(roc_auc(...)))`.

    Args:
        y_true: 0/1 `[shape=(items, classes)]`.
        scores: greater means more likely, any scale `[shape=(items, classes)]`.
        weights: times that each item counts `int >= 0` `[shape=(items,)]`; none: once.

    Returns:
        float64, nan for a class without positives or without negatives `[shape=(classes,)]`.

    Raises:
        ValueError: as `roc_auc`.

    >>> d_prime(np.array([[0], [0], [1], [1]]), np.array([[0.1], [0.4], [0.35], [0.8]]))  # sqrt(2) * .6745
    array([0.95387255])
    """
    return _per_class("d_prime", y_true, scores, weights)


class LabelRanked(NamedTuple):
    """Every pair of an item and one of its labels, with its precision among the item's labels."""

    items: np.ndarray  # (pairs,)
    classes: np.ndarray  # (pairs,)
    precision: np.ndarray  # (pairs,)


def _rank_labels(positive: np.ndarray, scores: np.ndarray) -> LabelRanked:
    """Ranks the labels of each item of `checked` arguments; comparing positives alone costs less than a sort, for they are few."""
    items, classes = np.nonzero(positive)
    precision = np.empty(len(items))
    block = max(1, bootstrap.BLOCK // positive.shape[1])
    for start in range(0, len(items), block):
        rows = items[start : start + block]
        above = scores[rows] >= scores[rows, classes[start : start + block]][:, None]  # or level, itself among them
        precision[start : start + block] = np.count_nonzero(above & positive[rows], axis=1) / np.count_nonzero(above, axis=1)
    return LabelRanked(items, classes, precision)


def lwlrap_per_class(y_true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean, over the items of the class, of the share of true labels among all labels that the item scores at least as high as the class.

    `1 / P_c sum over items i of c of |{k true of i: s_ik >= s_ic}| / |{k: s_ik >= s_ic}|` (DCASE 2019, task 2: Fonseca et al.). Unlike the
    other figures it compares the scores of one item, not those of one class: it asks for a good first label, not for a good threshold. A tie
    counts against the class: labels of the same score are all placed before it, true and false ones (scikit-learn's convention; the
    challenge's own code leaves ties to the order of a sort).

    Args:
        y_true: 0/1 `[shape=(items, classes)]`.
        scores: greater means more likely, all classes on one scale `[shape=(items, classes)]`.
        weights: times that each item counts `int >= 0` `[shape=(items,)]`; none: once.

    Returns:
        `0 < float64 <= 1`, nan for a class without positives `[shape=(classes,)]`.

    Raises:
        ValueError: as `roc_auc`.

    >>> lwlrap_per_class(np.array([[1, 0, 0], [1, 0, 1]]), np.array([[0.75, 0.5, 1], [1, 0.2, 0.1]]))  # (1/2 + 1/1) / 2; none; 2/3
    array([0.75      ,        nan, 0.66666667])
    """
    positive, scores = checked(y_true, scores)
    counts = None if weights is None else _checked_weights(weights, len(positive))
    return _lwlrap_per_class(_rank_labels(positive, scores), positive.shape[1], counts)


def _lwlrap_per_class(labels: LabelRanked, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    weight = np.ones(len(labels.items)) if weights is None else weights[labels.items]
    sums, counts = (np.bincount(labels.classes, values, minlength=classes) for values in (weight * labels.precision, weight))
    return np.divide(sums, counts, out=np.full(classes, np.nan), where=counts > 0)


def lwlrap(y_true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Label-weighted label-ranking average precision: the mean of `lwlrap_per_class` in which a class counts by its number of positives.

    So every label of every item counts alike, and items without labels do not.

    Args:
        y_true: 0/1 `[shape=(items, classes)]`.
        scores: greater means more likely, all classes on one scale `[shape=(items, classes)]`.
        weights: times that each item counts `int >= 0` `[shape=(items,)]`; none: once.

    Returns:
        `0 < float <= 1`, nan without positives.

    Raises:
        ValueError: as `roc_auc`.

    >>> round(lwlrap(np.array([[1, 0, 0], [1, 0, 1]]), np.array([[0.75, 0.5, 1], [1, 0.2, 0.1]])), 4)  # (1/2 + 1/1 + 2/3) / 3
    0.7222
    """
    positive, scores = checked(y_true, scores)
    counts = np.ones(len(positive), np.int64) if weights is None else _checked_weights(weights, len(positive))
    return float(_lwlrap(_rank_labels(positive, scores), counts[None])[0])


def _lwlrap(labels: LabelRanked, weights: np.ndarray) -> np.ndarray:
    """`lwlrap` under multiplicities of the items `[shape=(resamples, items)]`."""
    items = weights.shape[1]
    sums = np.stack([np.bincount(labels.items, labels.precision, minlength=items), np.bincount(labels.items, minlength=items)], axis=1)
    precision, count = (weights.astype(np.float64) @ sums).T
    return np.divide(precision, count, out=np.full(len(weights), np.nan), where=count > 0)


def macro(per_class: np.ndarray) -> float:
    """Mean over the classes that have a figure; every class counts alike, however rare. nan when none has one.

    >>> macro(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    per_class = np.asarray(per_class, np.float64)
    per_class = per_class[~np.isnan(per_class)]
    return float(per_class.mean()) if per_class.size else float("nan")


def bootstrap_interval(y_true: np.ndarray, scores: np.ndarray, resamples: int, seed: int, level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Where the macro figures would settle with ever more tracks like these: bias-corrected normal intervals from a bootstrap over tracks.

    Tracks are drawn with replacement, as many as there are (Efron 1979); the macro figures of the draws give deviation and bias (formula:
    `bootstrap.normal_interval`). A class that lost its positives in a resample is left out of that resample's mean. The interval is about the
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

    The same for d' and lwlrap (25 correlated labels, prevalence 3 to 40 %, d' 1.2 and 2.9; 200 sets each): lwlrap .93 - .96 at 75 tracks and
    beyond, d' .95 - .98 from 350 tracks on, but .90 and .81 at 75, where the mean over classes read .06 and .24 high: the steep end of the
    inverse normal makes more of a lucky area than of an unlucky one.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`; whole tracks, since windows of one track are no independent draws.
        scores: greater means more likely `[shape=(tracks, classes)]`.
        resamples: draws `int > 0`; 500 settle the bounds to about a fiftieth of the interval.
        seed: of the draws `int >= 0`.
        level: share of test sets whose interval is to hold the population's value `0 < float < 1`.

    Returns:
        (low, high) of each of `FIGURES`; nan where no class has a figure.

    Raises:
        ValueError: as `roc_auc`, and for `resamples` or `level` out of range.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be > 0, got {resamples!r}")
    positive, scores = checked(y_true, scores)
    ranked, labels = _rank_classes(positive, scores, weighted=True), _rank_labels(positive, scores)
    return _intervals(ranked, labels, _over_classes(_each_class(ranked, labels), labels), resamples, seed, level)


def _each_class(ranked: list[Ranked], labels: LabelRanked) -> dict[str, np.ndarray]:
    """`FIGURES` of every class `[shape=(classes,)]`."""
    figures = [_figures(one) for one in ranked]
    return {name: np.array([one[name] for one in figures]) for name in figures[0]} | {"lwlrap": _lwlrap_per_class(labels, len(ranked))}


def _over_classes(per_class: dict[str, np.ndarray], labels: LabelRanked) -> dict[str, float]:
    """`FIGURES` over all classes."""
    return {name: macro(values) for name, values in per_class.items()} | {"lwlrap": macro(labels.precision)}


def _intervals(
    ranked: list[Ranked], labels: LabelRanked, estimates: dict[str, float], resamples: int, seed: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """`bootstrap_interval` of ranked classes and labels, around what they gave."""
    return bootstrap.intervals(estimates, _resampler(ranked, labels), ranked[0].items, resamples, seed, level, BOUNDS)


def _resampler(ranked: list[Ranked], labels: LabelRanked) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        figures = [_figures(one, weights) for one in ranked]
        rows = {name: np.stack([one[name] for one in figures], axis=-1) for name in figures[0]}  # (resamples, classes)
        return {name: np.array([macro(row) for row in values]) for name, values in rows.items()} | {"lwlrap": _lwlrap(labels, weights)}

    return resample


def resampler(y_true: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The figures of `ranking` under resamples of the test set, sorted once: for `bootstrap.intervals` of what is made of them.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`.
        scores: greater means more likely `[shape=(tracks, classes)]`.

    Returns:
        Times that each track counts `[shape=(rows, tracks)]` to `FIGURES` over all classes `[shape=(rows,)]`, nan where there is none.

    Raises:
        ValueError: as `roc_auc`.

    >>> resampler([[0], [0], [1], [1]], [[0.1], [0.4], [0.35], [0.8]])(np.array([[1, 1, 1, 1], [1, 2, 0, 1]]))["roc_auc"]
    array([0.75, 1.  ])
    """
    positive, scores = checked(y_true, scores)
    return _resampler(_rank_classes(positive, scores, weighted=True), _rank_labels(positive, scores))


def ranking(y_true: np.ndarray, scores: np.ndarray, resamples: int, seed: int) -> dict:
    """The report on a test set: figures over all classes, their 95 % intervals and every class, from one sort; ready for JSON.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`.
        scores: greater means more likely `[shape=(tracks, classes)]`.
        resamples: bootstrap draws `int >= 0`; 0: the intervals are None.
        seed: of the draws `int >= 0`.

    Returns:
        "roc_auc", "map", "d_prime": macro means over the classes that have the figure; "lwlrap": over all labels; nan when there is none.
        "roc_auc_interval" and so on: [low, high] of `bootstrap_interval`, None where there is none.
        "classes": number of classes, "absent": how many of them have no positive and are left out.
        "roc_auc_per_class" and so on: one figure a class, None where there is none; "positives": items of each class.

    Raises:
        ValueError: as `roc_auc`, and for negative `resamples`.
    """
    positive, scores = checked(y_true, scores)
    ranked, labels = _rank_classes(positive, scores, weighted=resamples > 0), _rank_labels(positive, scores)
    per_class = _each_class(ranked, labels)
    estimates = _over_classes(per_class, labels)
    intervals = _intervals(ranked, labels, estimates, resamples, seed)
    positives = [one.positives for one in ranked]
    report: dict = {"classes": len(ranked), "absent": positives.count(0), "positives": positives}
    for name in FIGURES:
        report |= {name: estimates[name], f"{name}_interval": for_json(intervals[name]), f"{name}_per_class": for_json(per_class[name])}
    return report


def of_families(
    y_true: np.ndarray, scores: np.ndarray, labels: Sequence[str], families: Mapping[str, Iterable[str]]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Classes gathered into families: a family is true where any of its classes is, and scored as its highest class.

    Args:
        y_true: 0/1 `[shape=(items, classes)]`.
        scores: greater means more likely, all classes on one scale `[shape=(items, classes)]`.
        labels: names of the classes.
        families: families of a label, none to several; a label that is missing has none and is left out.

    Returns:
        Names of the families in alphabetical order, y_true bool and scores `[shape=(items, families)]`.

    Raises:
        ValueError: as `roc_auc`; labels that do not fit the classes, a family list that is a string, or no label with a family.

    >>> of_families(np.array([[0, 1, 0]]), np.array([[0.7, 0.5, 0.2]]), ("cat", "dog", "bus"), {"cat": ("animal",), "dog": ("animal", "pet")})
    (['animal', 'pet'], array([[ True,  True]]), array([[0.7, 0.5]]))
    """
    positive, scores = checked(y_true, scores)
    if len(labels) != positive.shape[1]:
        raise ValueError(f"labels must be {positive.shape[1]} names, one a class, got {len(labels)}")
    names, lies_in = family_matrix(labels, families)
    if not names:
        raise ValueError(f"families must have a family for one of the labels at least, got none of {list(labels)[:5]}")
    truth, greatest = (np.stack([values[:, own].max(axis=1) for own in lies_in.T > 0], axis=1) for values in (positive, scores))
    return list(names), truth, greatest


def family_ranking(
    y_true: np.ndarray, scores: np.ndarray, labels: Sequence[str], families: Mapping[str, Iterable[str]], resamples: int, seed: int
) -> dict:
    """ROC-AUC and average precision of families of classes (`of_families`), such as the top of the AudioSet ontology; ready for JSON.

    They forgive a confusion within a family. A family is much more frequent than its classes, and guessing reaches its share of positives:
    the mAP of families stands above that of classes for that reason alone.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`.
        scores: greater means more likely, all classes on one scale `[shape=(tracks, classes)]`.
        labels: names of the classes.
        families: families of a label; as `of_families`.
        resamples: bootstrap draws `int >= 0`; 0: the intervals are None.
        seed: of the draws `int >= 0`.

    Returns:
        "families": their names, "family_roc_auc", "family_map", and each of these with "_interval" and "_per_class", "family_positives",
        "family_absent": as `ranking` without "family_".

    Raises:
        ValueError: as `of_families` and `ranking`.
    """
    names, truth, greatest = of_families(y_true, scores, labels, families)
    report = ranking(truth, greatest, resamples, seed)
    kept = [f"{name}{part}" for name in ("roc_auc", "map") for part in ("", "_interval", "_per_class")]
    return {"families": names} | {f"family_{name}": report[name] for name in [*kept, "positives", "absent"]}
