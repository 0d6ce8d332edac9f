"""Plain convolutional networks, as tables."""

from __future__ import annotations

import keras

from tfmusic.models.blocks import BatchNormalization, as_image, scaled

CNN2D = [  # filters, pool (frames, mels); 3x3, stride 1: (188, 96) -> (47, 24) -> (15, 8) -> (5, 2) -> (1, 1)
    (64, (4, 4)),
    (128, (3, 3)),
    (128, (3, 3)),
    (64, (5, 2)),
]


def cnn2d(input_shape: tuple[int, ...], classes: int, width: float = 1.0, dropout: float = 0.0, layers=CNN2D) -> keras.Model:
    """Convolution, batch normalization, ReLU and max pooling down to one vector, then a linear layer.

    299,892 trainable parameters at (188, 96) and 50 classes. A pool is cut to the size that is left, so shorter windows and fewer bands
    work too; longer ones flatten more positions. Whatever a pool's size does not divide is cut off: of 96 bands the last 7, above 6.4 kHz
    at 16 kHz, change nothing; of 72 = 4 * 3 * 3 * 2 all are heard.

    Args:
        input_shape: (frames, mels) or (frames, mels, channels).
        classes: number of logits `int > 0`.
        width: factor on the filters `float > 0`.
        dropout: before the linear layer `0 <= float < 1`.
        layers: rows (filters, (frames, mels) pooled).

    Returns:
        Features `[shape=(batch, *input_shape)]` to logits `[shape=(batch, classes)]`.
    """
    features = keras.Input(input_shape, name="features")
    x = BatchNormalization(name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, (filters, pool) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", name=f"conv{number}")(x)
        x = BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D([min(size, left) for size, left in zip(pool, x.shape[1:3], strict=True)])(x)
    x = keras.layers.Flatten()(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(features, keras.layers.Dense(classes, dtype="float32", name="logits")(x), name="cnn2d")
