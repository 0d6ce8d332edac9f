"""regression: scikit-learn and scipy are the reference, with ties, unknown and constant targets; the bootstrap against resamples by hand."""

import json
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from tfmusic import bootstrap, regression

NAMES = ("valence", "energy", "danceability")


def _problem(tracks=150, decimals=None, unknown=0.2, seed=0):
    """Predictions that know a little of the first, nothing of the second, and the third on another scale."""
    random = np.random.default_rng(seed)
    y_true = random.normal(size=(tracks, 3))
    predicted = random.normal(size=(tracks, 3)) + y_true * [1, 0, 5] + [0, 0, 100]
    if decimals is not None:
        y_true, predicted = y_true.round(decimals), predicted.round(decimals)
    y_true[random.random((tracks, 3)) < unknown] = np.nan
    return y_true, predicted


def _reference(truth, predicted):
    known = ~np.isnan(truth)
    truth, predicted = truth[known], predicted[known]
    return {
        "mse": sklearn.metrics.mean_squared_error(truth, predicted),
        "r2": sklearn.metrics.r2_score(truth, predicted),
        "spearman": scipy.stats.spearmanr(truth, predicted).statistic,
        "pearson": scipy.stats.pearsonr(truth, predicted).statistic,
    }


@pytest.mark.parametrize("decimals", [None, 1, 0], ids=lambda decimals: f"decimals={decimals}")
@pytest.mark.parametrize("unknown", [0, 0.5])
def test_equal_to_scikit_learn_and_scipy(decimals, unknown):
    y_true, predicted = _problem(decimals=decimals, unknown=unknown)
    report = regression.figures(y_true, predicted, NAMES, resamples=0, seed=0)
    expected = [_reference(*columns) for columns in zip(y_true.T, predicted.T, strict=True)]
    for name in regression.BOUNDS:
        np.testing.assert_allclose(report[f"{name}_per_target"], [one[name] for one in expected], rtol=1e-10)
        assert report[name] == pytest.approx(np.mean([one[name] for one in expected]), rel=1e-10)
    assert report["targets"] == list(NAMES) and report["known"] == (~np.isnan(y_true)).sum(axis=0).tolist() and report["absent"] == 0


def test_order_is_spearmans_alone():
    """exp keeps the order: Spearman stays 1 and Pearson falls; the reverse is -1. R2 of the mean is 0, and of its double offset -1 more."""
    truth = np.linspace(0, 5, 30)[:, None]
    report = regression.figures(np.tile(truth, 2), np.hstack([np.exp(truth), -truth]), NAMES[:2], resamples=0, seed=0)
    assert report["spearman_per_target"] == [1.0, -1.0]
    assert report["pearson_per_target"][0] < 0.9 and report["pearson_per_target"][1] == pytest.approx(-1)
    middle = np.full_like(truth, truth.mean())
    report = regression.figures(np.tile(truth, 2), np.hstack([middle, middle + truth.std()]), NAMES[:2], resamples=0, seed=0)
    np.testing.assert_allclose(report["r2_per_target"], [0, -1], atol=1e-12)


