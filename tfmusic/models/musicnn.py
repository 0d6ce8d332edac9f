"""Networks whose filters have the shapes of musical events."""

from __future__ import annotations

import keras
from keras import ops

from tfmusic.models.blocks import BatchNormalization, as_image, cut, scaled

MUSICNN_FRONT = [  # filters, frames, share of the bands; 0: one band. At 96 bands 7 x 38, 7 x 67, then 128, 64 and 32 frames of each band
    (204, 7, 0.4),
    (204, 7, 0.7),
    (51, 128, 0),
    (51, 64, 0),
    (51, 32, 0),
]
MUSICNN_MIDDLE = [(64, 7)] * 3  # filters, frames
MUSICNN_DENSE = 200
MUSICNN_VGG = [  # filters, pool (frames, bands), its steps; 3x3: (187, 96) -> (92, 48) -> (46, 24) -> (23, 12) -> (11, 6) -> (2, 1)
    (128, (4, 1), (2, 2)),
    (128, (2, 2), (2, 2)),
    (128, (2, 2), (2, 2)),
    (128, (2, 2), (2, 2)),
    (128, (4, 4), (4, 4)),
]
MUSICNN_VGG_MSD = [  # (187, 96) -> (46, 96) -> (46, 24) -> (23, 12) -> (11, 6) -> (2, 1)
    (128, (4, 1), (4, 1)),
    (128, (1, 4), (1, 4)),
    *MUSICNN_VGG[2:],
]


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
    # of a checkpoint are another mean and variance, see `pretrained`.
    x = BatchNormalization(center=False, scale=False, name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    x = _front(x, width, front)
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


def musicnn_vgg(features: keras.KerasTensor, width: float = 1.0, layers=MUSICNN_VGG) -> keras.KerasTensor:
    """The VGG that musicnn was published beside: five 3x3 convolutions, each with ReLU, batch normalization and max pooling.

    605,746 trainable parameters at (187, 96) with a head of 50 classes; published with dropout .25 after every pool but the last and .5 before
    the head. The first pool looks at one band and steps over the next. A pool is cut to the size that is left, so shorter windows and fewer
    bands work too.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 187 frames, 96 bands, 3 s at 16 kHz.
        width: factor on the filters `float > 0`.
        layers: rows (filters, (frames, bands) pooled, steps of the pool).

    Returns:
        One vector an example `[shape=(batch, dims)]`; 256 dims at (187, 96).
    """
    x = BatchNormalization(center=False, scale=False, name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, (filters, pool, steps) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.MaxPooling2D([min(size, left) for size, left in zip(pool, x.shape[1:3], strict=True)], steps)(x)
        if number < len(layers):
            x = keras.layers.Dropout(0.25)(x)
    return keras.layers.Flatten()(x)


def musicnn_vgg_msd(features: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """`musicnn_vgg` with the pools of the one net that was published for the Million Song Dataset; arguments and result as there.

    The graph stored beside those weights pools 4 frames, then 4 bands; the package's code builds the other pools for them, which fits all
    shapes and scores otherwise.
    """
    return musicnn_vgg(features, width, MUSICNN_VGG_MSD)


MUSICAL_RES_FRONT = [  # filters, frames, share of the bands; 0: one band
    (64, 7, 0.4),
    (64, 7, 0.7),
    (32, 64, 0),
    (32, 32, 0),
]
MUSICAL_RES = [128, 128, 256, 256]  # filters of the blocks; each halves the frames


def musical_res(features: keras.KerasTensor, width: float = 1.0, front=MUSICAL_RES_FRONT, blocks=MUSICAL_RES) -> keras.KerasTensor:
    """Musically shaped filters as in `musicnn`, then four residual blocks of two convolutions over time; maximum and mean of what is left.

    The report (S1) names the parts and gives no sizes: those are ours, and so are the 1,196,018 trainable parameters at (101, 128, 3) with a
    head of 50 classes. A block is two convolutions of 3 frames with batch normalization beside the input, which is projected where the
    filters change; ReLU and max pooling by 2 follow the sum.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; the report's: 101 frames, 128 bands, 3 resolutions.
        width: factor on the filters `float > 0`.
        front: rows (filters, frames, share of the bands `0 <= float <= 1`).
        blocks: filters of each block.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 512 dims.
    """
    x = BatchNormalization(center=False, scale=False, name="input_norm")(as_image(features))  # no gradient to the input, as in `musicnn`
    x = _front(x, width, front)  # (batch, frames, curves)
    for number, filters in enumerate(blocks, start=1):
        x = _block(x, scaled(filters, width), f"block{number}")
        x = keras.layers.MaxPooling1D(cut((2,), x))(x)
    return keras.layers.Concatenate()([keras.layers.GlobalMaxPooling1D()(x), keras.layers.GlobalAveragePooling1D()(x)])


def _front(x, width: float, front):
    """Tall and long filters side by side, each map reduced to its maximum over the bands: curves `[shape=(batch, frames, filters)]`."""
    curves = []
    for number, (filters, frames, share) in enumerate(front, start=1):
        padded = keras.layers.ZeroPadding2D((((frames - 1) // 2, frames // 2), 0))(x)  # "same" over time only
        height = max(1, int(share * x.shape[2]))
        y = keras.layers.Conv2D(scaled(filters, width), (frames, height), activation="relu", name=f"front{number}")(padded)
        y = BatchNormalization(name=f"front{number}_norm")(y)
        curves.append(ops.squeeze(keras.layers.MaxPooling2D((1, y.shape[2]))(y), axis=2))
    return keras.layers.Concatenate()(curves)


def _block(x, filters: int, name: str):
    y = keras.layers.Conv1D(filters, 3, padding="same", name=f"{name}_conv1")(x)
    y = keras.layers.ReLU()(BatchNormalization(name=f"{name}_norm1")(y))
    y = keras.layers.Conv1D(filters, 3, padding="same", name=f"{name}_conv2")(y)
    y = BatchNormalization(name=f"{name}_norm2")(y)
    if x.shape[-1] != filters:
        x = BatchNormalization(name=f"{name}_shortcut_norm")(keras.layers.Conv1D(filters, 1, name=f"{name}_shortcut")(x))
    return keras.layers.ReLU()(keras.layers.add([y, x]))
