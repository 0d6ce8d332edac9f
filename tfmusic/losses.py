"""What is minimised: pure functions from labels and logits to one loss per example, and thin Keras classes around them.

Everything takes logits, never probabilities: `log sigmoid` keeps its gradient where a rounded probability has lost it. Cross-entropy
without weights needs no class of ours, Keras' own serves.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tfmusic import config, imbalance


def binary_crossentropy(y_true, logits, weights=None):
    """Cross-entropy of independent labels, per example: `-[w y log p + (1-y) log(1-p)]` with `p = sigmoid(logits)`, mean over labels.

    Args:
        y_true: 0/1 or soft labels (mixup) `[shape=(batch, labels)]`.
        logits: scores before the sigmoid `[shape=(batch, labels)]`.
        weights: of the positives of each label `float > 0` `[shape=(labels,)]`; None: 1.

    Returns:
        Loss `[shape=(batch,)]`, natural log, float32 or wider.

    >>> binary_crossentropy([[1.0, 0.0]], ops.zeros((1, 2)))  # -log 1/2 = 0.693
    """
    y_true, logits = _at_least_float32(y_true, logits)
    if weights is None:
        return keras.losses.binary_crossentropy(y_true, logits, from_logits=True)
    weights = ops.convert_to_tensor(weights, logits.dtype)
    return ops.mean(weights * y_true * ops.softplus(-logits) + (1 - y_true) * ops.softplus(logits), axis=-1)


def categorical_crossentropy(y_true, logits, weights=None):
    """Cross-entropy of one label out of all, per example: `-sum_c w_c y_c log p_c` with `p = softmax(logits)`.

    Args:
        y_true: one-hot or soft labels (mixup) `[shape=(batch, labels)]`.
        logits: scores before the softmax `[shape=(batch, labels)]`.
        weights: of each label `float > 0` `[shape=(labels,)]`; None: 1.

    Returns:
        Loss `[shape=(batch,)]`, natural log, float32 or wider.

    >>> categorical_crossentropy([[1.0, 0.0]], ops.zeros((1, 2)), weights=[2.0, 0.5])  # 2 log 2 = 1.386
    """
    y_true, logits = _at_least_float32(y_true, logits)
    weights = 1.0 if weights is None else ops.convert_to_tensor(weights, logits.dtype)
    return -ops.sum(weights * y_true * ops.log_softmax(logits, axis=-1), axis=-1)


def focal_loss(y_true, logits, gamma: float = 2.0, alpha=None):
    """Focal loss of independent labels, per example.

    `-[y a (1-p)^g log p + (1-y) (1-a) p^g log(1-p)]` with `p = sigmoid(logits)`, mean over labels (Lin et al., ICCV 2017, eq. 5). It turns
    learning away from the many easy negatives. Without `alpha` both factors `a` and `1-a` are 1, so that `gamma=0` is binary
    cross-entropy, number for number; `gamma=0, alpha=.5` is half of it.

    Soft labels weigh the two terms by y and 1-y, each with its own power. Keras' BinaryFocalCrossentropy takes one power of the mixed
    probability instead: equal for 0/1, where a soft label differs it is ours that is linear in the label, as mixup asks.

    Args:
        y_true: 0/1 or soft labels `[shape=(batch, labels)]`.
        logits: scores before the sigmoid `[shape=(batch, labels)]`.
        gamma: focusing strength `float >= 0`.
        alpha: weight of the positives `0 < float < 1`, or one per label `[shape=(labels,)]`; None: no balancing.

    Returns:
        Loss `[shape=(batch,)]`, natural log, float32 or wider.

    >>> focal_loss([[1.0]], ops.zeros((1, 1)), gamma=2.0, alpha=0.25)  # 1/4 * (1/2)^2 * log 2 = 0.0433
    """
    if gamma == 0 and alpha is None:
        return binary_crossentropy(y_true, logits)
    y_true, logits = _at_least_float32(y_true, logits)
    log_p, log_not_p = -ops.softplus(-logits), -ops.softplus(logits)
    # (1-p)^g as exp(g log(1-p)): the power's own gradient is 0 * inf where a probability has rounded to 0.
    positive = y_true * ops.exp(gamma * log_not_p) * log_p
    negative = (1 - y_true) * ops.exp(gamma * log_p) * log_not_p
    if alpha is not None:
        alpha = ops.convert_to_tensor(alpha, logits.dtype)
        positive, negative = alpha * positive, (1 - alpha) * negative
    return -ops.mean(positive + negative, axis=-1)


def squared_error(y_true, predicted, deviations, weights=(1.0,)):
    """Squared error of regression targets in units of their spread, per example, where they are known.

    `mean over known t of w_t ((y_t - p_t) / d_t)^2`: valence between 0 and 1 and a tempo in beats a minute weigh alike, unless weights differ.

    Args:
        y_true: nan where unknown `[shape=(batch, targets)]`.
        predicted: `[shape=(batch, targets)]`.
        deviations: standard deviation of each target `float > 0` `[shape=(targets,)]`.
        weights: of each target `float > 0` `[shape=(targets,)]`, or one for all.

    Returns:
        Loss `[shape=(batch,)]`; 0 for an example of which nothing is known.

    >>> squared_error([[0.5, float("nan")]], [[0.3, 7.0]], [0.1, 1.0])  # (.2 / .1)^2 = 4
    """
    y_true, predicted = _at_least_float32(y_true, predicted)
    known = ops.logical_not(ops.isnan(y_true))
    # Chosen before the square: nan times 0 in a gradient is nan.
    errors = ops.where(known, y_true - predicted, ops.zeros_like(predicted)) / ops.convert_to_tensor(deviations, predicted.dtype)
    count = ops.sum(ops.cast(known, predicted.dtype), axis=-1)
    weighted = ops.convert_to_tensor(weights, predicted.dtype) * ops.square(errors)
    return ops.sum(weighted, axis=-1) / ops.maximum(count, 1.0)


def smoothed(y_true, share: float, activation: str = "sigmoid"):
    """Labels that are never quite sure: `(1 - s) y + s / 2` of independent ones, `(1 - s) y + s / classes` of one out of all.

    Szegedy et al. (CVPR 2016, section 7). All losses here are linear in the label, so this is s of the loss of a guess.

    Args:
        y_true: 0/1 or soft labels `[shape=(batch, labels)]`.
        share: `0 <= s < 1`.
        activation: "sigmoid" or "softmax".

    >>> smoothed([[1.0, 0.0, 0.0, 0.0]], 0.2, "softmax")  # .85, .05, .05, .05
    """
    if not share:
        return y_true
    y_true = ops.convert_to_tensor(y_true)
    return (1 - share) * y_true + share / (y_true.shape[-1] if activation == "softmax" else 2)


def _at_least_float32(y_true, logits):
    """Both as tensors of one float type: the logits' own, or float32 where that is a half."""
    logits = ops.convert_to_tensor(logits)
    dtype = keras.backend.result_type(logits.dtype, "float32")
    return ops.cast(y_true, dtype), ops.cast(logits, dtype)


