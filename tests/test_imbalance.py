"""imbalance: scikit-learn's weights, numbers by hand, and what the stream really draws."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from scipy import stats
from sklearn.utils.class_weight import compute_class_weight

from tests.conftest import EXPERIMENT
from tests.test_data import AUGMENTED, take
from tfmusic import config, data, evaluate, imbalance, losses, models, recipes, run, schema, training
from tfmusic.config import InputError, Loss


def changed(experiment=EXPERIMENT, **sections):
    """The experiment with some fields of its sections set."""
    return config.Experiment.model_validate(
        experiment.model_dump() | {name: getattr(experiment, name).model_dump() | fields for name, fields in sections.items()}
    )


def long_tail(tracks=600, labels=8, seed=0):
    """0/1 labels of which each next one is about half as frequent, some tracks without any."""
    random = np.random.default_rng(seed)
    table = (random.random((tracks, labels)) < 0.5 ** np.arange(1, labels + 1)).astype(np.uint8)
    table[0] = 1
    return table


# --- weights ------------------------------------------------------------------------------------------------------------------------------
def test_weights_of_one_label_a_track_are_those_of_scikit_learn():
    label = np.random.default_rng(0).choice(5, 300, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    counts = np.bincount(label)
    expected = compute_class_weight("balanced", classes=np.arange(5), y=label)
    np.testing.assert_allclose(imbalance.class_weights(counts), expected)
    np.testing.assert_allclose(imbalance.class_weights(counts)[label].mean(), 1)


def test_weights_of_several_labels_a_track():
    """Counts 4, 0, 2 have the mean 3 over the labels that are there: 3/4, 3/1 (as if of one track), 3/2; the mean positive weighs (3 + 3) / 6."""
    weights = imbalance.class_weights([4, 0, 2])
    np.testing.assert_allclose(weights, [0.75, 3, 1.5])
    assert np.average(weights, weights=[4, 0, 2]) == 1


def test_alphas_weigh_positives_against_negatives_as_the_weights_do():
    """w = 1, 3: a = 1/2, 3/4. With gamma 0, (1 + w) times the focal term of a label is its weighted cross-entropy."""
    weights = np.array([1.0, 3.0])
    alphas = imbalance.class_alphas(weights)
    np.testing.assert_allclose(alphas, [0.5, 0.75])
    y_true, logits = np.array([[1.0], [0.0], [0.3]]), np.array([[0.4], [-1.2], [2.0]])
    for weight, alpha in zip(weights, alphas, strict=True):
        focal = losses.focal_loss(y_true, logits, gamma=0.0, alpha=alpha)
        np.testing.assert_allclose((1 + weight) * focal, losses.binary_crossentropy(y_true, logits, [weight]), rtol=1e-6)


@pytest.mark.parametrize("counts", [[0, 0], [[1, 2]], [-1, 2], []])
def test_counts_that_weigh_nothing_are_refused(counts):
    with pytest.raises(ValueError, match="counts must be .* got"):
        imbalance.class_weights(counts)


# --- the prior ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("activation", "score"), [("sigmoid", ops.sigmoid), ("softmax", ops.softmax)])
def test_scores_at_the_prior_logits_are_the_shares(activation, score):
    logits = imbalance.prior_logits([70, 20, 10], 100, activation)
    np.testing.assert_allclose(score(logits), [0.7, 0.2, 0.1], rtol=1e-6)


def test_a_label_of_no_and_of_every_track_is_half_a_track_away():
    """0 and 100 of 100 count as .5 and 99.5: -+ log 199."""
    np.testing.assert_allclose(imbalance.prior_logits([0, 100], 100, "sigmoid"), [-np.log(199), np.log(199)], rtol=1e-6)
    with pytest.raises(ValueError, match="between 0 and tracks"):
        imbalance.prior_logits([3], 2, "sigmoid")


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_fresh_net_scores_every_label_by_its_share(activation):
    """A kernel of a hundredth leaves the bias alone: the mean over noise is the share of each label within a per cent of it."""
    split = schema.Split(tracks=200, samples=1, unlabelled=0, label_counts=(150, 40, 10))
    net = models.build(EXPERIMENT.net, (64, 16), 3)
    training._begin_at_priors(net, split, activation)
    layer = net.get_layer("logits")
    layer.set_weights([layer.get_weights()[0] / 100, layer.get_weights()[1]])
    deployed = keras.Model(net.input, keras.layers.Activation(activation)(net.output["logits"]))
    noise = np.random.default_rng(0).normal(size=(32, 64, 16)).astype("float32")
    np.testing.assert_allclose(np.mean(deployed(noise), axis=0), [0.75, 0.2, 0.05], rtol=0.01)


def test_logits_taken_over_keep_their_bias_and_new_labels_get_the_prior(trained, records, tmp_path):
    """A run of other labels: one it knows keeps the tagger's bias and kernel, the others begin at the prior; steps are of 1e-30."""
    manifest = schema.read_manifest(records)
    (tmp_path / "other").mkdir()
    for name in (run.BEST, run.EXPERIMENT):
        (tmp_path / "other" / name).write_bytes((trained / name).read_bytes())
    known = manifest.labels.index("noisy")
    (tmp_path / "other" / run.LABELS).write_text("\n".join(name if name == "noisy" else f"other_{name}" for name in manifest.labels) + "\n")
    experiment = changed(loss={"prior_bias": True}, fit={"epochs": 1, "learning_rate": 1e-30}).model_copy(update={"init": tmp_path / "other"})
    out = training.fit(experiment, records, tmp_path / "run")
    (kernel, bias), (source_kernel, source_bias) = (
        models.parts(evaluate.load_best(path))[1].get_layer("logits").get_weights() for path in (out, trained)
    )
    split = manifest.split("train")
    expected = imbalance.prior_logits(split.label_counts, split.tracks, "sigmoid")
    expected[known] = source_bias[known]
    np.testing.assert_allclose(bias, expected, atol=1e-20, rtol=1e-7)
    np.testing.assert_array_equal(kernel[:, known], source_kernel[:, known])
    with pytest.raises(InputError, match="--fit.epochs 0 needs labels that --init .*other knows all of, got 3 others such as high, low, rare"):
        training.fit(changed(experiment, fit={"epochs": 0}), records, tmp_path / "untrained")


