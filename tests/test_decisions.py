"""decisions: scikit-learn is the reference, with ties, absent classes and classes that nothing is decided for; thresholds against all others."""

import json

import numpy as np
import pytest
import sklearn.metrics

from tfmusic import bootstrap, decisions


def _problem(tracks=120, classes=5, decimals=None, seed=0):
    """Scores that know a little; rounding makes ties. Class 2 is absent, class 3 scored so low that .5 never decides for it."""
    random = np.random.default_rng(seed)
    y_true = (random.random((tracks, classes)) < 0.3).astype(int)
    y_true[:, 2] = 0
    scores = 0.7 * random.random((tracks, classes)) + 0.3 * y_true
    scores[:, 3] *= 0.4
    return y_true, scores if decimals is None else scores.round(decimals)


def _one_of_problem(tracks=120, classes=5, seed=0):
    """Class 2 is absent and chosen at times, class 3 never chosen."""
    random = np.random.default_rng(seed)
    truth = random.choice([0, 1, 3, 4], size=tracks, p=[0.5, 0.2, 0.2, 0.1])
    scores = random.random((tracks, classes)) + 0.5 * np.eye(classes)[truth]
    scores[:, 3] = -1
    return np.eye(classes)[truth], scores


def _means(truth, decided, present):
    """scikit-learn's three rates and three means: absent classes in the micro figures alone, what is 0 / 0 in none."""
    figures = {}
    for mean in ("macro", "micro", "weighted"):
        labels = None if mean == "micro" else present
        rates = sklearn.metrics.precision_recall_fscore_support(truth, decided, average=mean, labels=labels, zero_division=np.nan)
        figures |= {f"{name}_{mean}": rate for name, rate in zip(("precision", "recall", "f1"), rates, strict=False)}
    return figures


@pytest.mark.parametrize("decimals", [None, 1, 0], ids=lambda decimals: f"decimals={decimals}")
def test_no_other_threshold_has_a_greater_f1(decimals):
    y_true, scores = _problem(tracks=40, decimals=decimals)
    thresholds = decisions.tune_thresholds(y_true, scores)
    for label in (0, 1, 3, 4):
        of = {one: sklearn.metrics.f1_score(y_true[:, label], scores[:, label] >= one) for one in np.unique(scores[:, label])}
        best = max(of.values())
        highest = max(one for one, f1 in of.items() if f1 == pytest.approx(best, abs=1e-12))
        np.testing.assert_array_equal(scores[:, label] >= thresholds[label], scores[:, label] >= highest)
    assert thresholds[2] == 0.5 and decisions.tune_thresholds(y_true, scores, default=0.7)[2] == 0.7


def test_of_equal_f1_the_highest_threshold():
    """True, false, false, true from the top: F1 2/3 of the first alone, and 4/6 of all four."""
    y_true, scores = np.array([[1], [0], [0], [1]]), np.array([[4.0], [3], [2], [1]])
    assert decisions.tune_thresholds(y_true, scores) == [3.5]


def test_threshold_of_calibrated_probabilities_is_half_of_f1():
    """Uniform scores p, true with chance p: F1(t) = (1 - t^2) / (3/2 - t), greatest at t = (3 - sqrt 5) / 2 = .382, where it is 2 t."""
    random = np.random.default_rng(0)
    scores = random.random((200_000, 1))
    y_true = random.random(scores.shape) < scores
    threshold = decisions.tune_thresholds(y_true, scores)
    assert threshold == pytest.approx([(3 - 5**0.5) / 2], abs=0.02)
    assert decisions.decide(y_true, scores, threshold, resamples=0, seed=0)["f1_macro"] == pytest.approx(3 - 5**0.5, abs=0.005)