def _checked(gamma, alpha):
    """The two arguments as JSON keeps them: a float; a float, a list of floats or None."""
    if not gamma >= 0:
        raise ValueError(f"gamma must be >= 0, got {gamma!r}")
    if alpha is not None:
        array = np.asarray(alpha, np.float64)
        if array.ndim > 1 or not ((array > 0) & (array < 1)).all():
            raise ValueError(f"alpha must be None, or between 0 and 1, one number or one per label, got {alpha!r}")
        alpha = array.tolist()
    return float(gamma), alpha


def _checked_share(smoothing) -> float:
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be >= 0 and < 1, got {smoothing!r}")
    return float(smoothing)


@keras.saving.register_keras_serializable("tfmusic")
class FocalLoss(keras.losses.Loss):
    """`focal_loss` as a Keras loss; arguments as there, and `smoothing`, the share of `smoothed`."""

    def __init__(self, gamma=2.0, alpha=None, smoothing=0.0, reduction="sum_over_batch_size", name="focal_loss", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.gamma, self.alpha = _checked(gamma, alpha)
        self.smoothing = _checked_share(smoothing)

    def call(self, y_true, y_pred):
        return focal_loss(smoothed(y_true, self.smoothing), y_pred, self.gamma, self.alpha)

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma, "alpha": self.alpha, "smoothing": self.smoothing, "dtype": self.dtype}


@keras.saving.register_keras_serializable("tfmusic")
class FocalLossLayer(keras.layers.Layer):
    """`focal_loss` inside a functional model: called on (y_true, logits), adds the mean loss to the model's and returns the logits.

    For models whose labels are inputs; such a model compiles without a loss. Serve the part of it from features to logits.

    Args:
        gamma, alpha: as in `focal_loss`.
        weight: factor on the loss `float >= 0`.

    >>> features, y_true = keras.Input((8,)), keras.Input((3,))
    >>> logits = keras.layers.Dense(3)(features)
    >>> training = keras.Model([features, y_true], FocalLossLayer(gamma=2.0)(y_true, logits))
    >>> training.compile("adam")
    >>> serving = keras.Model(features, logits)
    """

    def __init__(self, gamma=2.0, alpha=None, weight=1.0, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})  # the logits return as they came, under mixed precision too
        self.gamma, self.alpha = _checked(gamma, alpha)
        self.weight = float(weight)

    def call(self, y_true, logits):
        self.add_loss(self.weight * ops.mean(focal_loss(y_true, logits, self.gamma, self.alpha)))
        return logits

    def compute_output_shape(self, y_true_shape, logits_shape):
        return logits_shape

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma, "alpha": self.alpha, "weight": self.weight}


