"""PANNs: the convolutional nets of Kong et al. (TASLP 2020), whose published weights come from AudioSet.

Layers bear the names of the published checkpoints, with an underscore for the dot, and their batch normalization adds 1e-5: a weight goes
where its name says.
"""

from __future__ import annotations

import keras
from keras import ops

from tfmusic.models.blocks import BatchNormalization, as_image, cut, scaled

CNN6 = [(64, (5,), 2), (128, (5,), 2), (256, (5,), 2), (512, (5,), 2)]  # filters, sides of the block's kernels, pool of frames and bands
CNN10 = [(64, (3, 3), 2), (128, (3, 3), 2), (256, (3, 3), 2), (512, (3, 3), 2)]
CNN14 = [*CNN10, (1024, (3, 3), 2), (2048, (3, 3), 1)]


def panns(features: keras.KerasTensor, width: float = 1.0, blocks=CNN14) -> keras.KerasTensor:
    """CNN6, CNN10 or CNN14: blocks of convolutions with mean pooling; mean over bands, then maximum plus mean over time; a dense layer.

    Trainable parameters with a head of 527 classes, the published numbers (table XII of the paper): 4,837,455, 5,219,279 and 80,753,615. Published
    with dropout .2 behind each block and .5 before the dense layer, which are here, and .5 before the head.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 1,001 frames, 64 bands, 10 s at 32 kHz.
        width: factor on the filters and units `float > 0`.
        blocks: rows (filters, sides of the kernels, pool); a pool is cut to what is left.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 512 dims, of CNN14 2,048.

    >>> panns(keras.Input((1001, 64)), blocks=CNN10).shape
    (None, 512)
    """
    x = as_image(features)  # (batch, frames, mels, channels)
    shape = x.shape[1:]
    x = BatchNormalization(epsilon=1e-5, name="bn0")(keras.layers.Reshape((shape[0], -1))(x))  # each band by itself
    x = keras.layers.Reshape(shape)(x)
    for block, (filters, sides, pool) in enumerate(blocks, start=1):
        for number, side in enumerate(sides, start=1):
            name = f"conv_block{block}_{{}}{number}"
            x = keras.layers.Conv2D(scaled(filters, width), side, padding="same", use_bias=False, name=name.format("conv"))(x)
            x = keras.layers.ReLU()(BatchNormalization(epsilon=1e-5, name=name.format("bn"))(x))
        x = keras.layers.AveragePooling2D(cut((pool, pool), x))(x) if pool > 1 else x
        x = keras.layers.Dropout(0.2)(x)
    x = ops.mean(x, axis=2)  # (batch, frames, filters)
    x = keras.layers.Dropout(0.5)(ops.max(x, axis=1) + ops.mean(x, axis=1))
    return keras.layers.Dense(x.shape[-1], activation="relu", name="fc1")(x)