# --- oversampling -------------------------------------------------------------------------------------------------------------------------
def test_the_share_of_the_fsd50k_recipes_is_within_reach_of_its_classes():
    """144 leaves below 56 classes, 36,796 clips of one leaf and its parent, frequencies falling as 1 / rank: the most a label can have is 1 / 144."""
    random = np.random.default_rng(0)
    leaves = random.choice(144, 36_796, p=(weights := 1 / np.arange(5, 149)) / weights.sum())
    labels = np.zeros((len(leaves), 200), np.uint8)
    labels[np.arange(len(leaves)), leaves] = labels[np.arange(len(leaves)), 144 + leaves % 56] = 1
    for name in ("fsd50k_cnn4_oversampled", "fsd50k_cnn4_best"):
        share = recipes.RECIPES[name]().data.oversample
        times = imbalance.repeats(labels, share)
        assert (times @ labels / len(labels)).min() > share * (1 - 1e-6)
    with pytest.raises(InputError, match="at most 0.006944"):
        imbalance.repeats(labels, 0.01)


def test_repeats_by_hand():
    """4 tracks of a, a, a+b, none; f = 3/4, 1/4. For t = .4: b's track is due .4 / .25 = 1.6; a's .4 / .75 = .53 is below u = 2.4 / 3 = .8."""
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    np.testing.assert_allclose(imbalance.repeats(labels, 0.4), [0.8, 0.8, 1.6, 0.8])


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.14])
def test_every_label_reaches_the_share_and_the_rarest_exactly(share):
    labels = long_tail()
    times = imbalance.repeats(labels, share)
    reached, frequency = times @ labels / len(labels), labels.mean(axis=0)
    np.testing.assert_allclose(times.mean(), 1)
    assert (reached > share - 1e-9).all()
    np.testing.assert_allclose(reached[frequency.argmin()], max(share, frequency.min()))
    factor = np.where(labels, share / frequency, 0).max(axis=1)  # Gupta et al., with t / f in place of its root
    np.testing.assert_allclose(times, np.where(factor > times.min(), factor, times.min()))
    assert times.min() <= 1


def test_a_share_below_all_frequencies_changes_nothing():
    labels = long_tail()
    np.testing.assert_allclose(imbalance.repeats(labels, 0.9 * labels.mean(axis=0).min()), 1)


