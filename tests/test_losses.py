"""losses: Keras' own and ten lines of numpy are the references."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfmusic import config, losses


def _batch(soft=False, seed=0):
    random = np.random.default_rng(seed)
    y_true = random.random((16, 5)) if soft else random.integers(0, 2, (16, 5))
    return y_true.astype("float32"), random.normal(0, 3, (16, 5)).astype("float32")


def _focal_in_numpy(y_true, logits, gamma, alpha):
    """Equation 5 of the paper, written out in float64."""
    y_true, logits = y_true.astype(np.float64), logits.astype(np.float64)
    p = 1 / (1 + np.exp(-logits))
    of_positive, of_negative = (1, 1) if alpha is None else (np.asarray(alpha), 1 - np.asarray(alpha))
    terms = y_true * of_positive * (1 - p) ** gamma * np.log(p) + (1 - y_true) * of_negative * p**gamma * np.log(1 - p)
    return -terms.mean(axis=1)


@pytest.mark.parametrize("weights", [(1.0,), (0.25,), (3.0, 0.5, 1.0)])
def test_squared_error_of_known_targets_in_their_own_units(weights):
    """Example by example in numpy; nothing known is 0, with a gradient of 0 in place of nan."""
    random, deviations = np.random.default_rng(0), np.array([2.0, 0.1, 30.0])
    y_true, predicted = (random.normal(size=(6, 3)).astype("float32") for _ in range(2))
    y_true[0, 1] = y_true[1, :2] = y_true[2] = np.nan
    terms = np.asarray(weights) * ((y_true - predicted) / deviations) ** 2
    expected = [np.nansum(row) / max(1, np.isfinite(row).sum()) for row in terms]
    np.testing.assert_allclose(losses.squared_error(y_true, predicted, deviations, weights), expected, rtol=1e-5)
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(losses.TargetLoss(deviations, weights)))
    assert float(loss(y_true, predicted)) == pytest.approx(np.sum(expected) / 5, rel=1e-5)  # of five of the six something is known
    assert float(loss(np.full((2, 3), np.nan, "float32"), predicted[:2])) == 0
    variable = tf.Variable(predicted)
    with tf.GradientTape() as tape:
        value = loss(y_true, variable)
    gradient = np.asarray(tape.gradient(value, variable))
    assert np.isfinite(gradient).all() and not gradient[2].any() and not gradient[0, 1] and gradient[0, 0]


def test_weights_of_targets_are_one_or_one_each():
    with pytest.raises(ValueError, match="weights must be one, or one for each of 3 targets"):
        losses.TargetLoss([1.0, 1.0, 1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="weights must be numbers > 0"):
        losses.TargetLoss([1.0], [0.0])


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25, [0.1, 0.3, 0.5, 0.7, 0.9]], ids=["none", "number", "per label"])
def test_focal_loss_is_the_equation(soft, gamma, alpha):
    y_true, logits = _batch(soft)
    np.testing.assert_allclose(losses.focal_loss(y_true, logits, gamma, alpha), _focal_in_numpy(y_true, logits, gamma, alpha), rtol=2e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_loss_equals_keras_on_hard_labels(gamma, alpha):
    y_true, logits = _batch()
    of_keras = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=alpha is not None, alpha=alpha or 0.25, gamma=gamma, from_logits=True, reduction="none"
    )
    np.testing.assert_allclose(losses.focal_loss(y_true, logits, gamma, alpha), of_keras(y_true, logits), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_gamma_0_is_binary_crossentropy(soft):
    """Without alpha number for number, and Keras'; with alpha .5 half of it; and gamma has no jump at 0."""
    y_true, logits = _batch(soft)
    expected = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")(y_true, logits)
    np.testing.assert_array_equal(losses.binary_crossentropy(y_true, logits), expected)
    np.testing.assert_array_equal(losses.focal_loss(y_true, logits, gamma=0), expected)
    np.testing.assert_allclose(losses.focal_loss(y_true, logits, gamma=0, alpha=0.5), expected / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.focal_loss(y_true, logits, gamma=1e-6), expected, rtol=1e-5)


def test_focal_loss_of_one_hard_positive():
    """p = sigmoid(0) = 1/2: a (1-p)^2 (-log p) = 1/4 * 1/4 * log 2 = 0.0433."""
    loss = losses.focal_loss(np.ones((1, 1)), ops.zeros((1, 1)), gamma=2.0, alpha=0.25)
    np.testing.assert_allclose(loss, [np.log(2) / 16], rtol=1e-6)