CROSSENTROPIES = {"sigmoid": binary_crossentropy, "softmax": categorical_crossentropy}


@keras.saving.register_keras_serializable("tfmusic")
class WeightedCrossentropy(keras.losses.Loss):
    """`binary_crossentropy` or `categorical_crossentropy` with a weight for each label, as a Keras loss.

    Args:
        weights: as there `[shape=(labels,)]`.
        activation: "sigmoid" of independent labels, "softmax" of one label out of all.
        smoothing: share of `smoothed`.

    >>> WeightedCrossentropy([2.0, 0.5], "softmax")([[1.0, 0.0]], ops.zeros((1, 2)))  # 2 log 2 = 1.386
    """

    def __init__(self, weights, activation="sigmoid", smoothing=0.0, reduction="sum_over_batch_size", name="weighted_crossentropy", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.smoothing = _checked_share(smoothing)
        array = np.asarray(weights, np.float64)
        if array.ndim != 1 or not ((array > 0) & np.isfinite(array)).all():
            raise ValueError(f"weights must be finite numbers > 0, one per label, got {weights!r}")
        if activation not in CROSSENTROPIES:
            raise ValueError(f"activation must be {' or '.join(CROSSENTROPIES)}, got {activation!r}")
        self.weights, self.activation = array.tolist(), activation

    def call(self, y_true, y_pred):
        return CROSSENTROPIES[self.activation](smoothed(y_true, self.smoothing, self.activation), y_pred, self.weights)

    def get_config(self):
        own = {"weights": self.weights, "activation": self.activation, "smoothing": self.smoothing, "dtype": self.dtype}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tfmusic")
class TargetLoss(keras.losses.Loss):
    """`squared_error` as a Keras loss, the mean over the examples of which something is known; arguments as there."""

    def __init__(self, deviations, weights=(1.0,), reduction="sum_over_batch_size", name="target_loss", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        for kind, values in (("deviations", deviations), ("weights", weights)):
            array = np.asarray(values, np.float64)
            if array.ndim != 1 or not (array > 0).all():
                raise ValueError(f"{kind} must be numbers > 0, one per target, got {values!r}")
        if len(weights) not in (1, len(deviations)):
            raise ValueError(f"weights must be one, or one for each of {len(deviations)} targets, got {weights!r}")
        self.deviations, self.weights = [*map(float, deviations)], [*map(float, weights)]

    def call(self, y_true, y_pred):
        known = ops.any(ops.logical_not(ops.isnan(y_true)), axis=-1)
        share = ops.mean(ops.cast(known, "float32"))  # of the examples that Keras takes the mean over
        return squared_error(y_true, y_pred, self.deviations, self.weights) / ops.maximum(share, 1e-7)

    def get_config(self):
        return {**super().get_config(), "deviations": self.deviations, "weights": self.weights, "dtype": self.dtype}


LOSSES = {  # from settings and the share of label smoothing
    "bce": lambda settings, share: keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=share),
    "focal": lambda settings, share: FocalLoss(settings.focal_gamma, settings.focal_alpha, share),
    "crossentropy": lambda settings, share: keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=share),
}
WEIGHTED_LOSSES = {
    "bce": lambda settings, share, weights: WeightedCrossentropy(weights, "sigmoid", share),
    "focal": lambda settings, share, weights: FocalLoss(settings.focal_gamma, imbalance.class_alphas(weights), share),
    "crossentropy": lambda settings, share, weights: WeightedCrossentropy(weights, "softmax", share),
}


def make(settings: config.Loss, counts: Sequence[int] | None = None, smoothing: float = 0.0) -> keras.losses.Loss:
    """The Keras loss of these settings, on logits.

    Args:
        settings: name and parameters.
        counts: training tracks with each label, which class weights are made of; None where there are to be none.
        smoothing: share of `smoothed`.

    Raises:
        ValueError: class weights are asked for without counts.
    """
    if not settings.class_weights:
        return LOSSES[settings.name](settings, smoothing)
    if counts is None:
        raise ValueError("counts must be given for class_weights, got None")
    return WEIGHTED_LOSSES[settings.name](settings, smoothing, imbalance.class_weights(counts))
