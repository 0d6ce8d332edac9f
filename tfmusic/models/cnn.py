"""Plain networks, as tables: each a function from features to the one vector that the heads are put on."""

from __future__ import annotations

import keras
from keras import ops

from tfmusic.models.blocks import BatchNormalization, as_image, cut, input_norm, scaled

# --- two dimensions: filters, pool (frames, mels), side of the kernel ----------------------------------------------------------------------
CNN2D = [  # (188, 96) -> (47, 24) -> (15, 8) -> (5, 2) -> (1, 1)
    (64, (4, 4), 3),
    (128, (3, 3), 3),
    (128, (3, 3), 3),
    (64, (5, 2), 3),
]
CNN2D_DEEP = [  # (188, 96) -> (94, 48) -> (47, 24) -> (23, 12) -> (5, 4) -> (1, 1): all 96 bands are heard
    (64, (2, 2), 3),
    (128, (2, 2), 3),
    (128, (2, 2), 3),
    (128, (4, 3), 3),
    (64, (3, 4), 3),
]
FCN = [  # 29 s at 16 kHz: (1813, 96) -> (453, 48) -> (113, 24) -> (28, 12) -> (5, 4) -> (1, 1)
    (64, (4, 2), 3),
    (128, (4, 2), 3),
    (128, (4, 2), 3),
    (128, (5, 3), 3),
    (64, (4, 4), 3),
]
CNN2D_4 = [  # 4 s at 22,050 Hz, hop 512: (173, 128) -> (43, 32) -> (10, 8) -> (5, 4) -> (2, 2)
    (32, (4, 4), 9),
    (64, (4, 4), 7),
    (128, (2, 2), 5),
    (256, (2, 2), 3),
]


def cnn2d(features: keras.KerasTensor, width: float = 1.0, layers=CNN2D) -> keras.KerasTensor:
    """Convolution, batch normalization, ReLU and max pooling down to one vector.

    A pool is cut to the size that is left, so shorter windows and fewer bands work too; longer ones flatten more positions. Whatever a
    pool's size does not divide is cut off: of 96 bands `CNN2D` loses the last 7, above 6.4 kHz at 16 kHz; of 72 = 4 * 3 * 3 * 2 all are heard.

    The tables, with the trainable parameters of a head of 50 classes:

    * `CNN2D`: 299,892 at (188, 96), the published number.
    * `CNN2D_DEEP`: 447,732 at (188, 96), the published number; with dropout .5 before the head.
    * `FCN`: the five layers of Choi et al. (ISMIR 2016) with the filters of sota-music-tagging-models; 447,732 up to (1813, 96): it is
      `CNN2D_DEEP` with other pools, for 29 s. Our count. With dropout .5 before the head.
    * `CNN2D_4`: the two-dimensional twin of `CNN1D_4`; its sizes are ours, and so are the 655,348 parameters at (173, 128).

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: factor on the filters `float > 0`.
        layers: rows (filters, (frames, mels) pooled, side of the kernel).

    Returns:
        One vector an example `[shape=(batch, dims)]`; 64 dims of `CNN2D` at (188, 96).

    >>> cnn2d(keras.Input((188, 96)), layers=CNN2D_DEEP).shape
    (None, 64)
    """
    x = BatchNormalization(name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, (filters, pool, side) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), side, padding="same", name=f"conv{number}")(x)
        x = BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D(cut(pool, x))(x)
    return keras.layers.Flatten()(x)


SHORT_CHUNK = [128, 128, 256, 256, 256, 256, 512]  # filters of the layers; each halves frames and bands


