"""Every task from records to figures: what is learnt, logged, decided and shipped."""

import json
import re

import numpy as np
import pytest
from sklearn.metrics import f1_score
from tensorboard.backend.event_processing import event_accumulator

from export.bundle import bundle
from export.predict import Predictor
from tests.conftest import EXPERIMENT
from tfmusic import data, evaluate, models, report, run, schema, tables, tasks, training
from tfmusic.config import Experiment, InputError


def experiment(task, **changes):
    """The suite's small experiment for another task."""
    fit = EXPERIMENT.fit.model_dump() | {"monitor": f"val_{tasks.TASKS[task].watched[0]}"} | changes.pop("fit", {})
    return Experiment.model_validate(EXPERIMENT.model_dump() | {"task": task, "fit": fit} | changes)


@pytest.fixture(scope="module")
def runs(one_label, records, tmp_path_factory):
    """One run of each kind of output."""
    directory = tmp_path_factory.mktemp("tasks")
    crossentropy = {"loss": {"name": "crossentropy"}}
    return {
        "genre": training.fit(experiment("genre", **crossentropy), one_label, directory / "genre"),
        "emotion": training.fit(experiment("emotion"), one_label, directory / "emotion"),
        "multitask": training.fit(experiment("multitask", **crossentropy, targets=("noise",)), one_label, directory / "multitask"),
    }


def figures(directory, split="test"):
    return json.loads((directory / run.METRICS).read_text())[split]


def scored(directory, split="test"):
    info = run.read(directory)
    return evaluate.score_split(
        evaluate.scorer(evaluate.load_best(directory)), info.records, schema.read_manifest(info.records), split, info.experiment
    )


def test_one_label_of_all_is_learnt_as_a_distribution(runs):
    """High against low: scores sum to 1, accuracy is the share of tracks whose greatest score is right, and a net that learns has nearly all."""
    found, tracks = figures(runs["genre"]), scored(runs["genre"])
    np.testing.assert_allclose(tracks.outputs["tags"].sum(axis=1), 1, atol=1e-5)
    assert found["accuracy"] == np.mean(tracks.outputs["tags"].argmax(1) == tracks.y_true.argmax(1)) > 0.85
    assert np.sum(found["confusion"]) == found["tracks"] == 16
    history = (runs["genre"] / run.HISTORY).read_text().splitlines()[0].split(",")
    assert {"val_accuracy", "val_balanced_accuracy", "val_f1_macro", "val_roc_auc", "val_map", "val_d_prime", "val_lwlrap"} < {*history}


def test_numbers_are_learnt_in_their_own_units_where_they_are_known(runs):
    """Pitch of 2250 or 325 Hz: knowing the tag explains all of it; R2 against the known tracks alone."""
    found, tracks = figures(runs["emotion"]), scored(runs["emotion"])
    known = ~np.isnan(tracks.targets[:, 0])
    truth, predicted = tracks.targets[known, 0], tracks.outputs["targets"][known, 0]
    np.testing.assert_allclose(found["r2_per_target"][0], 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum(), rtol=1e-5)
    assert found["r2_per_target"][0] > 0.5 and 0 < known.sum() < len(known)
    assert "tags" not in tracks.outputs


def test_two_heads_learn_side_by_side(runs):
    found, tracks = figures(runs["multitask"]), scored(runs["multitask"])
    assert tracks.outputs.keys() == {"tags", "targets", "embedding"} and tracks.outputs["targets"].shape == (16, 1)
    assert found["accuracy"] > 0.85 and found["r2"] > 0.3
    history = (runs["multitask"] / run.HISTORY).read_text().splitlines()[0].split(",")
    assert {"loss", "val_map", "val_accuracy", "val_r2", "val_spearman", "val_mse"} <= {*history}


def test_the_weight_of_numbers_is_that_of_the_setting():
    """Of a net with both heads, what --loss.targets-weight says for each target; labels weigh 1."""
    net = models.build(EXPERIMENT.net, (32, 16), 2, targets=[(0.0, 1.0), (0.0, 2.0)])
    for task in ("multitask", "emotion"):
        settings = experiment(task, loss={"targets_weight": (0.25, 4.0)})
        loss, weight = tasks.TASKS[task].trainee(net, settings, None, [1, 1])[1]["targets"]
        assert float(loss([[1.0, 0.0]], [[0.0, 2.0]])) * weight == pytest.approx((0.25 * 1 + 4 * 1) / 2)


def test_as_many_weights_as_targets(one_label, tmp_path):
    with pytest.raises(InputError, match="--loss.targets-weight must be one number, or one for each of the 2 targets, got 3"):
        training.fit(experiment("emotion", loss={"targets_weight": (1.0, 2.0, 3.0)}), one_label, tmp_path / "run")


def test_a_fresh_head_for_numbers_begins_at_their_mean(one_label):
    """Mean of the known training tracks, not 0: the scaled layer begins around 0 and is moved and stretched behind it."""
    net = models.build(EXPERIMENT.net, (32, 16), 0, targets=[(100.0, 1e-3)])
    assert np.abs(np.asarray(net(np.random.default_rng(0).normal(size=(4, 32, 16)))["targets"]) - 100).max() < 0.1