def test_one_label_a_track_can_be_drawn_alike_and_not_more():
    """k labels have at most 1/k each: then every label is as frequent as the others."""
    labels = np.eye(4, dtype=np.uint8)[np.random.default_rng(0).choice(4, 200, p=[0.6, 0.3, 0.08, 0.02])]
    np.testing.assert_allclose(imbalance.repeats(labels, 0.25) @ labels / 200, 0.25)
    with pytest.raises(InputError, match="--data.oversample must be above 0 and at most 0.25 for the 4 labels .* got 0.26"):
        imbalance.repeats(labels, 0.26)


def test_an_epoch_draws_what_is_due_and_only_fractions_by_chance():
    times = imbalance.repeats(long_tail(), 0.1)
    due = times * 37 * 16 / times.sum()
    totals = np.zeros(len(times))
    for epoch in range(200):
        drawn = np.bincount(imbalance.rows(times, 16, 37, 3, epoch).ravel(), minlength=len(times))
        assert (drawn >= np.floor(due)).all() and (drawn <= np.ceil(due)).all() and drawn.sum() == 37 * 16
        totals += drawn
    # Less even than chance would show as a large statistic; the draw is more even, since whole parts are certain.
    assert stats.chisquare(totals, 200 * due).pvalue > 1e-3
    fraction = due % 1
    z = (totals - 200 * due) / np.sqrt(200 * fraction * (1 - fraction) + 1e-9)
    assert 0.9 < z[fraction > 0.05].std() < 1.1  # the fractions themselves are drawn with the deviation of a coin


def test_rows_come_back_by_seed_and_epoch_and_are_shuffled():
    times = imbalance.repeats(long_tail(), 0.1)
    one = imbalance.rows(times, 8, 20, 0, 1)
    np.testing.assert_array_equal(one, imbalance.rows(times, 8, 20, 0, 1))
    assert not np.array_equal(one, imbalance.rows(times, 8, 20, 0, 2)) and not np.array_equal(one, imbalance.rows(times, 8, 20, 1, 1))
    assert abs(np.corrcoef(one.ravel(), np.arange(one.size))[0, 1]) < 0.3


@pytest.fixture(scope="module")
def oversampled(records):
    """(experiment, manifest, catalogue, choose): mixup and SpecAugment over drawn tracks; `rare` is on 1 of 32 and is to be on 1 of 5."""
    experiment, manifest = changed(AUGMENTED, data={"oversample": 0.2}), schema.read_manifest(records)
    return experiment, manifest, *training._oversampled(records, manifest, experiment)


def test_the_stream_holds_the_drawn_tracks(oversampled, records):
    """All 4 epochs of 8 steps: the labels are those of the rows, every label is on a fifth of each epoch's 64 windows; chi-square of the tracks
    against their repeats; and the windows of the one rare track differ."""
    experiment, manifest, tracks, choose = oversampled
    plain = changed(experiment, augment={"mixup_alpha": 0.0, "spec_augment": {"probability": 0.0}})
    found = take(data.train_batches(records, manifest, plain, 0, None, tracks, choose))
    rows = np.concatenate([choose(epoch) for epoch in range(4)])
    assert len(found) == len(rows) == 4 * data.steps_per_epoch(manifest, plain)
    labels = np.stack([truth["labels"] for _, truth in found])
    np.testing.assert_array_equal(labels, tracks.labels[rows])
    assert (labels.reshape(4, 64, -1).sum(axis=1) >= np.floor(0.2 * 64)).all()
    due = 4 * 2 * imbalance.repeats(tracks.labels, 0.2)
    assert stats.chisquare(np.bincount(rows.ravel(), minlength=len(tracks)), due).pvalue > 1e-3
    rare = labels[..., manifest.labels.index("rare")] == 1
    windows = np.concatenate([features[mask] for (features, _), mask in zip(found, rare, strict=True)])
    assert 48 <= len(windows) <= 52 and len(np.unique(windows.reshape(len(windows), -1), axis=0)) > 24


def test_a_later_start_is_the_tail_of_the_oversampled_stream(oversampled, records):
    experiment, manifest, tracks, choose = oversampled
    whole, tail = (
        take(data.train_batches(records, manifest, experiment, first, None, tracks, choose), threads) for first, threads in ((0, 1), (2, 4))
    )
    assert len(whole) == 4 * 8 and len(tail) == 2 * 8
    for expected, found in zip(whole[16:], tail, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, expected, found)
    assert not np.array_equal(whole[0][0], whole[8][0])


