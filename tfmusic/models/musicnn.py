"""Networks whose filters have the shapes of musical events."""

from __future__ import annotations

import keras
from keras import ops

from tfmusic.models.blocks import BatchNormalization, as_image, scaled

MUSICNN_FRONT = [  # filters, frames, share of the bands; 0: one band. At 96 bands 7 x 38, 7 x 67, then 128, 64 and 32 frames of each band
    (204, 7, 0.4),
    (204, 7, 0.7),
    (51, 128, 0),
    (51, 64, 0),
    (51, 32, 0),
]
MUSICNN_MIDDLE = [(64, 7)] * 3  # filters, frames
MUSICNN_DENSE = 200


def musicnn(features: keras.KerasTensor, width: float = 1.0, front=MUSICNN_FRONT, middle=MUSICNN_MIDDLE, dense=MUSICNN_DENSE) -> keras.KerasTensor:
    """musicnn (Pons & Serra, ISMIR late-breaking demos 2019): timbre and rhythm side by side, then pooling over the whole window.

    Tall filters hear timbre, long ones rhythm; each map is reduced to its maximum over the bands, so that 561 curves over time are left.
    Three convolutions over time with residual sums follow, and of all 561 + 3 * 64 = 753 curves the maximum and the mean. 787,157 trainable
    parameters at 96 bands with a head of 50 classes; published with dropout .5 before the head.

    As in the published nets ReLU stands before every batch normalization, the long filters pass over each band, and a filter's height is a
    share of the bands. Windows shorter than a filter work: it is padded on both sides.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 187 frames, 96 bands, 3 s at 16 kHz.
        width: factor on the filters `float > 0`.
        front: rows (filters, frames, share of the bands `0 <= float <= 1`).
        middle: rows (filters, frames), all of equal filters.
        dense: units of the dense layer `int > 0`.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 200 dims.
    """
    # No gradient may be asked of the large filters' one input channel: on CPU it took over half of a step. So no scale and offset here; those
    # of a checkpoint are another mean and variance: mean - beta sqrt(variance + epsilon) / gamma, (variance + epsilon) / gamma^2 - epsilon.
    x = BatchNormalization(center=False, scale=False, name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    curves = []
    for number, (filters, frames, share) in enumerate(front, start=1):
        padded = keras.layers.ZeroPadding2D((((frames - 1) // 2, frames // 2), 0))(x)  # "same" over time only
        height = max(1, int(share * x.shape[2]))
        y = keras.layers.Conv2D(scaled(filters, width), (frames, height), activation="relu", name=f"front{number}")(padded)
        y = BatchNormalization(name=f"front{number}_norm")(y)
        curves.append(ops.squeeze(keras.layers.MaxPooling2D((1, y.shape[2]))(y), axis=2))  # (batch, frames, filters)
    x = keras.layers.Concatenate()(curves)
    curves = [x]
    for number, (filters, frames) in enumerate(middle, start=1):
        y = keras.layers.Conv1D(scaled(filters, width), frames, padding="same", activation="relu", name=f"middle{number}")(x)
        y = BatchNormalization(name=f"middle{number}_norm")(y)
        x = y if number == 1 else keras.layers.add([y, x])
        curves.append(x)
    x = keras.layers.Concatenate()(curves)
    x = keras.layers.Flatten()(ops.stack([ops.max(x, axis=1), ops.mean(x, axis=1)], axis=-1))  # each curve's two: the checkpoints' order
    x = keras.layers.Dropout(0.5)(BatchNormalization(name="pool_norm")(x))
    x = keras.layers.Dense(scaled(dense, width), activation="relu", name="dense")(x)
    return BatchNormalization(name="dense_norm")(x)