def test_thresholds_of_validation_decide_on_the_test_split(trained):
    """F1 by scikit-learn of the decisions that the kept thresholds make; validation has no figure of its own decisions."""
    thresholds, tracks = run.thresholds(trained), scored(trained)
    found = figures(trained)
    decided = tracks.outputs["tags"] >= thresholds
    present = tracks.y_true.any(axis=0)
    expected = f1_score(tracks.y_true[:, present], decided[:, present], average="macro", zero_division=0)
    np.testing.assert_allclose(found["f1_macro"], expected, atol=1e-9)
    assert "f1_macro" not in figures(trained, "validation") and evaluate.evaluate(trained)["f1_macro"] == found["f1_macro"]


def test_the_greatest_window_may_stand_for_the_track(trained):
    """Mean and maximum over the windows of each test track, from the scores of single windows."""
    info = run.read(trained)
    score, manifest = evaluate.scorer(evaluate.load_best(trained)), schema.read_manifest(info.records)
    highest = info.experiment.evaluation.model_copy(update={"pool": "max"})
    tracks = list(data.tracks(info.records, manifest, "test"))
    mean, most = (evaluate.score_tracks(score, tracks, info.experiment.frontend, how) for how in (info.experiment.evaluation, highest))
    assert (most.outputs["tags"] >= mean.outputs["tags"] - 1e-7).all() and (most.outputs["tags"] > mean.outputs["tags"] + 1e-3).any()
    np.testing.assert_array_equal(most.outputs["embedding"], mean.outputs["embedding"])


@pytest.mark.parametrize(
    ("task", "shown", "absent"),
    [
        ("genre", ("Confusion", "Each label", "ROC and precision-recall of each label"), ("True and predicted numbers",)),
        ("emotion", ("True and predicted numbers",), ("Confusion", "Each label", "ROC and precision-recall of each label")),
        ("multitask", ("Confusion", "True and predicted numbers"), ("ROC and precision-recall of each family",)),
    ],
)
def test_the_report_shows_what_the_task_learnt(runs, task, shown, absent):
    """On the page and as texts and pictures of TensorBoard; the printed table has all watched figures of both splits."""
    printed = report.write(runs[task])
    page = (runs[task] / run.REPORT).read_text()
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert {*shown} <= {*headings} and not {*absent} & {*headings}
    watched = [name for name in tasks.TASKS[task].watched if name in figures(runs[task])]
    assert [line.split("  ")[0] for line in printed.splitlines()[1:]] == ["tracks", *(tables.NAMES[name] for name in watched)]
    assert all(line.count("[") == 2 for line in printed.splitlines()[2:])
    tags = event_accumulator.EventAccumulator(str(runs[task] / run.TENSORBOARD / "test")).Reload().Tags()["tensors"]
    assert {"Figures/text", "Training", *shown} <= {tag.removesuffix("/text") for tag in tags} | {*tags}


def test_scores_and_numbers_of_the_test_tracks_are_kept(runs, one_label):
    """embeddings.npz has what the model said of each test track, and only of what it learnt."""
    kept, tracks = run.outputs(runs["multitask"]), scored(runs["multitask"])
    np.testing.assert_array_equal(kept["scores"], tracks.outputs["tags"])
    np.testing.assert_array_equal(kept["targets"], tracks.outputs["targets"])
    np.testing.assert_array_equal(kept["targets_true"], tracks.targets[:, [1]])  # noise is the second target of the records
    assert "scores" not in run.outputs(runs["emotion"]) and "targets" not in run.outputs(runs["genre"])


def test_families_are_kept_and_drawn(trained):
    """A family of two labels: true where one of them is, scored as the higher; it has curves of its own beside those of the labels."""
    info = run.read(trained)
    manifest = schema.read_manifest(info.records).model_copy(update={"families": {"noisy": ("noise",), "rare": ("noise",)}})
    tracks, places = scored(trained), [manifest.labels.index(label) for label in ("noisy", "rare")]
    kept = evaluate.kept(tracks, manifest, info.experiment)
    np.testing.assert_array_equal(kept["families_true"][:, 0], tracks.y_true[:, places].any(axis=1))
    np.testing.assert_array_equal(kept["family_scores"][:, 0], tracks.outputs["tags"][:, places].max(axis=1))
    shown = report.Finished(info.experiment, manifest, {"validation": {}, "test": {"families": ["noise"]}}, kept, [])
    assert [exhibit.title for exhibit in report._curves(shown)] == [f"ROC and precision-recall of each {kind}" for kind in ("label", "family")]


