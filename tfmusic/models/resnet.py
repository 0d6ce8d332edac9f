"""Residual networks, as tables."""

from __future__ import annotations

import keras

from tfmusic.models.blocks import BatchNormalization, as_image, scaled

SHORT_CHUNK_RES = [128, 128, 256, 256, 256, 256, 512]  # filters of the blocks; each halves frames and bands


def short_chunk_res(input_shape: tuple[int, ...], classes: int, width: float = 1.0, dropout: float = 0.5, blocks=SHORT_CHUNK_RES) -> keras.Model:
    """Short-chunk CNN with residual connections (Won et al., SMC 2020), the strongest plain CNN of that comparison.

    Seven residual blocks of 3x3 convolutions with stride 2, global max pooling, a dense layer of the last block's size, dropout and a linear
    layer. 12,104,244 trainable parameters at 128 bands and 50 classes.

    Args:
        input_shape: (frames, mels) or (frames, mels, channels); published: (231, 128), 3.69 s at 16 kHz.
        classes: number of logits `int > 0`.
        width: factor on the filters `float > 0`.
        dropout: before the linear layer `0 <= float < 1`; published .5.
        blocks: filters of each block.

    Returns:
        Features `[shape=(batch, *input_shape)]` to logits `[shape=(batch, classes)]`.
    """
    features = keras.Input(input_shape, name="features")
    x = BatchNormalization(name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, filters in enumerate(blocks, start=1):
        x = _block(x, scaled(filters, width), f"block{number}")
    x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dense(x.shape[-1], name="dense")(x)
    x = keras.layers.ReLU()(BatchNormalization(name="dense_norm")(x))
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(features, keras.layers.Dense(classes, dtype="float32", name="logits")(x), name="short_chunk_res")


def _block(x, filters: int, name: str):
    """Two convolutions beside one, summed; the first of each path strides."""
    y = keras.layers.Conv2D(filters, 3, strides=2, padding="same", name=f"{name}_conv1")(x)
    y = keras.layers.ReLU()(BatchNormalization(name=f"{name}_norm1")(y))
    y = keras.layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv2")(y)
    y = BatchNormalization(name=f"{name}_norm2")(y)
    shortcut = keras.layers.Conv2D(filters, 3, strides=2, padding="same", name=f"{name}_shortcut")(x)
    shortcut = BatchNormalization(name=f"{name}_shortcut_norm")(shortcut)
    return keras.layers.ReLU()(keras.layers.add([y, shortcut]))
