"""What the pictures are drawn from, against scikit-learn; every picture is drawn, with classes nobody has and labels that look like formulas."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tfmusic import decisions, metrics, page, pictures, regression, retrieval, tables


def drawn(seed=0, tracks=60, classes=5):
    """Labels and scores with ties; the last class is absent, the first is everywhere."""
    random = np.random.default_rng(seed)
    y_true = random.random((tracks, classes)) < np.linspace(0.6, 0.1, classes)
    y_true[:, 0], y_true[:, -1] = True, False
    scores = np.round(random.random((tracks, classes)) + 0.3 * y_true, 1)
    return y_true, scores


@pytest.mark.parametrize("column", [1, 2, 3])
def test_thresholds_are_those_of_scikit_learn(column):
    """Shares of negatives and positives found at every threshold, ties at once; precision at the same, highest threshold first."""
    y_true, scores = drawn()
    hits, found = pictures.thresholded(y_true[:, column], scores[:, column])
    false, true, _ = sklearn_metrics.roc_curve(y_true[:, column], scores[:, column], drop_intermediate=False)
    np.testing.assert_allclose((found - hits) / (found[-1] - hits[-1]), false)
    np.testing.assert_allclose(hits / hits[-1], true)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(y_true[:, column], scores[:, column])
    np.testing.assert_allclose((hits[1:] / found[1:])[::-1], precision[:-1])
    np.testing.assert_allclose((hits[1:] / hits[-1])[::-1], recall[:-1])


def test_the_drawn_curves_enclose_the_figures():
    """The area below the ROC polygon is ROC-AUC, that below the steps of precision is average precision."""
    y_true, scores = drawn()
    roc, precision = pictures.roc_and_precision(y_true, scores, list("abcde")).axes
    curves = {line.get_label()[0]: line.get_xydata() for line in roc.lines[1:]}
    assert [*curves] == ["b", "c", "d"]  # a has no negative, e no positive
    for column, (name, points) in enumerate(curves.items(), start=1):
        truth, values = y_true[:, [column]], scores[:, [column]]
        assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(metrics.roc_auc(truth, values)[0]), name
        steps = precision.lines[column - 1].get_xydata()
        assert (np.diff(steps[:, 0]) * steps[1:, 1]).sum() == pytest.approx(metrics.average_precision(truth, values)[0]), name


def test_twelve_curves_of_most_positives():
    assert pictures.most_frequent([*range(20)], tracks=19) == [*range(18, 6, -1)]  # 0 has no positive, 19 no negative


def test_a_confusion_matrix_counts_and_colours_by_the_row():
    """Rows of 4 and 1 tracks: colour .75, .25 and 0, 1; a class without tracks is white; zeros are not written."""
    axes = pictures.confusion([[3, 1, 0], [0, 1, 0], [0, 0, 0]], ["$a$", "b_b", "c"]).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert [text.get_text() for text in axes.texts] == ["3\n75%", "1\n25%", "1\n100%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$a$ (4)", "b_b (1)", "c (0)"]


def test_a_scatter_leaves_out_what_is_unknown_and_tells_the_figures():
    truth, predicted = np.array([[0.0, 1], [1, np.nan], [2, 3]]), np.array([[0.5, 1], [1, 2], [1, 4]])
    figures = regression.figures(truth, predicted, ["energy", "valence"], resamples=0, seed=0)
    first, second = pictures.scatter(truth, predicted, figures).axes
    np.testing.assert_array_equal(first.lines[0].get_xydata(), [[0, 0.5], [1, 1], [2, 1]])
    np.testing.assert_array_equal(second.lines[0].get_xydata(), [[1, 1], [3, 4]])
    assert first.get_title() == "energy, 3 tracks\nR2 0.375, Spearman 0.866, MSE 0.417"


@pytest.mark.parametrize("history", [[], [{"epoch": 0, "loss": 1.0, "val_loss": 2.0, "val_r2": -3.0, "val_mse": 5e4, "val_map": math.nan}]])
def test_curves_of_any_history(history):
    figure = pictures.curves(history, "val_r2", ["r2", "mse", "map"])
    assert len(figure.axes) == 2 + bool(history)  # MSE has its own scale
    if history:
        assert [line.get_label() for line in figure.axes[0].lines[:2]] == ["loss", "val_loss"] and figure.axes[1].get_ylim() == (-1, 1)
    assert page.png(figure).startswith(b"\x89PNG")


def test_bars_side_by_side_are_sorted_by_what_was_gained():
    """c gained .3, a lost .1; b has no figure in one of the runs. Bars are drawn from below."""
    axes = pictures.side_by_side(["a", "b", "c"], {"old": [0.5, None, 0.2], "new": [0.4, 0.3, 0.5]}, "AP").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a  -0.100", "c  +0.300"]
    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[0.5, 0.2], [0.4, 0.5]]


def test_every_figure_has_a_name():
    of_decisions = [name for name in decisions.one_of(np.eye(2), np.eye(2), 1, 0) if name.endswith("_interval")]
    names = {*metrics.FIGURES, *regression.BOUNDS, *retrieval.FIGURES, *(name.removesuffix("_interval") for name in of_decisions)}
    assert names <= {*tables.NAMES} and tables.KS == retrieval.KS


def test_tables_are_escaped():
    assert "<b>" not in page.table([["a"], ["<b>"]]) and page.markdown([["a|b", ""]]) == "| a&#124;b |   |\n| --- | --- |"