@pytest.mark.parametrize("task", ["genre", "emotion", "multitask"])
def test_a_bundle_says_what_the_task_learnt(runs, task, collection, tmp_path):
    out = bundle(runs[task], tmp_path / "bundle")
    predictor = Predictor(out)
    prediction = predictor.file(collection / "test" / "47.flac")
    assert predictor.info.task == task and (task == "emotion") == ("tags" not in predictor.info.outputs)
    if task != "emotion":
        assert sum(prediction.ranked().values()) == pytest.approx(1, abs=1e-3) and next(iter(prediction.ranked())) == "high"
    if task != "genre":
        assert prediction.numbers().keys() == {"emotion": {"pitch", "noise"}, "multitask": {"noise"}}[task]
    if task == "emotion":
        assert prediction.numbers()["pitch"] > 1000
    assert ("r2" in (out / "card.md").read_text()) == (task != "genre")


def test_tracks_with_several_labels_are_no_classes(records, tmp_path):
    with pytest.raises(InputError, match="must have one label each.*--single"):
        training.fit(experiment("genre", loss={"name": "crossentropy"}), records, tmp_path / "run")


@pytest.mark.parametrize(("wanted", "message"), [(("loud",), "must have the targets that emotion learns, loud, got pitch"), ((), "")])
def test_targets_that_the_records_lack_are_named(records, tmp_path, wanted, message):
    if message:
        with pytest.raises(InputError, match=message):
            training.fit(experiment("emotion", targets=wanted), records, tmp_path / "run")
    else:
        assert data.target_columns(schema.read_manifest(records), experiment("emotion")) == [0]


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("genre", {}, "loss.name must be crossentropy for genre, got bce"),
        ("emotion", {"loss": {"name": "focal"}}, "loss.name must be bce for emotion"),
        ("tagging", {"targets": ("pitch",)}, "targets are for emotion and multitask"),
        ("tagging", {"loss": {"targets_weight": (2.0,)}}, "loss.targets_weight does nothing for tagging"),
        ("emotion", {"loss": {"targets_weight": (2.0,)}}, "loss.targets_weight does nothing for emotion"),
        ("tagging", {"frozen": "runs/x", "net": {"name": "mlp"}}, "frontend.n_fft does nothing for a frozen vector"),
        ("tagging", {"sequences": {}, "net": {"name": "lstm"}}, "frontend.window_s does nothing for sequences"),
        ("tagging", {"loss": {"focal_gamma": 3.0}}, "loss.focal_gamma does nothing for bce"),
        ("emotion", {"targets": ("pitch", "pitch")}, "targets must be different ones"),
        ("emotion", {"evaluation": {"pool": "max"}}, "evaluation.pool does nothing for emotion"),
        (
            "tagging",
            {"frozen": "runs/x", "frontend": {}, "net": {"name": "mlp"}, "augment": {"spec_augment": {"probability": 0.5}}},
            "augment.spec_augment does nothing for a frozen vector",
        ),
    ],
)
def test_settings_that_a_task_does_not_read_are_refused(task, changes, message):
    with pytest.raises(ValueError, match=message):
        experiment(task, **changes)


def test_a_loss_cannot_be_the_monitor(one_label, tmp_path):
    with pytest.raises(InputError, match="--fit.monitor must be one of val_r2, val_spearman for emotion, got val_mse"):
        training.fit(experiment("emotion", fit={"monitor": "val_mse"}), one_label, tmp_path / "run")


def test_a_genre_net_may_become_one_for_numbers(runs, one_label, tmp_path):
    """The reports' transfer from genre to energy: frozen layers stay, the others and the new head learn; the genres' head is not there."""
    begun = experiment("emotion", init=runs["genre"], freeze="norm2", fit={"epochs": 2, "init_learning_rate": 1e-3})
    directory = training.fit(begun, one_label, tmp_path / "run")
    (_, old, _), (_, new, _) = (models.parts(evaluate.load_best(one)) for one in (runs["genre"], directory))
    for layer in ("conv1", "norm1", "conv2", "norm2"):
        for before, after in zip(old.get_layer(layer).get_weights(), new.get_layer(layer).get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
    assert not np.array_equal(old.get_layer("conv3").get_weights()[0], new.get_layer("conv3").get_weights()[0])
    assert "logits" not in new.output and "targets" in new.output


def test_scores_of_labels_that_both_vocabularies_have_are_taken_over_by_name(trained, one_label, tmp_path):
    """The tagger's high, low, noisy, rare begin a run for high and low alone: its columns of these two, whatever the order."""
    begun = experiment("genre", init=trained, loss={"name": "crossentropy"}, fit={"epochs": 0})
    directory = training.fit(begun, one_label, tmp_path / "run")
    (_, old, _), (_, new, _) = (models.parts(evaluate.load_best(one)) for one in (trained, directory))
    columns = [["high", "low", "noisy", "rare"].index(label) for label in schema.read_manifest(one_label).labels]
    kernel, bias = old.get_layer("logits").get_weights()
    np.testing.assert_array_equal(new.get_layer("logits").get_weights()[0], kernel[:, columns])
    np.testing.assert_array_equal(new.get_layer("logits").get_weights()[1], bias[columns])
