"""Residual networks, as tables."""

from __future__ import annotations

import keras

from tfmusic.models.blocks import BatchNormalization, as_image, halving, scaled

SHORT_CHUNK_RES = [128, 128, 256, 256, 256, 256, 512]  # filters of the blocks; each halves frames and bands


def short_chunk_res(features: keras.KerasTensor, width: float = 1.0, blocks=SHORT_CHUNK_RES) -> keras.KerasTensor:
    """Short-chunk CNN with residual connections (Won et al., SMC 2020), the strongest plain CNN of that comparison.

    Seven residual blocks of 3x3 convolutions with stride 2, global max pooling, a dense layer of the last block's size. 12,104,244 trainable
    parameters at 128 bands with a head of 50 classes; published with dropout .5 before the head.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 231 frames, 128 bands, 3.69 s at 16 kHz.
        width: factor on the filters `float > 0`.
        blocks: filters of each block.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 512 dims.
    """
    x = BatchNormalization(name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, filters in enumerate(blocks, start=1):
        x = _block(x, scaled(filters, width), f"block{number}")
    x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dense(x.shape[-1], name="dense")(x)
    return keras.layers.ReLU()(BatchNormalization(name="dense_norm")(x))


def _block(x, filters: int, name: str):
    """Two convolutions beside one, summed; the first of each path strides."""
    strides = halving(x)
    y = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", name=f"{name}_conv1")(x)
    y = keras.layers.ReLU()(BatchNormalization(name=f"{name}_norm1")(y))
    y = keras.layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv2")(y)
    y = BatchNormalization(name=f"{name}_norm2")(y)
    shortcut = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", name=f"{name}_shortcut")(x)
    shortcut = BatchNormalization(name=f"{name}_shortcut_norm")(shortcut)
    return keras.layers.ReLU()(keras.layers.add([y, shortcut]))
