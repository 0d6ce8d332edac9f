"""What training examples go through and no other ever sees: SpecAugment on log-mels, mixup on batches.

Pure functions of (batch, seeds) first: the same seed gives the same result, in tf.data and on the device. The Keras layers below them
hold a seed generator and call them. This file is TensorFlow's, tf.data calls it; nets are free of it.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfmusic import config


def hashed_uniform(seeds, draws: int):
    """Uniform numbers from one seed per example, all examples at once.

    tf.random's stateless functions take one seed a call: a call per example costs more than the augmentation. The hash is pcg3d (Jarzynski
    and Olano, Hash Functions for GPU Rendering, JCGT 2020) of (seed, seed, number of the draw): a dozen integer operations.

    Args:
        seeds: int32, or int64 whose low 32 bits count `[shape=(batch, 2)]`.
        draws: numbers per example `int > 0`.

    Returns:
        `0 <= float32 < 1`, multiples of 2^-24 `[shape=(batch, draws)]`.
    """
    seeds = tf.bitcast(tf.cast(seeds, tf.int32), tf.uint32)
    multiplier, increment, half = (tf.constant(number, tf.uint32) for number in (1664525, 1013904223, 16))
    x = seeds[:, :1] * multiplier + increment  # (batch, 1)
    y = seeds[:, 1:] * multiplier + increment
    z = tf.range(draws, dtype=tf.int32)[None]
    z = tf.bitcast(z, tf.uint32) * multiplier + increment  # (1, draws)
    x = x + y * z  # (batch, draws) from here on; unsigned integers wrap around
    y = y + z * x
    z = z + x * y
    x, y, z = (tf.bitwise.bitwise_xor(part, tf.bitwise.right_shift(part, half)) for part in (x, y, z))
    x = x + y * z
    high = tf.bitwise.right_shift(x, tf.constant(8, tf.uint32))
    return tf.cast(tf.bitcast(high, tf.int32), tf.float32) * 2.0**-24


def spec_augment(features, seeds, *, probability: float, time_masks: int, time_frames: int, mel_masks: int, mel_bands: int):
    """Masks stretches of frames and of mel bands, different ones in every example (Park et al., Interspeech 2019, without warping).

    A mask's width is uniform in 0..its maximum, both included, its start uniform over the positions where it fits; masks may overlap.
    Masked values become the example's mean (of each channel): the level the net sees on average. Zero would be a sound in a log-mel:
    silence is its floor, and 0 dB, full power, lies far above most music. An example's masks follow from its own seed alone, whatever the
    batch.

    Args:
        features: log-mels `[shape=(batch, frames, mels)]`, or `[shape=(batch, frames, mels, channels)]`: masked alike in all channels.
        seeds: one seed per example, int32 or int64 `[shape=(batch, 2)]`.
        probability: share of the examples that are masked `0 <= float <= 1`.
        time_masks: masks over frames `int >= 0`.
        time_frames: greatest width of a time mask in frames `int >= 0`.
        mel_masks: masks over mel bands `int >= 0`.
        mel_bands: greatest width of a mel mask in bands `int >= 0`.

    Returns:
        Masked log-mels, shape and dtype of `features`.

    Raises:
        ValueError: an argument out of range, or of another shape or type.

    >>> spec_augment(tf.random.normal((16, 188, 96)), tf.ones((16, 2), tf.int32) * tf.range(16)[:, None],
    ...              probability=1.0, time_masks=2, time_frames=20, mel_masks=2, mel_bands=10)
    """
    config.SpecAugment(probability=probability, time_masks=time_masks, time_frames=time_frames, mel_masks=mel_masks, mel_bands=mel_bands)
    features, seeds = tf.convert_to_tensor(features), tf.convert_to_tensor(seeds)
    if features.shape.rank not in (3, 4) or not features.dtype.is_floating:
        raise ValueError(f"features must be floats of shape (batch, frames, mels[, channels]), got {features.dtype.name} {features.shape}")
    if seeds.dtype not in (tf.int32, tf.int64) or seeds.shape.rank != 2 or seeds.shape[1] != 2:
        raise ValueError(f"seeds must be int32 or int64 of shape (batch, 2), got {seeds.dtype.name} {seeds.shape}")
    if probability == 0:
        return features
    masks = time_masks + mel_masks
    uniform = hashed_uniform(seeds, 1 + 2 * masks)
    chosen, widths, starts = tf.split(uniform, [1, masks, masks], axis=1)
    frames, mels = tf.shape(features)[1], tf.shape(features)[2]
    of_frames = _masked(widths[:, :time_masks], starts[:, :time_masks], time_frames, frames)  # (batch, frames)
    of_mels = _masked(widths[:, time_masks:], starts[:, time_masks:], mel_bands, mels)  # (batch, mels)
    masked = (of_frames[:, :, None] | of_mels[:, None, :]) & (chosen < probability)[:, :, None]  # (batch, frames, mels)
    mean = tf.reduce_mean(tf.cast(features, tf.float32), axis=(1, 2), keepdims=True)  # float16 would overflow in the sum
    return tf.where(masked if features.shape.rank == 3 else masked[..., None], tf.cast(mean, features.dtype), features)


def _masked(widths, starts, greatest: int, size):
    """Uniform numbers `[shape=(batch, masks)]` to the places that any of the masks covers, bool `[shape=(batch, size)]`."""

    def below(uniform, count):  # 0..count - 1; a float32 below 1 times a whole number stays below it
        return tf.cast(uniform * tf.cast(count, tf.float32), tf.int32)

    widths = below(widths, tf.minimum(greatest, size) + 1)
    starts = below(starts, size - widths + 1)
    place = tf.range(size)[None, None]
    covers = (starts[..., None] <= place) & (place < (starts + widths)[..., None])  # (batch, masks, size)
    return tf.reduce_any(covers, axis=1)


def mixup(features, labels, seed, alpha: float):
    """Blends every example with another one of its batch, features and labels alike (Zhang et al., ICLR 2018).

    `x = l x_i + (1 - l) x_j`, `y = l y_i + (1 - l) y_j`, j a random permutation of the batch, `l ~ Beta(alpha, alpha)`. Every example has
    its own l: the authors' code draws one per batch, which makes a whole batch nearly clean or nearly half and half. With small alpha most
    l are near 0 or 1.

    Args:
        features: any nest (dict, tuple, list) of floats `[shape=(batch, ...)]`.
        labels: any nest of tensors `[shape=(batch, ...)]`; multi-hot, one-hot or regression targets. Class numbers
            have no mixture: encode them one-hot first.
        seed: of the batch, int32 or int64 `[shape=(2,)]`.
        alpha: strength `float >= 0`; 0 leaves everything as it is.

    Returns:
        (features, labels): the features' dtype is kept, labels that are not floats become float32. A number that is unknown (nan) in one of
            two examples is unknown in their blend.

    Raises:
        ValueError: `alpha` below 0, or labels that are class numbers.

    >>> features, labels = mixup(tf.random.normal((8, 188, 96)), {"tags": tf.eye(8)}, seed=[1, 2], alpha=0.4)
    """
    config.Augment(mixup_alpha=alpha)
    features = keras.tree.map_structure(tf.convert_to_tensor, features)
    labels = keras.tree.map_structure(_mixable, labels)
    if alpha == 0:
        return features, labels
    uniform = tf.random.stateless_uniform([tf.shape(keras.tree.flatten(features)[0])[0], 3], seed, minval=2.0**-24)
    weights, partners = _beta(uniform[:, 0], uniform[:, 1], alpha), tf.argsort(uniform[:, 2])

    def mixed(tensor):
        weight = tf.cast(tf.reshape(weights, [-1] + [1] * (tensor.shape.rank - 1)), tensor.dtype)
        return weight * tensor + (1 - weight) * tf.gather(tensor, partners)

    return keras.tree.map_structure(mixed, features), keras.tree.map_structure(mixed, labels)


def _mixable(labels):
    labels = tf.convert_to_tensor(labels)
    if labels.dtype.is_integer and labels.shape.rank == 1:
        raise ValueError(f"labels must be floats, or multi-hot or one-hot, got class numbers: {labels.dtype.name} {labels.shape}")
    return labels if labels.dtype.is_floating else tf.cast(labels, tf.float32)


def _beta(u, v, alpha: float):
    """Beta(alpha, alpha) from two uniform numbers, without rejection and without underflow at small alpha, where gammas are 0 / 0.

    `t = sqrt(u^(-1/alpha) - 1) cos(2 pi v)` is Student's t with 2 alpha degrees of freedom over the root of their number (Bailey, 1994),
    and `(1 + t / sqrt(1 + t^2)) / 2` the symmetric beta (Devroye, WSC 1996). `sin(atan(t))` is the same quotient, at infinity too.
    """
    t = tf.sqrt(u ** (-1.0 / alpha) - 1) * tf.cos(2 * math.pi * v)
    return (1 + tf.sin(tf.atan(t))) / 2


class _Augmentation(keras.layers.Layer):
    """A layer that only trains, with a stream of seeds whose place in the stream is saved with the weights."""

    def __init__(self, seed: int, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})  # dtypes are kept, under mixed precision too
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def next_seed(self):
        return tf.cast(self.seed_generator.next(), tf.int64)  # Keras has changed its type before

    def save_own_variables(self, store):
        store["seed_generator_state"] = self.seed_generator.state  # Keras' own layers forget it

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])


@keras.saving.register_keras_serializable("tfmusic")
class SpecAugment(_Augmentation):
    """`spec_augment` as a layer: masks while training, passes everything through otherwise.

    Args:
        probability, time_masks, time_frames, mel_masks, mel_bands: as in `config.SpecAugment`.
        seed: of the stream of masks `int >= 0`.

    >>> SpecAugment(probability=1.0, seed=1)(tf.random.normal((16, 188, 96)), training=True)
    """

    def __init__(self, probability=0.0, time_masks=2, time_frames=20, mel_masks=2, mel_bands=10, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.settings = config.SpecAugment(
            probability=probability, time_masks=time_masks, time_frames=time_frames, mel_masks=mel_masks, mel_bands=mel_bands
        )

    def call(self, features, training=False):
        if not training:
            return features
        seeds = tf.random.stateless_uniform([tf.shape(features)[0], 2], self.next_seed(), minval=None, maxval=None, dtype=tf.int32)
        return spec_augment(features, seeds, **self.settings.model_dump())

    def compute_output_shape(self, features_shape):
        return features_shape

    def get_config(self):
        return {**super().get_config(), **self.settings.model_dump(), "seed": self.seed}


@keras.saving.register_keras_serializable("tfmusic")
class Mixup(_Augmentation):
    """`mixup` as a layer: called on (features, labels), returns both, blended while training.

    Args:
        alpha: as in `mixup`.
        seed: of the stream of blends `int >= 0`.

    >>> features, labels = Mixup(alpha=0.4, seed=1)(tf.random.normal((8, 188, 96)), tf.eye(8), training=True)
    """

    def __init__(self, alpha=0.0, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.alpha = config.Augment(mixup_alpha=alpha).mixup_alpha

    def call(self, features, labels, training=False):
        return mixup(features, labels, self.next_seed() if training else [0, 0], self.alpha if training else 0.0)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "seed": self.seed}