def test_thresholds_at_the_edges():
    """Constant scores: decide always, so the score itself. Neighbours among the floats: the upper one. One track: its score."""
    assert decisions.tune_thresholds(np.array([[0], [1]]), np.full((2, 1), 0.25)) == [0.25]
    upper = np.nextafter(1.0, 2.0)
    assert decisions.tune_thresholds(np.array([[0], [1]]), np.array([[1.0], [upper]])) == [upper]
    assert decisions.tune_thresholds(np.array([[1]]), np.array([[-3.0]])) == [-3.0]
    np.testing.assert_allclose(decisions.tune_thresholds(np.array([[0], [1]]), np.array([[-1.7e308], [1.7e308]])), [0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("decimals", [None, 1], ids=lambda decimals: f"decimals={decimals}")
def test_decide_equals_scikit_learn(dtype, decimals):
    y_true, scores = _problem(decimals=decimals)
    scores, thresholds = scores.astype(dtype), np.array([0.5, 0.3, 0.6, 0.5, 0.4]).astype(dtype)
    decided = (scores >= thresholds).astype(int)
    report = decisions.decide(y_true, scores, thresholds, resamples=0, seed=0)
    expected = _means(y_true, decided, present=[0, 1, 3, 4])
    np.testing.assert_allclose([report[name] for name in expected], list(expected.values()), rtol=1e-12)
    assert report["accuracy"] == pytest.approx(1 - sklearn.metrics.hamming_loss(y_true, decided))
    assert report["subset_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(y_true, decided))
    rates = sklearn.metrics.precision_recall_fscore_support(y_true, decided, zero_division=np.nan)
    for name, rate in zip(("precision", "recall", "f1"), rates, strict=False):
        rate[2] = np.nan  # absent: scikit-learn's precision and F1 are 0
        np.testing.assert_allclose(np.array(report[f"{name}_per_class"], float), rate, rtol=1e-12)
    assert report["positives"] == rates[3].tolist() and report["decided"] == decided.sum(axis=0).tolist()
    assert (report["classes"], report["absent"]) == (5, 1)


def test_a_class_that_nothing_is_decided_for_has_no_precision_and_no_f1_to_be_proud_of():
    """Labels: two of two found; none of one found. Precision 1 and none, recall 1 and 0, F1 1 and 0. Absent: not even a false alarm is its own."""
    y_true, scores = np.array([[1, 0, 0], [1, 1, 0]]), np.array([[0.9, 0.1, 0.9], [0.9, 0.1, 0.1]])
    report = decisions.decide(y_true, scores, np.full(3, 0.5), resamples=0, seed=0)
    rates = [report[f"{name}_per_class"] for name in ("precision", "recall", "f1")]
    assert rates == [[1.0, None, None], [1.0, 0.0, None], [1.0, 0.0, None]]
    assert [report[f"{name}_macro"] for name in ("precision", "recall", "f1")] == [1.0, 0.5, 0.5]
    assert report["precision_micro"] == pytest.approx(2 / 3)  # the false alarm counts here
    assert report["f1_weighted"] == pytest.approx(2 / 3) and report["accuracy"] == pytest.approx(4 / 6)


def test_one_of_equals_scikit_learn():
    y_true, scores = _one_of_problem()
    truth, chosen = y_true.argmax(axis=1), scores.argmax(axis=1)
    report = decisions.one_of(y_true, scores, resamples=0, seed=0)
    expected = _means(truth, chosen, present=[0, 1, 3, 4])
    np.testing.assert_allclose([report[name] for name in expected], list(expected.values()), rtol=1e-12)
    recalls = sklearn.metrics.recall_score(truth, chosen, labels=[0, 1, 3, 4], average=None)
    assert report["balanced_accuracy"] == pytest.approx(recalls.mean(), rel=1e-12) == report["recall_macro"]
    assert report["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, chosen)) == report["f1_micro"]
    assert report["confusion"] == sklearn.metrics.confusion_matrix(truth, chosen, labels=range(5)).tolist()
    assert report["precision_per_class"][2:4] == [None, None] and report["recall_per_class"][2:4] == [None, 0.0]
    assert report["positives"] == y_true.sum(axis=0).tolist() and report["absent"] == 1
    shares = sklearn.metrics.confusion_matrix(truth, chosen, labels=range(5), normalize="true")
    shares[2] = np.nan  # scikit-learn's 0
    np.testing.assert_allclose(decisions.row_shares(report["confusion"]), shares, rtol=1e-12)


def test_one_of_with_every_class_equals_balanced_accuracy():
    random = np.random.default_rng(0)
    truth, scores = np.arange(60) % 3, random.random((60, 3))
    report = decisions.one_of(np.eye(3)[truth], scores, resamples=0, seed=0)
    assert report["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(truth, scores.argmax(axis=1)))


def test_tied_scores_choose_the_first_class():
    assert decisions.one_of(np.eye(3), np.zeros((3, 3)), resamples=0, seed=0)["confusion"] == [[1, 0, 0]] * 3


@pytest.mark.parametrize("block", [1 << 18, 7 * 30], ids=["one block", "seven tracks a block"])
def test_bootstrap_equals_resampling_by_hand(block, monkeypatch):
    """The same draws, each scored from scratch; 30 tracks, so that classes lose their positives at times."""
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    y_true, scores = _problem(tracks=30)
    thresholds = np.full(5, 0.45)
    one_hot, of_one = _one_of_problem(tracks=30)
    drawn = np.random.default_rng(5).integers(30, size=(60, 30))
    for figures, names in (
        (lambda rows, resamples: decisions.decide(y_true[rows], scores[rows], thresholds, resamples, seed=5), ("f1_macro", "f1_micro")),
        (lambda rows, resamples: decisions.one_of(one_hot[rows], of_one[rows], resamples, seed=5), ("accuracy", "balanced_accuracy", "f1_macro")),
    ):
        report, by_hand = figures(slice(None), 60), [figures(tracks, 0) for tracks in drawn]
        for name in names:
            values = np.array([one[name] for one in by_hand])
            expected = 2 * report[name] - values.mean() + np.array([-1.96, 1.96]) * values.std()
            np.testing.assert_allclose(report[f"{name}_interval"], expected.clip(0, 1), rtol=0, atol=1e-4)


def test_interval_of_accuracy_is_as_wide_as_theory():
    """The deviation of a share of n tracks is sqrt(a (1 - a) / n)."""
    y_true, scores = _one_of_problem(tracks=500)
    report = decisions.one_of(y_true, scores, resamples=1000, seed=0)
    low, high = report["accuracy_interval"]
    deviation = np.sqrt(report["accuracy"] * (1 - report["accuracy"]) / 500)
    assert (high - low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("resamples", [0, 3])
def test_reports_are_json_also_of_one_track_and_of_no_positives(resamples):
    for report in (
        decisions.decide(*_problem(), np.full(5, 0.5), resamples, seed=0),
        decisions.decide([[0, 0]], [[0.1, 0.9]], [0.5, 0.5], resamples, seed=0),
        decisions.one_of(*_one_of_problem(), resamples, seed=0),
        decisions.one_of([[0, 1]], [[0.1, 0.9]], resamples, seed=0),
    ):
        assert json.loads(json.dumps(report, allow_nan=False)) == report
    nothing = decisions.decide([[0, 0]], [[0.1, 0.9]], [0.5, 0.5], resamples, seed=0)
    assert (nothing["f1_macro"], nothing["recall_micro"], nothing["f1_macro_interval"], nothing["absent"]) == (None, None, None, 2)
    assert (nothing["precision_micro"], nothing["accuracy"]) == (0.0, 0.5)  # one decision, and it is wrong
    one = decisions.one_of([[0, 1]], [[0.1, 0.9]], resamples, seed=0)
    assert (one["accuracy"], one["balanced_accuracy"], one["confusion"]) == (1.0, 1.0, [[0, 0], [0, 1]])
    assert one["accuracy_interval"] == ([1.0, 1.0] if resamples else None)


def test_bad_arguments():
    y_true, scores = _problem(tracks=3)
    for call, message in (
        (lambda: decisions.tune_thresholds(y_true, np.full(y_true.shape, -np.inf)), "scores must be finite, got -inf"),
        (lambda: decisions.tune_thresholds(2 * y_true + 2, scores), "y_true must be 0 or 1, got 2"),
        (lambda: decisions.decide(y_true, scores, [0.5], 0, 0), r"thresholds must be 5 numbers, one a class, got shape \(1,\)"),
        (lambda: decisions.decide(y_true, scores, [np.nan] * 5, 0, 0), "thresholds must be 5 numbers"),
        (lambda: decisions.decide(y_true, scores, [0.5] * 5, -1, 0), "resamples must be >= 0, got -1"),
        (lambda: decisions.one_of([[1, 0], [1, 1]], np.ones((2, 2)), 0, 0), "y_true must have one class a track, got 2 in track 1"),
        (lambda: decisions.one_of(np.eye(2), np.full((2, 2), np.nan), 0, 0), "scores must be numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
