"""Runs side by side, and runs of one kind together, without a model: only what evaluation keeps."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from tests.conftest import ROOT, finished_run
from tfmusic import bootstrap, decisions, metrics, run
from tfmusic.compare import compare, difference
from tfmusic.config import InputError
from tfmusic.summary import student_t, summary, text

LABELS = ["a", "b", "c"]
TRACKS = 40


def scored(seed, noise):
    """Truth of three labels and scores that know it, more or less."""
    y_true = np.random.default_rng(0).random((TRACKS, 3)) < 0.4
    return y_true, y_true + np.random.default_rng(seed).normal(0, noise, y_true.shape)


def made(directory, seed=1, noise=1.0, order=None, labels=LABELS, **changes):
    """A tagger's run: its figures, and its scores in an order of the tracks."""
    y_true, scores = scored(seed, noise)
    figures = metrics.ranking(y_true, scores, 20, 0) | decisions.decide(y_true, scores, np.full(3, 0.5), 20, 0)
    ids, order = np.array([f"track{i:02d}" for i in range(TRACKS)]), np.arange(TRACKS) if order is None else order
    kept = {"ids": ids[order], "groups": ids[order], "y_true": y_true[order], "scores": scores[order]}
    return finished_run(directory, figures | {"tracks": TRACKS, "windows": TRACKS, "hop_s": 1.0, "labels": list(labels)}, kept, **changes)


def test_a_difference_is_scored_on_the_same_draws_of_tracks(tmp_path):
    """Against scikit-learn on the drawn tracks themselves: the interval is that of the differences of each draw, bias taken off."""
    runs = [made(tmp_path / "a"), made(tmp_path / "b", seed=2, noise=0.5)]
    first, other = (run.outputs(one) for one in runs)
    first_figures, other_figures = (run.figures(one)["test"] for one in runs)
    found = difference(first, first_figures, other, other_figures, resamples=30, seed=3)
    assert found["roc_auc"] == pytest.approx(other_figures["roc_auc"] - first_figures["roc_auc"])

    truth, auc, f1, accuracy = first["y_true"], [], [], []
    for weights in np.concatenate([*bootstrap.draws(TRACKS, 30, 3)]):
        rows = np.repeat(np.arange(TRACKS), weights)
        of_runs = [(roc_auc_score(truth[rows], scores[rows]), f1_score(truth[rows], scores[rows] >= 0.5, average="macro"))
                   for scores in (first["scores"], other["scores"])]  # fmt: skip
        auc.append(of_runs[1][0] - of_runs[0][0])
        f1.append(of_runs[1][1] - of_runs[0][1])
        right = [((scores[rows] >= 0.5) == truth[rows]).mean() for scores in (first["scores"], other["scores"])]
        accuracy.append(right[1] - right[0])
    for name, drawn in (("roc_auc", auc), ("f1_macro", f1), ("accuracy", accuracy)):
        centre, reach = 2 * found[name] - np.mean(drawn), 1.959964 * np.std(drawn)
        np.testing.assert_allclose(found[f"{name}_interval"], [centre - reach, centre + reach], atol=1e-6)


def test_the_order_of_the_tracks_does_not_matter_and_a_run_against_its_copy_differs_by_nothing(tmp_path):
    """The same scores, tracks shuffled: a difference of exactly 0, with an interval of exactly 0."""
    runs = [made(tmp_path / "x" / "run"), made(tmp_path / "y" / "run", order=np.random.default_rng(5).permutation(TRACKS))]
    printed, path = compare(runs, tmp_path / "page.html", resamples=20)
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert "x/run" in printed and "y/run - x/run" in printed  # names that tell them apart
    assert rows["ROC-AUC"].endswith("0.000 [0.000, 0.000]") and rows["F1, macro"].endswith("0.000 [0.000, 0.000]")
    assert path.read_text().count("data:image/png;base64,") == 3  # ROC-AUC, average precision, F1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a", "b", "d"]}, "must have the labels of .*first, 3 such as c, got 3 such as d"),
        ({"task": "multitask"}, "must have the task of .*first, tagging, got multitask"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, change, message):
    first = made(tmp_path / "first")
    with pytest.raises(InputError, match=message):
        compare([first, made(tmp_path / "second", **change)])
    with pytest.raises(InputError, match=message):
        summary([first, tmp_path / "second"])


