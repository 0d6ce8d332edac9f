"""Plain networks, as tables: each a function from features to the one vector that the heads are put on."""

from __future__ import annotations

import keras

from tfmusic.models.blocks import BatchNormalization, as_image, scaled

CNN2D = [  # filters, pool (frames, mels); 3x3, stride 1: (188, 96) -> (47, 24) -> (15, 8) -> (5, 2) -> (1, 1)
    (64, (4, 4)),
    (128, (3, 3)),
    (128, (3, 3)),
    (64, (5, 2)),
]


def cnn2d(features: keras.KerasTensor, width: float = 1.0, layers=CNN2D) -> keras.KerasTensor:
    """Convolution, batch normalization, ReLU and max pooling down to one vector.

    299,892 trainable parameters at (188, 96) with a head of 50 classes. A pool is cut to the size that is left, so shorter windows and fewer bands
    work too; longer ones flatten more positions. Whatever a pool's size does not divide is cut off: of 96 bands the last 7, above 6.4 kHz
    at 16 kHz, change nothing; of 72 = 4 * 3 * 3 * 2 all are heard.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: factor on the filters `float > 0`.
        layers: rows (filters, (frames, mels) pooled).

    Returns:
        One vector an example `[shape=(batch, dims)]`; 64 dims at (188, 96).
    """
    x = BatchNormalization(name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, (filters, pool) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", name=f"conv{number}")(x)
        x = BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D([min(size, left) for size, left in zip(pool, x.shape[1:3], strict=True)])(x)
    return keras.layers.Flatten()(x)


def linear(features: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """The normalised log-mel itself as a vector, so that a head on it is a linear projection: the baseline of what a network must beat.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: there is nothing to scale.

    Returns:
        `[shape=(batch, frames * mels * channels)]`.
    """
    return keras.layers.Flatten()(BatchNormalization(name="input_norm")(as_image(features)))