def short_chunk(features: keras.KerasTensor, width: float = 1.0, layers=SHORT_CHUNK) -> keras.KerasTensor:
    """Short-chunk CNN (Won et al., SMC 2020): a VGG-like net on a few seconds; `resnet.short_chunk_res` is its sibling with shortcuts.

    Seven times 3x3 convolution, batch normalization, ReLU and max pooling by 2, then global max pooling and a dense layer of the last
    layer's size. 3,687,348 trainable parameters with a head of 50 classes: the paper's architecture, our count. Published with dropout .5
    before the head.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 231 frames, 128 bands, 3.69 s at 16 kHz.
        width: factor on the filters `float > 0`.
        layers: filters of each layer.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 512 dims.
    """
    x = BatchNormalization(name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, filters in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", name=f"conv{number}")(x)
        x = keras.layers.ReLU()(BatchNormalization(name=f"norm{number}")(x))
        x = keras.layers.MaxPooling2D(cut((2, 2), x))(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dense(x.shape[-1], name="dense")(x)
    return keras.layers.ReLU()(BatchNormalization(name="dense_norm")(x))


# --- one dimension: filters, frames of the kernel, frames pooled ---------------------------------------------------------------------------
CNN1D = [(64, 3, 4), (128, 3, 4), (128, 3, 4)]  # 188 frames -> 47 -> 11 -> 2
CNN1D_3 = [(32, 8, 4)] * 3  # 173 frames, 4 s at 22,050 Hz, hop 512 -> 43 -> 10 -> 2
CNN1D_4 = [(32, 9, 4), (64, 7, 4), (128, 5, 2), (256, 3, 2)]  # 173 frames -> 43 -> 10 -> 5 -> 2


def cnn1d(features: keras.KerasTensor, width: float = 1.0, layers=CNN1D) -> keras.KerasTensor:
    """Convolutions over frames, the mel bands as their channels: convolution, batch normalization, ReLU, max pooling; mean over what is left.

    A filter sees all bands at once, so that a tone a semitone higher is another pattern to it: `cnn2d` is what this is the baseline of.

    The reports give the number of layers and channels, and no sizes of kernels and pools: those are ours, and so are the counts of
    trainable parameters: `CNN1D` 99,572 with 96 bands and 50 classes; `CNN1D_3`, 3 layers of 32 channels, 49,706 and `CNN1D_4`, 4 layers
    whose channels double and kernels shrink, 193,962 with 128 bands and 8 classes.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: factor on the filters `float > 0`.
        layers: rows (filters, frames of the kernel, frames pooled); a pool is cut to what is left.

    Returns:
        One vector an example `[shape=(batch, dims)]`, of the last layer's filters.
    """
    x = BatchNormalization(name="input_norm")(as_image(features))
    x = keras.layers.Reshape((x.shape[1], -1))(x)  # (batch, frames, mels * channels)
    for number, (filters, frames, pool) in enumerate(layers, start=1):
        x = keras.layers.Conv1D(scaled(filters, width), frames, padding="same", name=f"conv{number}")(x)
        x = keras.layers.ReLU()(BatchNormalization(name=f"norm{number}")(x))
        x = keras.layers.MaxPooling1D(cut((pool,), x))(x)
    return keras.layers.GlobalAveragePooling1D()(x)


# --- sound events --------------------------------------------------------------------------------------------------------------------------
CNN4 = [32, 64, 128, 128]  # filters; each layer halves frames and bands: (516, 128) -> (32, 8), then (4, 4)
CNN3 = [48, 96, 128]
EVENTS_GRID = (4, 4)  # frames, mels
EVENTS_DENSE = [(512, 0.3), (256, 0.0)]  # units, dropout behind them; the .2 behind the last is `Net.dropout`


def cnn_events(features: keras.KerasTensor, width: float = 1.0, layers=CNN4, grid=EVENTS_GRID, dense=EVENTS_DENSE) -> keras.KerasTensor:
    """The sound event nets of report S2: 3x3 convolutions, a mean over each cell of a 4 x 4 grid, two dense layers.

    `CNN4`: 1,472,776 trainable parameters with a head of 200 classes, the published number, at any size of features. `CNN3`: published as "1.4 M"
    without its filters; ours count 1,385,128. Published with dropout .3 between the dense layers, which is here, and .2 before the head.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 516 frames, 128 bands, 6 s at 22,050 Hz.
        width: factor on the filters and units `float > 0`.
        layers: filters of each layer; a pool of 2 follows, cut to what is left.
        grid: (frames, mels) of the cells, which overlap where they do not divide the map.
        dense: rows (units, share dropped behind them `0 <= float < 1`).

    Returns:
        One vector an example `[shape=(batch, dims)]`; 256 dims.
    """
    x = input_norm(features)  # (batch, frames, mels, channels)
    for number, filters in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", name=f"conv{number}")(x)
        x = keras.layers.ReLU()(BatchNormalization(name=f"norm{number}")(x))
        x = keras.layers.MaxPooling2D(cut((2, 2), x))(x)
    for axis, count in enumerate(grid, start=1):
        x = ops.stack([ops.mean(cell, axis=axis) for cell in _cells(x, axis, count)], axis=axis)
    x = keras.layers.Flatten()(x)
    for number, (units, dropout) in enumerate(dense, start=1):
        x = keras.layers.Dense(scaled(units, width), activation="relu", name=f"dense{number}")(x)
        x = keras.layers.Dropout(dropout)(x) if dropout else x
    return x


def _cells(x, axis: int, count: int) -> list[keras.KerasTensor]:
    """PyTorch's adaptive cells along an axis: number i from floor(i n / count) up to ceil((i + 1) n / count). Keras' layer knows no axis of one."""
    size = x.shape[axis]
    bounds = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    return [x[:, start:stop] if axis == 1 else x[:, :, start:stop] for start, stop in bounds]


VGG_LIKE = [32, 32, 32, 0, 64, 64, 0, 128]  # filters; 0: frames and bands are halved
VGG_LIKE_DENSE = 256


def vgg_like(features: keras.KerasTensor, width: float = 1.0, layers=VGG_LIKE, dense=VGG_LIKE_DENSE) -> keras.KerasTensor:
    """The VGG-like baseline of FSD50K (Fonseca et al., TASLP 2022): its smallest net and its best one.

    3, 2 and 1 convolutions of 3x3 without bias, each with batch normalization and ReLU, a pool of 2 behind each group; maximum and mean over
    the map, and a dense layer. Published as .27 M; 265,640 trainable parameters with a head of 200 classes, counted on the same author's
    PyTorch model (github.com/edufonseca/uclser20). The pool behind the last group is left out: a maximum hears the same without it.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 101 frames, 96 bands, 1 s at 22,050 Hz.
        width: factor on the filters and units `float > 0`.
        layers: filters, or 0 for a pool.
        dense: units of the dense layer `int > 0`.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 256 dims.
    """
    x = input_norm(features)  # (batch, frames, mels, channels)
    for number, filters in enumerate(layers, start=1):
        if not filters:
            x = keras.layers.MaxPooling2D(cut((2, 2), x))(x)
            continue
        x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = keras.layers.ReLU()(BatchNormalization(name=f"norm{number}")(x))
    x = keras.layers.Concatenate()([keras.layers.GlobalMaxPooling2D()(x), keras.layers.GlobalAveragePooling2D()(x)])
    return keras.layers.Dense(scaled(dense, width), activation="relu", name="dense")(x)


# --- without convolutions ------------------------------------------------------------------------------------------------------------------
def linear(features: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """The normalised log-mel itself as a vector, so that a head on it is a linear projection: the baseline of what a network must beat.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: there is nothing to scale.

    Returns:
        `[shape=(batch, frames * mels * channels)]`.
    """
    return keras.layers.Flatten()(BatchNormalization(name="input_norm")(as_image(features)))


def mlp(features: keras.KerasTensor, width: float = 1.0, hidden: int = 32) -> keras.KerasTensor:
    """One hidden layer on the embedding of a frozen net: linear, batch normalization, ReLU; the head is the second linear layer.

    The shape is report S3's, 32 units of it too; 8,146 trainable parameters on musicnn's 200 dims with a head of 50 classes, our count.

    Args:
        features: an embedding `[shape=(batch, dims)]`; of any other shape all numbers of an example, in a row.
        width: factor on the units `float > 0`.
        hidden: units `int > 0`.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 32 dims.
    """
    x = keras.layers.Dense(scaled(hidden, width), name="hidden")(keras.layers.Flatten()(features))
    return keras.layers.ReLU()(BatchNormalization(name="hidden_norm")(x))