def test_other_tracks_and_other_truth_are_refused(tmp_path):
    """Of 40 tracks, the first 39 are in both; then all are, but one of them has another label."""
    first, second = made(tmp_path / "first"), made(tmp_path / "second")
    kept = run.outputs(second)
    kept["ids"][39] = "track99"
    np.savez(second / run.EMBEDDINGS, **kept)
    with pytest.raises(InputError, match="got 1 others such as track99, 1 missing such as track39"):
        compare([first, second])
    kept["ids"][39], kept["y_true"] = "track39", ~kept["y_true"]
    np.savez(second / run.EMBEDDINGS, **kept)
    with pytest.raises(InputError, match="y_true of the test tracks"):
        compare([first, second])
    for call in (compare, summary):
        with pytest.raises(InputError, match="must be different ones, got .* twice"):
            call([first, tmp_path / "second" / ".." / "first"])
    (second / run.METRICS).unlink()
    with pytest.raises(InputError, match="finish it with: python train.py --resume"):
        compare([first, second])


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 201])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_t_is_that_of_scipy(level, degrees):
    assert student_t(level, degrees) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


def test_folds_are_summarised_with_their_t_interval(tmp_path):
    """Accuracies .7 .8 .9 of three folds: mean .8, std .1, half width 4.302653 * .1 / sqrt(3) = .248414; .8 + it is above 1 and cut there."""
    values = {"accuracy": [0.7, 0.8, 0.9], "mse": [1.0, None, 3.0]}
    runs = [
        finished_run(tmp_path / str(fold), {name: row[fold] for name, row in values.items()} | {"tracks": 5 + fold, "labels": LABELS}, {"ids": []})
        for fold in range(3)
    ]
    found = summary(runs)
    assert found["figures"]["accuracy"]["mean"] == pytest.approx(0.8) and found["figures"]["accuracy"]["std"] == pytest.approx(0.1)
    np.testing.assert_allclose(found["figures"]["accuracy"]["interval"], [0.8 - 0.248414, 1.0], atol=1e-6)
    np.testing.assert_allclose(found["figures"]["mse"]["interval"], [0, 2 + 12.7062 * 2**0.5 / 2**0.5], rtol=1e-5)  # of the two that have one
    assert found["tracks"] == [5, 6, 7] and "0.800  0.100  [0.552, 1.000]" in text(found) and json.dumps(found)
    alone = summary(runs[:1])["figures"]["accuracy"]
    assert alone == {"mean": 0.7, "std": None, "interval": None, "values": [0.7]}


def test_seeds_of_a_fold_are_one_observation(tmp_path):
    """Two seeds of each of two folds: fold means .7 and .9, so mean .8, std .141421, half width 12.7062 * .1; not that of four runs."""
    runs = []
    for number, accuracy in enumerate((0.6, 0.8, 0.85, 0.95)):
        place = tmp_path / f"fold{number // 2}" / f"seed{number % 2}"
        runs.append(finished_run(place, {"accuracy": accuracy, "tracks": 5, "labels": LABELS}, {"ids": []}, fit={"seed": number % 2}))
    found = summary(runs)
    assert found["folds"] == 2 and found["figures"]["accuracy"]["values"] == [0.6, 0.8, 0.85, 0.95]
    assert found["figures"]["accuracy"]["mean"] == pytest.approx(0.8) and found["figures"]["accuracy"]["std"] == pytest.approx(0.02**0.5)
    assert found["figures"]["accuracy"]["interval"] == [0, 1] and "t interval over 2 folds, each the mean of its runs" in text(found)


def test_settings_that_differ_are_named(tmp_path):
    runs = [made(tmp_path / "a"), made(tmp_path / "b", seed=2, fit={"epochs": 4, "seed": 7})]
    assert summary(runs)["differing"]["fit.seed"] == ["0", "7"]


def test_the_verbs_need_no_tensorflow_and_say_mistakes_in_a_line(tmp_path):
    made(tmp_path / "a"), made(tmp_path / "b", seed=2)
    code = "import sys, runpy\nsys.argv = ['tfmusic', *{argv!r}]\nrunpy.run_module('tfmusic', run_name='__main__')\n"
    code += "assert not {{'tensorflow', 'keras', 'scipy'}} & set(sys.modules)"
    for argv in (["compare", "a", "b", "--resamples", "20"], ["summary", "a", "b"]):
        done = subprocess.run(
            [sys.executable, "-c", code.format(argv=argv)], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode == 0 and "ROC-AUC" in done.stdout, done.stderr
    assert (tmp_path / "compare-a-b.html").is_file()
    done = subprocess.run([sys.executable, "-m", "tfmusic", "compare", str(tmp_path / "a")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "error: runs to compare must be two or more, got 1\n"