@pytest.mark.parametrize("level", [0.1, 1e6])
@pytest.mark.parametrize("resamples", [0, 40])
def test_what_does_not_exist_is_none_and_in_no_mean(level, resamples):
    """Constant prediction: no correlation, but R2. Constant truth: neither. Known nowhere: nothing. Warnings are errors: no 0 / 0 slips through."""
    truth = np.arange(6.0)
    y_true = np.stack([truth, truth, np.full(6, level), np.full(6, np.nan)], axis=1)
    predicted = np.stack([truth, np.full(6, level), truth, truth], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = regression.figures(y_true, predicted, "abcd", resamples, seed=0)
    assert report["spearman_per_target"] == [1.0, None, None, None]
    assert report["pearson_per_target"] == [pytest.approx(1), None, None, None]
    assert report["r2_per_target"][2:] == [None, None] and report["mse_per_target"][3] is None
    assert report["spearman"] == 1.0 and report["known"] == [6, 6, 6, 0] and report["absent"] == 1
    assert report["mse"] == pytest.approx(np.mean(report["mse_per_target"][:3]))
    assert report["spearman_interval_per_target"] == [[1.0, 1.0] if resamples else None, None, None, None]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize("tracks", [1, 2])
def test_few_tracks(tracks):
    """One track has an error and nothing else; two lie on a line."""
    y_true = np.array([[1.0], [2.0]])[:tracks]
    report = regression.figures(y_true, 3 * y_true, ["energy"], resamples=5, seed=0)
    assert report["mse"] == np.mean((2 * y_true) ** 2)
    assert report["spearman"] == (None if tracks == 1 else 1.0) and (report["r2"] is None) == (tracks == 1)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize("block", [1 << 18, 7 * 25], ids=["one block", "seven tracks a block"])
@pytest.mark.parametrize("decimals", [None, 0], ids=lambda decimals: f"decimals={decimals}")
def test_bootstrap_equals_resampling_by_hand(block, decimals, monkeypatch):
    """The same draws, each scored by scikit-learn and scipy."""
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    y_true, predicted = _problem(tracks=25, decimals=decimals)
    report = regression.figures(y_true, predicted, NAMES, resamples=50, seed=5)
    drawn = np.random.default_rng(5).integers(25, size=(50, 25))
    by_hand = [[_reference(*columns) for columns in zip(y_true[rows].T, predicted[rows].T, strict=True)] for rows in drawn]
    for name, bounds in regression.BOUNDS.items():
        values = np.array([[one[name] for one in row] for row in by_hand])  # (resamples, targets)
        for estimate, resampled, interval in (
            (report[name], values.mean(axis=1), report[f"{name}_interval"]),
            *zip(report[f"{name}_per_target"], values.T, report[f"{name}_interval_per_target"], strict=True),
        ):
            expected = 2 * estimate - resampled.mean() + np.array([-1.959964, 1.959964]) * resampled.std()
            np.testing.assert_allclose(interval, expected.clip(*bounds), rtol=1e-5, atol=1e-6)


def test_interval_of_a_correlation_is_as_wide_as_theory():
    """Of normal variables the deviation of Pearson's is (1 - r^2) / sqrt(n), and that of Spearman's a little more, 1.06 times at r = 0."""
    random = np.random.default_rng(0)
    truth = random.normal(size=(1000, 1))
    report = regression.figures(truth, truth + random.normal(size=truth.shape), ["energy"], resamples=500, seed=0)
    low, high = report["pearson_interval"]
    assert (high - low) / (2 * 1.96 * (1 - report["pearson"] ** 2) / np.sqrt(1000)) == pytest.approx(1, abs=0.15)
    low, high = report["spearman_interval"]
    assert low < report["spearman"] < high and 0.9 < (high - low) / np.diff(report["pearson_interval"])[0] < 1.4


def test_bad_arguments():
    ones = np.ones((2, 1))
    for arguments, message in (
        ((np.ones(2), np.ones(2), ["a"], 0, 0), r"y_true must be of shape \(tracks, targets\), got \(2,\)"),
        ((np.ones((0, 1)), np.ones((0, 1)), ["a"], 0, 0), r"y_true must be of shape .* got \(0, 1\)"),
        ((ones, np.ones((2, 2)), ["a"], 0, 0), r"predicted must be of the shape of y_true, \(2, 1\), got \(2, 2\)"),
        ((ones, ones, ["a", "b"], 0, 0), "names must be 1, one a target, got 2"),
        ((np.inf * ones, ones, ["a"], 0, 0), "y_true must be finite, got inf in target 'a'"),
        ((ones, np.nan * ones, ["a"], 0, 0), "predicted must be finite, got nan in target 'a'"),
        ((ones, ones, ["a"], -1, 0), "resamples must be >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            regression.figures(*arguments)
