"""From scores to decisions, and what they are worth: a threshold per label tuned on validation, one of N classes, F1 and its kin, confusion.

A class without positives has no figure: it is None (nan), counted, and in no mean over classes, never 0. Its false alarms still count in the
micro figures and in the accuracy. A class of which nothing was decided has no precision either; its recall and F1 are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tfmusic import bootstrap, metrics
from tfmusic.bootstrap import for_json

PER_CLASS = ("precision", "recall", "f1")
MEANS = ("macro", "micro", "weighted")
DECIDED = ("accuracy", "f1_macro", "f1_micro")  # figures of decisions per label that have an interval
RENAMED = {"accuracy": "f1_micro", "balanced_accuracy": "recall_macro"}  # what they are of one choice and one truth a track


def tune_thresholds(y_true: np.ndarray, scores: np.ndarray, default: float = 0.5) -> np.ndarray:
    """Threshold of each label with the greatest F1 on these tracks, exact over all scores; a score decides for its label at or above it.

    Of thresholds with the same F1 it is the one that decides least often. It lies halfway to the next lower score, so that the last digits
    of another machine's arithmetic decide nothing; where deciding always is best, it is the lowest score itself.

    Tune on validation, never on the test set. For calibrated probabilities the best threshold is half of the F1 that it reaches; for scores
    that know nothing it is to decide always, which is why rare labels that were not learnt are decided too often (Lipton, Elkan and
    Narayanaswamy, ECML 2014). A label with a handful of positives gets a threshold to suit those.

    Args:
        y_true: 0/1 of the validation split `[shape=(tracks, classes)]`.
        scores: greater means more likely, finite, any scale `[shape=(tracks, classes)]`.
        default: threshold of a label that has no positives here; .5 is meant for probabilities.

    Returns:
        float64 `[shape=(classes,)]`.

    Raises:
        ValueError: as `metrics.roc_auc`, and for scores that are not finite.

    >>> tune_thresholds(np.array([[0], [0], [1], [1]]), np.array([[0.1], [0.4], [0.35], [0.8]]))  # three found, two of them right: F1 4/5
    array([0.225])
    """
    positive, scores = metrics.checked(y_true, scores)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, got {scores[~np.isfinite(scores)][0]}")
    positive, scores = np.ascontiguousarray(positive.T), np.ascontiguousarray(scores.T, np.float64)  # a sort runs along memory
    order = np.argsort(-scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)  # (classes, tracks), greatest first
    hits = np.cumsum(np.take_along_axis(positive, order, axis=1), axis=1)
    f1 = 2 * hits / (np.arange(1, hits.shape[1] + 1) + hits[:, -1:])  # equal fractions of integers are equal numbers: ties are exact
    f1[:, :-1][ordered[:, :-1] == ordered[:, 1:]] = -1  # no threshold parts a tie
    best = f1.argmax(axis=1)  # the first: the highest threshold
    rows = np.arange(len(ordered))
    chosen, lower = ordered[rows, best], ordered[rows, np.minimum(best + 1, ordered.shape[1] - 1)]
    middle = chosen / 2 + lower / 2  # the sum could overflow
    thresholds = np.where(middle > lower, middle, chosen)  # neighbours among the floats have no middle
    return np.where(hits[:, -1] > 0, thresholds, default)


def decide(y_true: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, resamples: int, seed: int) -> dict:
    """What decisions per label are worth (multi-label): precision, recall, F1, accuracy; ready for JSON.

    With h_c right decisions for label c, d_c decisions, and P_c positives: precision h_c / d_c, recall h_c / P_c, F1 2 h_c / (d_c + P_c).
    Macro: mean over the labels that have the figure, each counts alike. Weighted: each by its positives. Micro: the formulas on the sums over
    all labels, frequent labels rule. Accuracy is the share of right answers among all tracks x labels: never deciding reaches one minus the
    share of positives, so do not read it alone.

    The intervals (95 %, `bootstrap.normal_interval`) are for tracks like these and these very thresholds, not for thresholds tuned anew. In
    simulated test sets (25 correlated labels, prevalence 3 to 40 %; 200 sets each) they held the population's macro F1 in .94 to .96 of them
    at 350 and 800 tracks, in .89 to .93 at 75; micro .92 to .96 throughout.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`.
        scores: greater means more likely `[shape=(tracks, classes)]`.
        thresholds: a score at or above decides for the label `[shape=(classes,)]`.
        resamples: bootstrap draws over tracks `int >= 0`; 0: the intervals are None.
        seed: of the draws `int >= 0`.

    Returns:
        "precision_macro", "precision_micro", "precision_weighted", likewise "recall_..." and "f1_...", "accuracy", and "subset_accuracy",
        the share of tracks with every label right; None where there is none.
        "accuracy_interval", "f1_macro_interval", "f1_micro_interval": [low, high].
        "classes", "absent": number of classes, and of those without positives.
        "precision_per_class", "recall_per_class", "f1_per_class": None where there is none; "positives" and "decided": tracks of each class,
        and decisions for it; "thresholds".

    Raises:
        ValueError: as `metrics.roc_auc`, and for thresholds that are not one number a class.
    """
    positive, scores = metrics.checked(y_true, scores)
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.shape != positive.shape[1:] or np.isnan(thresholds).any():
        raise ValueError(f"thresholds must be {positive.shape[1]} numbers, one a class, got shape {thresholds.shape}: {thresholds}")
    decided = scores >= thresholds
    right = decided == positive
    extra = {"accuracy": float(right.mean()), "subset_accuracy": float(right.all(axis=1).mean()), "thresholds": thresholds.tolist()}
    return _report(positive, decided, DECIDED, resamples, seed) | extra


def one_of(y_true: np.ndarray, scores: np.ndarray, resamples: int, seed: int) -> dict:
    """What a choice of one class per track is worth (one of N): accuracy, confusion, precision, recall, F1; ready for JSON.

    The choice is the highest score, the first of several. Formulas: `decide`. Of one choice and one truth a track, the micro figures are all
    three the accuracy; the macro recall is the balanced accuracy, which a model that always chooses the most frequent class cannot raise
    above 1 / N (Brodersen et al., ICPR 2010).

    Args:
        y_true: 0/1, one 1 a track `[shape=(tracks, classes)]`.
        scores: greater means more likely, all classes on one scale `[shape=(tracks, classes)]`.
        resamples: bootstrap draws over tracks `int >= 0`; 0: the intervals are None.
        seed: of the draws `int >= 0`.

    Returns:
        As `decide` without "subset_accuracy" and "thresholds"; and "balanced_accuracy"; "accuracy_interval", "balanced_accuracy_interval",
        "f1_macro_interval" `[low, high]`; "confusion": tracks of class i for which class j was chosen `[shape=(classes, classes)]`.

    Raises:
        ValueError: as `metrics.roc_auc`, and for a track without a class, or with several.
    """
    positive, scores = metrics.checked(y_true, scores)
    counts = positive.sum(axis=1)
    if (counts != 1).any():
        track = int((counts != 1).argmax())
        raise ValueError(f"y_true must have one class a track, got {counts[track]} in track {track}")
    classes = positive.shape[1]
    chosen = scores.argmax(axis=1)
    report = _report(positive, np.arange(classes) == chosen[:, None], (*RENAMED.values(), "f1_macro"), resamples, seed)
    for name, source in RENAMED.items():
        report |= {name: report[source], f"{name}_interval": report.pop(f"{source}_interval")}
    confusion = np.bincount(positive.argmax(axis=1) * classes + chosen, minlength=classes**2)
    return report | {"confusion": confusion.reshape(classes, classes).tolist()}


def resampler(y_true: np.ndarray, scores: np.ndarray, thresholds: np.ndarray | None = None) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The figures with intervals of `decide`, or without thresholds of `one_of`, under resamples of the test set.

    Args:
        y_true: 0/1 `[shape=(tracks, classes)]`.
        scores: greater means more likely `[shape=(tracks, classes)]`.
        thresholds: a score at or above decides for the label `[shape=(classes,)]`; none: the highest score of a track is its class.

    Returns:
        Times that each track counts `[shape=(rows, tracks)]` to figures by name `[shape=(rows,)]`, nan where there is none.

    Raises:
        ValueError: as `metrics.roc_auc`.

    >>> resampler([[0, 1], [1, 0]], [[0.2, 0.8], [0.4, 0.6]])(np.array([[1, 1], [2, 0]]))["accuracy"]
    array([0.5, 1. ])
    """
    positive, scores = metrics.checked(y_true, scores)
    if thresholds is None:
        averages = _counted(positive, np.arange(positive.shape[1]) == scores.argmax(axis=1)[:, None])
        names = RENAMED | {"f1_macro": "f1_macro"}
    else:
        averages, names = _counted(positive, scores >= thresholds), {name: name for name in DECIDED}

    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = averages(weights)
        return {name: found[source] for name, source in names.items()}

    return resample


def row_shares(confusion: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of a confusion matrix as shares: of the tracks of class i, how many went to class j. The diagonal is the recall.

    Args:
        confusion: counts `[shape=(classes, classes)]`.

    Returns:
        `0 <= float64 <= 1`; nan in the row of a class without tracks `[shape=(classes, classes)]`.

    >>> row_shares([[3, 1], [0, 0]])
    array([[0.75, 0.25],
           [ nan,  nan]])
    """
    confusion = np.asarray(confusion, np.float64)
    return _share(confusion, np.broadcast_to(confusion.sum(axis=1, keepdims=True), confusion.shape))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan of nothing."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of the numbers along the last axis; nan where there are none."""
    weights = np.where(np.isnan(values), 0.0, weights)
    return _share((np.nan_to_num(values) * weights).sum(axis=-1), weights.sum(axis=-1))


def _rates(hits: np.ndarray, decided: np.ndarray, positives: np.ndarray) -> dict[str, np.ndarray]:
    """`PER_CLASS` of counts of any shape."""
    return {"precision": _share(hits, decided), "recall": _share(hits, positives), "f1": _share(2 * hits, decided + positives)}


def _averages(hits: np.ndarray, decided: np.ndarray, positives: np.ndarray) -> dict[str, np.ndarray]:
    """Every rate and its `MEANS` over the classes, of counts `[shape=(..., classes)]`."""
    per_class = {name: np.where(positives > 0, values, np.nan) for name, values in _rates(hits, decided, positives).items()}
    micro = _rates(*(counts.sum(axis=-1) for counts in (hits, decided, positives)))
    means: dict[str, Callable[[str], np.ndarray]] = {
        "macro": lambda name: _mean(per_class[name], np.ones(positives.shape)),
        "micro": lambda name: micro[name],
        "weighted": lambda name: _mean(per_class[name], positives),
    }
    return per_class | {f"{name}_{mean}": means[mean](name) for name in PER_CLASS for mean in MEANS}


def _counted(positive: np.ndarray, decided: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Times that each track counts `[shape=(rows, tracks)]` to `_averages` and accuracy; truth and decisions: bool `[shape=(tracks, classes)]`."""
    columns = [matrix.astype(np.float32) for matrix in (positive & decided, decided, positive)]

    def averages(weights: np.ndarray) -> dict[str, np.ndarray]:
        weights = weights.astype(np.float32)  # counts are exact up to 2^24 tracks, and a product of matrices costs half
        counts = hits, decisions, positives = [(weights @ matrix).astype(np.float64) for matrix in columns]
        wrong, answers = (decisions + positives - 2 * hits).sum(axis=-1), weights.sum(axis=-1) * hits.shape[-1]
        return _averages(*counts) | {"accuracy": 1 - _share(wrong, answers)}

    return averages


def _report(positive: np.ndarray, decided: np.ndarray, with_interval: tuple[str, ...], resamples: int, seed: int) -> dict:
    """What `decide` and `one_of` share, from truth and decisions, bool `[shape=(tracks, classes)]`."""
    averages = _counted(positive, decided)
    found = {name: values[0] for name, values in averages(np.ones((1, len(positive)))).items()}
    estimates = {name: float(found[name]) for name in with_interval}
    intervals = bootstrap.intervals(estimates, averages, len(positive), resamples, seed)
    positives = positive.sum(axis=0)
    return {
        **{f"{name}_{mean}": for_json(found[f"{name}_{mean}"]) for name in PER_CLASS for mean in MEANS},
        **{f"{name}_interval": for_json(interval) for name, interval in intervals.items()},
        "classes": len(positives),
        "absent": int((positives == 0).sum()),
        **{f"{name}_per_class": for_json(found[name]) for name in PER_CLASS},
        "positives": positives.tolist(),
        "decided": decided.sum(axis=0).tolist(),
    }