def test_focal_loss_is_linear_in_the_label():
    """What mixup asks for: the loss of a blend of labels is the blend of their losses."""
    y_true, logits = _batch()
    blended = losses.focal_loss(0.3 * y_true + 0.7 * y_true[::-1], logits)
    np.testing.assert_allclose(blended, 0.3 * losses.focal_loss(y_true, logits) + 0.7 * losses.focal_loss(y_true[::-1], logits), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_gradient_at_the_ends(gamma, alpha):
    """A confident error pushes at full strength, a confident hit not at all: d/dx of -a log p at p = 0 is -a, over two labels."""
    y_true = tf.constant([[1.0, 0.0], [1.0, 0.0]])
    logits = tf.constant([[-100.0, 100.0], [100.0, -100.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.focal_loss(y_true, logits, gamma, alpha)
    assert np.isfinite(loss).all()
    of_positive, of_negative = (1, 1) if alpha is None else (alpha, 1 - alpha)
    np.testing.assert_allclose(tape.gradient(loss, logits), [[-of_positive / 2, of_negative / 2], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_scored_in_float32(dtype):
    y_true, logits = _batch()
    logits = ops.cast(logits, dtype)
    weighted = functools.partial(losses.binary_crossentropy, weights=[0.5, 1.0, 2.0, 3.0, 0.1])
    for function in (losses.binary_crossentropy, weighted, losses.categorical_crossentropy, losses.focal_loss):
        loss = function(y_true, logits)
        assert keras.backend.standardize_dtype(loss.dtype) == "float32"
        np.testing.assert_array_equal(loss, function(y_true, ops.cast(logits, "float32")))


@pytest.mark.parametrize("alpha", [None, 0.25, np.array([0.1, 0.2, 0.3, 0.4, 0.5])], ids=["none", "number", "per label"])
def test_loss_class_round_trip(alpha):
    y_true, logits = _batch()
    loss = losses.FocalLoss(gamma=1.5, alpha=alpha, reduction="sum", name="focus")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(copy, losses.FocalLoss)
    assert copy.get_config() == loss.get_config()
    assert (copy.name, copy.reduction, copy.gamma) == ("focus", "sum", 1.5)
    expected = losses.focal_loss(y_true, logits, 1.5, alpha)
    np.testing.assert_allclose(copy(y_true, logits), np.sum(expected), rtol=1e-6)


def test_loss_layer_trains_saves_and_returns_the_logits(tmp_path):
    features, y_true = keras.Input((5,)), keras.Input((3,))
    logits = keras.layers.Dense(3)(features)
    model = keras.Model([features, y_true], losses.FocalLossLayer(gamma=1.0, alpha=0.25, name="focal")(y_true, logits))
    assert model.output_shape == (None, 3)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 5)).astype("float32"), random.integers(0, 2, (32, 3)).astype("float32")

    returned = model([x, y])
    np.testing.assert_array_equal(returned, keras.Model(features, logits)(x))
    np.testing.assert_allclose(model.losses, [np.mean(losses.focal_loss(y, returned, 1.0, 0.25))], rtol=1e-6)
    model.compile(keras.optimizers.Adam(0.1))
    history = model.fit([x, y], epochs=10, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("focal").get_config() == model.get_layer("focal").get_config()
    np.testing.assert_array_equal(loaded([x, y]), model([x, y]))
    np.testing.assert_array_equal(loaded.losses, model.losses)


def test_loss_layer_keeps_float32_logits_under_mixed_precision():
    y_true, logits = _batch()
    layer = losses.FocalLossLayer(dtype="mixed_bfloat16")
    np.testing.assert_array_equal(layer(y_true, logits), logits)
    np.testing.assert_array_equal(layer.losses, [np.mean(losses.focal_loss(y_true, logits))])


@pytest.mark.parametrize("kind", [losses.FocalLoss, losses.FocalLossLayer])
@pytest.mark.parametrize("arguments", [{"gamma": -1}, {"gamma": np.nan}, {"alpha": 0}, {"alpha": 1.0}, {"alpha": [0.5, 2]}, {"alpha": [[0.5]]}])
def test_bad_arguments(kind, arguments):
    with pytest.raises(ValueError, match="must be .* got"):
        kind(**arguments)


def test_make_follows_the_settings():
    y_true, logits = _batch()
    bce = losses.make(config.Loss())
    np.testing.assert_allclose(bce(y_true, logits), np.mean(losses.binary_crossentropy(y_true, logits)), rtol=1e-6)
    focal = losses.make(config.Loss(name="focal", focal_gamma=3.0, focal_alpha=0.2))
    np.testing.assert_allclose(focal(y_true, logits), np.mean(losses.focal_loss(y_true, logits, 3.0, 0.2)), rtol=1e-6)


WEIGHTS = [0.5, 1.0, 2.0, 3.0, 0.1]


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_weighted_binary_crossentropy_is_that_of_tensorflow(soft):
    y_true, logits = _batch(soft)
    expected = tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(y_true, logits, np.array(WEIGHTS, "float32")), axis=1)
    np.testing.assert_allclose(losses.binary_crossentropy(y_true, logits, WEIGHTS), expected, rtol=2e-6)


def test_weighted_categorical_crossentropy_is_that_of_keras_with_a_weight_an_example_and_linear_in_the_label():
    _, logits = _batch()
    label = np.random.default_rng(1).integers(0, 5, 16)
    one_hot = np.eye(5, dtype="float32")[label]
    of_keras = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    loss = losses.categorical_crossentropy(one_hot, logits, WEIGHTS)
    np.testing.assert_allclose(loss, of_keras(one_hot, logits, sample_weight=np.array(WEIGHTS)[label]), rtol=2e-6)
    np.testing.assert_allclose(losses.categorical_crossentropy(one_hot, logits), of_keras(one_hot, logits), rtol=2e-6)
    blended = losses.categorical_crossentropy(0.3 * one_hot + 0.7 * one_hot[::-1], logits, WEIGHTS)
    other = losses.categorical_crossentropy(one_hot[::-1], logits, WEIGHTS)
    np.testing.assert_allclose(blended, 0.3 * loss + 0.7 * other, rtol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_weighted_loss_class_round_trip(activation):
    y_true, logits = _batch()
    loss = losses.WeightedCrossentropy(np.array(WEIGHTS), activation, reduction="sum")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(copy, losses.WeightedCrossentropy) and copy.get_config() == loss.get_config()
    np.testing.assert_allclose(copy(y_true, logits), np.sum(losses.CROSSENTROPIES[activation](y_true, logits, WEIGHTS)), rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"weights": [1, 0]}, {"weights": 1.0}, {"weights": [np.inf]}, {"weights": [1.0], "activation": "relu"}])
def test_bad_weights(arguments):
    with pytest.raises(ValueError, match="must be .* got"):
        losses.WeightedCrossentropy(**arguments)


@pytest.mark.parametrize("settings", [{}, {"class_weights": True}])
@pytest.mark.parametrize(("name", "keras_own"), [("bce", keras.losses.BinaryCrossentropy), ("crossentropy", keras.losses.CategoricalCrossentropy)])
def test_smoothed_labels_are_keras_own_and_move_a_share_of_the_loss_to_that_of_a_guess(name, keras_own, settings):
    """Linear in the label: (1 - s) L(y) + s L(1/2 everywhere, or 1/classes)."""
    y_true, logits = _batch()
    y_true = np.eye(5, dtype="float32")[y_true.argmax(1)]
    loss = losses.make(config.Loss(name=name, **settings), [1, 2, 3, 4, 5], 0.2)
    plain = losses.make(config.Loss(name=name, **settings), [1, 2, 3, 4, 5])
    guess = np.full_like(y_true, 1 / 2 if name == "bce" else 1 / 5)
    np.testing.assert_allclose(loss(y_true, logits), 0.8 * plain(y_true, logits) + 0.2 * plain(guess, logits), rtol=1e-5)
    if not settings:
        np.testing.assert_allclose(loss(y_true, logits), keras_own(from_logits=True, label_smoothing=0.2)(y_true, logits), rtol=1e-6)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    np.testing.assert_allclose(copy(y_true, logits), loss(y_true, logits), rtol=1e-6)


def test_smoothed_focal_loss_is_the_equation_on_smoothed_labels():
    y_true, logits = _batch()
    loss = losses.make(config.Loss(name="focal", focal_alpha=0.3), smoothing=0.1)
    np.testing.assert_allclose(loss(y_true, logits), _focal_in_numpy(0.9 * y_true + 0.05, logits, 2.0, 0.3).mean(), rtol=2e-6)
    with pytest.raises(ValueError, match="smoothing must be .* got 1"):
        losses.FocalLoss(smoothing=1)
