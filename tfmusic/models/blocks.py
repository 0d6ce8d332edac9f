"""Layers that the networks share."""

from __future__ import annotations

import keras
from keras import ops


def as_image(features: keras.KerasTensor) -> keras.KerasTensor:
    """Features `[shape=(batch, frames, mels)]` with a channel axis of one; those of several resolutions have theirs already."""
    return features if len(features.shape) == 4 else ops.expand_dims(features, -1)


def scaled(filters: int, width: float) -> int:
    """A layer's number of filters at this width, at least one."""
    return max(1, round(filters * width))


def input_norm(features: keras.KerasTensor) -> keras.KerasTensor:
    """Features as an image whose channels have mean 0 and variance 1, by statistics alone: nets of others count no parameter for it."""
    return BatchNormalization(center=False, scale=False, name="input_norm")(as_image(features))


def cut(pool: tuple[int, ...], x: keras.KerasTensor) -> tuple[int, ...]:
    """A pool of (frames, mels), or of (frames,), no larger than what is left of them."""
    return tuple(min(size, left) for size, left in zip(pool, x.shape[1:-1], strict=True))


def halving(x: keras.KerasTensor) -> tuple[int, ...]:
    """Strides that halve frames and bands, and keep an axis of one step.

    There the result is the same, and oneDNN's bfloat16 gradient of a kernel that strides over a width of 1 is garbage.
    """
    return tuple(1 if size == 1 else 2 for size in x.shape[1:3])


@keras.saving.register_keras_serializable("tfmusic")
class AttentionPooling(keras.layers.Layer):
    """Weighted mean over steps, the weights learnt from the steps themselves.

    `sum_t a_t x_t` with `a = softmax_t(v . tanh(W x_t + b))` (additive attention of Bahdanau et al., ICLR 2015, with no query): what a tag is
    heard from may be a second of the window, which a mean dilutes and a last state may have forgotten. Weights are float32 under each policy.

    Args:
        units: rows of W `int > 0`.
        **kwargs: as in keras.layers.Layer.

    >>> AttentionPooling(16)(keras.random.normal((8, 15, 32))).shape  # (batch, steps, dims)
    TensorShape([8, 32])
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be > 0, got {units!r}")
        self.units = units
        self.supports_masking = True
        self.hidden = keras.layers.Dense(units, activation="tanh", dtype=self.dtype_policy, name="hidden")
        self.score = keras.layers.Dense(1, use_bias=False, dtype=self.dtype_policy, name="score")  # the softmax is blind to a bias

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.score.build((*input_shape[:-1], self.units))

    def call(self, inputs, mask=None):
        scores = ops.cast(self.score(self.hidden(inputs)), "float32")  # (batch, steps, 1)
        if mask is not None:
            scores = ops.where(ops.expand_dims(mask, -1), scores, -1e9)
        return ops.sum(ops.cast(ops.softmax(scores, axis=1), inputs.dtype) * inputs, axis=1)

    def compute_mask(self, inputs, mask=None):
        return None  # no steps are left

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tfmusic")
class UnitLength(keras.layers.Layer):
    """Vectors of length 1: `x / sqrt(max(sum x^2, 1e-12))` over the last axis, in float32; the zero vector stays 0.

    One operator in TFLite. Keras' UnitNormalization takes the minimum of `1 / sqrt(0)` and a large number there, which LiteRT makes nan: a
    silent window through a small net of ReLUs is enough.

    >>> UnitLength()(np.array([[3.0, 4.0]]))  # [[.6, .8]]
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, inputs):
        return inputs / ops.sqrt(ops.maximum(ops.sum(ops.square(inputs), axis=-1, keepdims=True), 1e-12))


@keras.saving.register_keras_serializable("tfmusic")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation in TensorFlow's fused kernel: `gamma (x - mean) / sqrt(variance + epsilon) + beta` over all axes but the last.

    Keras computes moments and then passes element by element; the kernel is one operation, takes half-precision inputs as they are, and
    lets oneDNN join a ReLU behind it. Outputs and gradients are Keras', and so is everything else, saving and freezing included. Two things
    differ. The moving variance is unbiased, n / (n - 1) of the batch's, as in PyTorch. And the moving averages keep .9 a step, which
    is PyTorch's momentum of .1: at Keras' .99 they still hold a third of their initial 0 and 1 after 100 steps and need about 500 to lose
    them, which on small collections is several epochs of wrong validation scores.

    Other backends and what the kernel does not know (a mask, another axis, rank above 4, float64, renormalisation, statistics over
    replicas) take Keras' own path, with Keras' biased variance.

    Args:
        axis: axis of the features; the fused path wants the last.
        momentum: share of the moving averages that a step keeps `0 <= float <= 1`.
        epsilon: added to the variance `float > 0`.
        **kwargs: as in keras.layers.BatchNormalization.

    >>> BatchNormalization()(keras.random.normal((16, 188, 96, 1)), training=True)
    """

    def __init__(self, axis=-1, momentum=0.9, epsilon=1e-3, **kwargs):
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if mask is not None or not self._fits_kernel(inputs):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf  # here, so that nets run on other backends without it

        channels = inputs.shape[-1]
        flat = len(inputs.shape) < 4  # the kernel wants rank 4; one long row is the shape it is fastest at
        training = bool(training and self.trainable)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.reshape(inputs, (1, 1, -1, channels)) if flat else inputs,
            scale=self.gamma if self.scale else tf.ones(channels),
            offset=self.beta if self.center else tf.zeros(channels),
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + of_batch * (1.0 - self.momentum))
        return tf.reshape(outputs, tf.shape(inputs)) if flat else outputs

    def _fits_kernel(self, inputs) -> bool:
        rank = len(inputs.shape)
        return (
            keras.backend.backend() == "tensorflow"
            and rank in (2, 3, 4)
            and self.axis in (-1, rank - 1)
            and not (self.renorm or self.synchronized)
            and self.variable_dtype == "float32"
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
        )
