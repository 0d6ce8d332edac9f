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