# --- together -----------------------------------------------------------------------------------------------------------------------------
TOOLS = {"loss": {"class_weights": True, "prior_bias": True}, "data": {"oversample": 0.2}}


@pytest.mark.slow
def test_all_of_them_train_and_an_interrupted_run_goes_on_to_the_same_weights(records, tmp_path, monkeypatch):
    experiment = changed(**TOOLS | {"loss": {"name": "focal", **TOOLS["loss"]}, "fit": {"epochs": 2}})
    training.fit(experiment, records, tmp_path / "whole")

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tfmusic.training.keras.callbacks.TensorBoard", lambda *arguments, **options: Interrupt())
        with pytest.raises(KeyboardInterrupt):
            training.fit(experiment, records, tmp_path / "halves")
    training.resume(tmp_path / "halves")
    for left, right in zip(*(evaluate.load_best(tmp_path / half).get_weights() for half in ("whole", "halves")), strict=True):
        np.testing.assert_array_equal(left, right)


def test_one_label_of_all_trains_with_all_of_them(one_label, tmp_path):
    experiment = changed(
        EXPERIMENT.model_copy(update={"task": "genre"}),
        loss={"name": "crossentropy", **TOOLS["loss"]},
        data={"oversample": 0.5},
        fit={"epochs": 1, "monitor": "val_accuracy"},
    )
    assert (training.fit(experiment, one_label, tmp_path / "run") / run.METRICS).is_file()


def test_a_share_that_cannot_be_leaves_nothing_behind(one_label, tmp_path):
    experiment = changed(data={"oversample": 0.6})
    with pytest.raises(InputError, match="--data.oversample must be above 0 and at most 0.5"):
        training.fit(experiment, one_label, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _experiment(**fields):
    return config.Experiment(recipe="tiny", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": {"name": "focal", "focal_alpha": 0.3, "class_weights": True}}, "loss.focal_alpha does nothing for class_weights"),
        ({"data": {"oversample": 0.1, "shuffle_buffer": 7}}, "data.shuffle_buffer does nothing for oversample"),
        ({"data": {"oversample": 1.0}}, "less than 1"),
        ({"task": "emotion", "data": {"oversample": 0.1}}, "data.oversample does nothing for emotion"),
        ({"task": "emotion", "loss": {"prior_bias": True}}, "loss.prior_bias does nothing for emotion"),
        ({"task": "similarity", "loss": {"prior_bias": True}}, "loss.prior_bias does nothing for similarity without tag_weight"),
        ({"task": "similarity", "data": {"oversample": 0.1}}, "data.oversample does nothing for similarity"),
        ({"task": "similarity", "similarity": {"tag_weight": 1}, "loss": {"class_weights": True}}, "loss.class_weights does nothing for similarity"),
        ({"net": {"name": "lstm"}, "sequences": {}, "data": {"oversample": 0.1}}, "data.oversample does nothing for sequences"),
    ],
)
def test_settings_that_nothing_reads_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        _experiment(**fields)


def test_the_loss_of_the_settings_is_the_weighted_one():
    """Counts 1, 3: weights 2, 2/3; alphas 2/3, 2/5."""
    y_true, logits = np.array([[1.0, 0.0], [0.0, 1.0]], "float32"), np.array([[0.5, -1.0], [2.0, 0.1]], "float32")
    expected = {
        "bce": tf.nn.weighted_cross_entropy_with_logits(y_true, logits, np.array([2, 2 / 3], "float32")),
        "focal": ops.reshape(losses.focal_loss(y_true.reshape(-1, 1), logits.reshape(-1, 1)), (2, 2))
        * np.where(y_true, [2 / 3, 2 / 5], [1 / 3, 3 / 5]),
        "crossentropy": keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)(y_true, logits, sample_weight=[2, 2 / 3]),
    }
    for name, value in expected.items():
        loss = losses.make(Loss(name=name, class_weights=True), counts=[1, 3])
        np.testing.assert_allclose(loss(y_true, logits), np.mean(value), rtol=1e-6)
    with pytest.raises(ValueError, match="counts must be given"):
        losses.make(Loss(class_weights=True))
