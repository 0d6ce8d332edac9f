"""metrics: scikit-learn and scipy are the reference, with ties and empty classes; the bootstrap against resamples drawn by hand."""

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score

from tfmusic import bootstrap, metrics


def _lwlrap_reference(y_true, scores, **_):
    """The definition, label by label: class sums of precision, class counts."""
    precisions = [[] for _ in range(y_true.shape[1])]
    for truth, row in zip(y_true.astype(bool), scores, strict=True):
        for label in np.flatnonzero(truth):
            above = [other for other, score in enumerate(row) if score >= row[label]]
            precisions[label].append(np.mean(truth[above]))
    return np.array([np.mean(found) if found else np.nan for found in precisions])


def _d_prime_reference(y_true, scores, **_):
    """scipy's inverse normal of scikit-learn's area; finite where no class is in perfect order."""
    return np.sqrt(2) * norm.ppf(roc_auc_score(y_true, scores, average=None))


REFERENCES = {
    metrics.roc_auc: roc_auc_score,
    metrics.average_precision: average_precision_score,
    metrics.d_prime: _d_prime_reference,
    metrics.lwlrap_per_class: _lwlrap_reference,
}


def _problem(items=300, classes=6, decimals=None, positives=0.2, dtype=np.float64, seed=0):
    """Scores that know a little; rounding makes ties."""
    random = np.random.default_rng(seed)
    y_true = (random.random((items, classes)) < positives).astype(int)
    y_true[0], y_true[1] = 1, 0  # both in every class
    scores = random.random((items, classes)) + 0.3 * y_true
    return y_true, (scores if decimals is None else scores.round(decimals)).astype(dtype)


@pytest.mark.parametrize("decimals", [None, 2, 1, 0], ids=lambda decimals: f"decimals={decimals}")
@pytest.mark.parametrize("positives", [0.01, 0.2, 0.95])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_equal_to_scikit_learn(decimals, positives, dtype):
    y_true, scores = _problem(decimals=decimals, positives=positives, dtype=dtype)
    for figure, reference in REFERENCES.items():
        np.testing.assert_allclose(figure(y_true, scores), reference(y_true, scores, average=None), rtol=0, atol=1e-12)


@pytest.mark.parametrize("decimals", [None, 1], ids=lambda decimals: f"decimals={decimals}")
def test_a_weight_is_a_repetition(decimals):
    y_true, scores = _problem(decimals=decimals)
    weights = np.random.default_rng(1).integers(0, 4, len(y_true))
    repeated = np.repeat(np.arange(len(y_true)), weights)
    assert metrics.lwlrap(y_true, scores, weights) == pytest.approx(metrics.lwlrap(y_true[repeated], scores[repeated]), abs=1e-12)
    for figure, reference in REFERENCES.items():
        expected = reference(y_true[repeated], scores[repeated], average=None)
        np.testing.assert_allclose(figure(y_true, scores, weights), expected, rtol=0, atol=1e-12)


def test_classes_without_positives_or_negatives_are_nan():
    """Class 0 has no positive: no figure. Class 1 no negative: every precision is 1, no ROC curve. Class 2 has both, in order."""
    y_true = np.array([[0, 1, 1], [0, 1, 0]])
    scores = np.array([[0.9, 0.1, 0.9], [0.8, 0.2, 0.1]])
    np.testing.assert_array_equal(metrics.roc_auc(y_true, scores), [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(metrics.average_precision(y_true, scores), [np.nan, 1.0, 1.0])
    only_positives = np.array([1, 0])  # as weights, of class 2: its negative is away
    np.testing.assert_array_equal(metrics.roc_auc(y_true, scores, only_positives), [np.nan] * 3)
    np.testing.assert_array_equal(metrics.average_precision(y_true, scores, only_positives), [np.nan, 1.0, 1.0])


def test_constant_scores_are_guessing():
    """One tie of everything: half of all pairs are won, and every threshold finds the share of positives, 1/4."""
    assert metrics.d_prime(np.array([[1], [0], [0], [0]]), np.zeros((4, 1))) == [0.0]
    y_true, scores = np.array([[1], [0], [0], [0]]), np.zeros((4, 1))
    assert metrics.roc_auc(y_true, scores) == [0.5]
    assert metrics.average_precision(y_true, scores) == [0.25]


def test_numbers_of_the_docstrings():
    """Scores .1 .4 | .35 .8: three of four pairs in order; precision 1 at .8 and 2/3 at .35."""
    y_true, scores = np.array([[0], [0], [1], [1]]), np.array([[0.1], [0.4], [0.35], [0.8]])
    assert metrics.roc_auc(y_true, scores) == [0.75]
    np.testing.assert_allclose(metrics.average_precision(y_true, scores), [(1 + 2 / 3) / 2], rtol=1e-15)


def test_d_prime_is_the_distance_of_two_normal_distributions():
    """Scores of unit deviation, 1.5 apart. The area's deviation is under .004, d' changes by 3 of it: five of those are .05."""
    random = np.random.default_rng(0)
    y_true = np.arange(20_000)[:, None] < 10_000
    assert metrics.d_prime(y_true, random.normal(1.5 * y_true)) == pytest.approx([1.5], abs=0.05)


def test_d_prime_of_perfect_order_is_one_tie_short_of_it():
    """Two positives, two negatives: four pairs, steps of 1/8, so 7/8 stands for 1 and 1/8 for 0. Absent classes are no number."""
    y_true, scores = np.array([[0, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1]]), np.arange(4.0)[:, None] * np.ones(4)
    np.testing.assert_allclose(metrics.d_prime(y_true, scores), np.sqrt(2) * np.array([norm.ppf(7 / 8), norm.ppf(1 / 8), np.nan, np.nan]), rtol=1e-12)
    scores[2, 0] = 1.0  # the tie itself
    np.testing.assert_allclose(metrics.d_prime(y_true, scores)[0], np.sqrt(2) * norm.ppf(7 / 8), rtol=1e-12)
    report = metrics.ranking(y_true, scores, resamples=20, seed=0)
    assert np.isfinite([report["d_prime"], *report["d_prime_interval"]]).all() and report["d_prime_per_class"][2:] == [None, None]


@pytest.mark.parametrize("decimals", [None, 1, 0], ids=lambda decimals: f"decimals={decimals}")
def test_lwlrap_is_the_label_ranking_average_precision_of_items_by_their_labels(decimals):
    y_true, scores = _problem(decimals=decimals)
    expected = label_ranking_average_precision_score(y_true, scores, sample_weight=y_true.sum(axis=1))
    assert metrics.lwlrap(y_true, scores) == pytest.approx(expected, abs=1e-12)
    share = y_true.sum(axis=0) / y_true.sum()  # the challenge's sum over classes by their prior
    assert metrics.lwlrap(y_true, scores) == pytest.approx(share @ metrics.lwlrap_per_class(y_true, scores), abs=1e-12)


def test_lwlrap_of_one_track_and_of_none(monkeypatch):
    """True labels at 3 and 1, a false one at 2: precisions 1 and 2/3. A tie of the true 3 with the false one: 1/2."""
    y_true = np.array([[1, 0, 1]])
    assert metrics.lwlrap(y_true, np.array([[3.0, 2, 1]])) == pytest.approx((1 + 2 / 3) / 2)
    np.testing.assert_allclose(metrics.lwlrap_per_class(y_true, np.array([[3.0, 3, 1]])), [1 / 2, np.nan, 2 / 3])
    assert np.isnan(metrics.lwlrap(0 * y_true, np.ones((1, 3))))
    y_true, scores = _problem(items=50)
    whole = metrics.lwlrap(y_true, scores)
    monkeypatch.setattr(bootstrap, "BLOCK", 7 * 6)  # seven labels at a time
    assert metrics.lwlrap(y_true, scores) == pytest.approx(whole, rel=1e-15)


def test_macro_leaves_out_what_has_no_figure():
    assert metrics.macro(np.array([0.5, np.nan, 1.0])) == 0.75
    assert np.isnan(metrics.macro(np.array([np.nan])))


@pytest.mark.parametrize("block", [1 << 18, 7 * 40], ids=["one block", "seven tracks a block"])
def test_bootstrap_equals_resampling_by_hand(block, monkeypatch):
    """The same draws, each resampled, sorted and scored from scratch; 40 tracks, so that classes lose their positives at times."""
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    y_true, scores = _problem(items=40, decimals=1, positives=0.03)
    drawn = np.random.default_rng(5).integers(40, size=(60, 40))
    bounds = dict.fromkeys(metrics.FIGURES, (0, 1)) | metrics.BOUNDS
    figures = (metrics.roc_auc, metrics.average_precision, metrics.d_prime, metrics.lwlrap)
    for name, figure in zip(metrics.FIGURES, figures, strict=True):
        by_hand = [metrics.macro(figure(y_true[tracks], scores[tracks])) for tracks in drawn]
        estimate = metrics.macro(figure(y_true, scores))  # 1.2816: the normal distribution's 90 %
        expected = 2 * estimate - np.nanmean(by_hand) + np.array([-1.2816, 1.2816]) * np.nanstd(by_hand)
        interval = metrics.bootstrap_interval(y_true, scores, resamples=60, seed=5, level=0.8)[name]
        np.testing.assert_allclose(interval, expected.clip(*bounds[name]), rtol=0, atol=1e-4)


def test_interval_is_as_wide_as_theory():
    """The deviation of one class's ROC-AUC, Hanley and McNeil 1982 (Q1, Q2 of exponential scores): 95 % are 3.92 of it wide."""
    random = np.random.default_rng(0)
    y_true = np.arange(1000)[:, None] < 500
    scores = random.exponential(np.where(y_true, 2.0, 1.0))
    auc = metrics.macro(metrics.roc_auc(y_true, scores))
    q1, q2, n = auc / (2 - auc), 2 * auc**2 / (1 + auc), 500
    deviation = np.sqrt((auc * (1 - auc) + (n - 1) * (q1 + q2 - 2 * auc**2)) / n**2)
    low, high = metrics.bootstrap_interval(y_true, scores, resamples=400, seed=0)["roc_auc"]
    assert low < auc < high
    assert (high - low) / (3.92 * deviation) == pytest.approx(1, abs=0.15)


def test_interval_of_average_precision_holds_the_population():
    """Copies in a resample raise average precision: 95 % of intervals are to hold the population's value, its percentiles would hold 72 %.

    Scores above s are a share T = exp(-s / 3) of the positives and T^3 of the negatives, so at prevalence p the precision there is
    p T / (p T + (1 - p) T^3), and its mean over the positives, T uniform on 0 to 1, sqrt(p / (1 - p)) atan(sqrt((1 - p) / p)).
    """
    prevalence = np.tile([0.1, 0.2, 0.3], 20)
    odds = prevalence / (1 - prevalence)
    population = np.mean(np.sqrt(odds) * np.arctan(np.sqrt(1 / odds)))
    held, places = 0, []
    for seed in range(100):
        random = np.random.default_rng(seed)
        y_true = random.random((200, 60)) < prevalence
        scores = random.exponential(np.where(y_true, 3.0, 1.0))
        report = metrics.ranking(y_true, scores, resamples=100, seed=seed)
        low, high = report["map_interval"]
        held += low < population < high
        places.append((report["map"] - low) / (high - low))  # 0: the estimate is the lower bound, 1: the upper
    assert 88 <= held <= 99
    assert 0.5 < np.mean(places) < 0.8 and 0.1 < min(places) and max(places) < 0.95  # it reads high, and well inside


def test_interval_stays_between_0_and_1():
    """Perfect order has no spread. One mistake: the estimate is near 1, and so is the bound above it."""
    y_true, scores = np.arange(20)[:, None] >= 10, np.arange(20.0)[:, None]
    intervals = metrics.bootstrap_interval(y_true, scores, resamples=50, seed=0)
    assert [intervals[name] for name in ("roc_auc", "map", "lwlrap")] == [(1.0, 1.0)] * 3
    scores[9] = 10.5
    intervals = metrics.bootstrap_interval(y_true, scores, resamples=50, seed=0)
    for low, high in (intervals["roc_auc"], intervals["map"]):
        assert 0.8 < low < high == 1.0


def test_bootstrap_follows_its_seed():
    y_true, scores = _problem()
    first, again, other = (metrics.bootstrap_interval(y_true, scores, resamples=20, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_ranking_reports_everything_once():
    y_true, scores = _problem(classes=4)
    y_true[:, 2] = 0
    report = metrics.ranking(y_true, scores, resamples=50, seed=3)
    assert (report["classes"], report["absent"]) == (4, 1)
    assert report["positives"] == y_true.sum(axis=0).tolist()
    for name, figure in zip(metrics.FIGURES, REFERENCES, strict=True):
        per_class = figure(y_true, scores)
        np.testing.assert_allclose(np.array(report[f"{name}_per_class"], float), per_class, rtol=1e-14)
        assert report[name] == pytest.approx(metrics.lwlrap(y_true, scores) if name == "lwlrap" else np.nanmean(per_class), rel=1e-14)
        assert report[f"{name}_interval"] == list(metrics.bootstrap_interval(y_true, scores, resamples=50, seed=3)[name])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert metrics.ranking(y_true, scores, resamples=0, seed=3) == report | {f"{name}_interval": None for name in metrics.FIGURES}


def test_no_class_with_a_figure():
    report = metrics.ranking(np.zeros((3, 2)), np.zeros((3, 2)), resamples=2, seed=0)
    assert report["absent"] == 2 and report["map_interval"] is None
    assert np.isnan([report[name] for name in metrics.FIGURES]).all()


def test_families_are_true_and_scored_as_their_highest_class():
    """Classes a b c d; a and b of F, b and c of G, d of none."""
    y_true, scores = _problem(classes=4, decimals=1)
    names, truth, greatest = metrics.of_families(y_true, scores, "abcd", {"a": ("F",), "b": ["G", "F"], "c": ("G",), "e": ("H",), "d": ()})
    assert names == ["F", "G"]
    np.testing.assert_array_equal(truth, np.stack([y_true[:, 0] | y_true[:, 1], y_true[:, 1] | y_true[:, 2]], axis=1))
    np.testing.assert_array_equal(greatest, np.stack([scores[:, :2].max(axis=1), scores[:, 1:3].max(axis=1)], axis=1))


def test_family_figures_are_those_of_its_truth_and_scores():
    y_true, scores = _problem(classes=4)
    families = {"a": ("F",), "b": ("F",), "c": ("G",), "d": ("G",)}
    report = metrics.family_ranking(y_true, scores, "abcd", families, resamples=30, seed=0)
    pairs = [(y_true[:, own].any(axis=1), scores[:, own].max(axis=1)) for own in ([0, 1], [2, 3])]
    np.testing.assert_allclose(report["family_map_per_class"], [average_precision_score(*pair) for pair in pairs], rtol=1e-12)
    assert report["family_roc_auc"] == pytest.approx(np.mean([roc_auc_score(*pair) for pair in pairs]), rel=1e-12)
    assert report["families"] == ["F", "G"] and report["family_absent"] == 0
    assert report["family_map_interval"][0] < report["family_map"] < report["family_map_interval"][1]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize(
    ("labels", "families", "message"),
    [
        ("ab", {}, "labels must be 3 names, one a class, got 2"),
        ("abc", {"a": "animal"}, "families of 'a' must be a sequence of names, got 'animal'"),
        ("abc", {"d": ("animal",)}, "families must have a family for one of the labels at least"),
    ],
)
def test_bad_families(labels, families, message):
    with pytest.raises(ValueError, match=message):
        metrics.of_families(np.eye(3), np.eye(3), labels, families)


@pytest.mark.parametrize(
    ("y_true", "scores", "message"),
    [
        (np.ones(3), np.ones(3), r"y_true must be of shape \(items, classes\), got \(3,\)"),
        (np.ones((0, 2)), np.ones((0, 2)), r"y_true must be of shape .* got \(0, 2\)"),
        (np.ones((3, 2)), np.ones((3, 1)), r"scores must be of the shape of y_true, \(3, 2\), got \(3, 1\)"),
        (np.full((3, 2), 0.5), np.ones((3, 2)), r"y_true must be 0 or 1, got 0.5"),
        (np.array([[0.0, np.nan]]), np.ones((1, 2)), r"y_true must be 0 or 1, got nan"),
        (np.ones((1, 2)), np.array([[0.0, np.nan]]), r"scores must be numbers, got nan in class 1"),
    ],
)
def test_bad_arguments(y_true, scores, message):
    for figure in (*REFERENCES, metrics.lwlrap, lambda *args: metrics.ranking(*args, resamples=0, seed=0)):
        with pytest.raises(ValueError, match=message):
            figure(y_true, scores)


def test_bad_weights_and_levels():
    y_true, scores = _problem(items=3, classes=1)
    for weights in (np.ones(2, int), np.ones(3), np.array([1, -1, 1])):
        with pytest.raises(ValueError, match="weights must be"):
            metrics.roc_auc(y_true, scores, weights)
        with pytest.raises(ValueError, match="weights must be"):
            metrics.lwlrap(y_true, scores, weights)
    with pytest.raises(ValueError, match="resamples must be > 0, got 0"):
        metrics.bootstrap_interval(y_true, scores, resamples=0, seed=0)
    with pytest.raises(ValueError, match="resamples must be >= 0, got -1"):
        metrics.ranking(y_true, scores, resamples=-1, seed=0)
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        metrics.bootstrap_interval(y_true, scores, resamples=1, seed=0, level=95)
