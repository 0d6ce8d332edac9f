"""Networks of inverted residuals: many channels inside a block, few between blocks; small enough for a phone."""

from __future__ import annotations

import keras

from tfmusic.models.blocks import BatchNormalization, halving, input_norm, scaled
from tfmusic.models.image import as_rgb

MOBILE_STEM = 8
MOBILE = [  # side of the kernel, filters inside, filters out, of the squeeze (0: none), activation, whether frames and bands are halved
    (3, 8, 8, 0, "relu", False),
    (3, 24, 16, 0, "relu", True),
    (3, 32, 16, 0, "relu", False),
    (5, 32, 16, 8, "relu", True),
    (5, 48, 16, 16, "relu", False),
    (5, 48, 16, 16, "relu", False),
    (3, 96, 32, 0, "hard_swish", True),
    (3, 80, 32, 0, "hard_swish", False),
    (3, 72, 32, 0, "hard_swish", False),
    (3, 72, 32, 0, "hard_swish", False),
    (3, 192, 48, 48, "hard_swish", False),
    (3, 272, 48, 72, "hard_swish", False),
    (5, 272, 64, 72, "hard_swish", True),
    (5, 384, 64, 96, "hard_swish", False),
    (5, 384, 64, 96, "hard_swish", False),
]
MOBILE_TOP, MOBILE_DENSE = 384, 512


def mobile(features: keras.KerasTensor, width: float = 1.0, blocks=MOBILE, top=MOBILE_TOP, dense=MOBILE_DENSE) -> keras.KerasTensor:
    """MobileNetV3 for phones (Howard et al., ICCV 2019) at 4 tenths of its width: mn04 of EfficientAT (Schmid et al., ICASSP 2023).

    Inverted residuals with squeeze-excitation and hard-swish, mean over the map, a dense layer. 983,599 trainable parameters with a head of
    527 classes; published as .983 M, with an AudioSet mAP of .432 when taught by transformers. Published with dropout .2 before the head.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 1,000 frames, 128 bands, 10 s at 32 kHz.
        width: factor on the filters and units `float > 0`; 1 is mn04.
        blocks: rows (side of the kernel, filters inside, filters out, filters of the squeeze or 0, activation, whether it halves).
        top: filters of the last convolution `int > 0`.
        dense: units of the dense layer `int > 0`.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 512 dims.

    >>> mobile(keras.Input((1000, 128))).shape
    (None, 512)
    """
    x = input_norm(features)  # (batch, frames, mels, channels)
    x = _convolved(x, scaled(MOBILE_STEM, width), 3, halving(x), "hard_swish", "stem_")
    for number, (side, inside, filters, squeeze, activation, halve) in enumerate(blocks, start=1):
        sizes = [scaled(inside, width), scaled(filters, width), scaled(squeeze, width) if squeeze else 0]
        x = _inverted(x, side, *sizes, (activation, "relu"), halve, 0.0, f"block{number}_")
    x = _convolved(x, scaled(top, width), 1, (1, 1), "hard_swish", "top_")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(scaled(dense, width), activation="hard_swish", name="dense")(x)


EFFICIENTNET_STEM, EFFICIENTNET_TOP = 32, 1280
EFFICIENTNET_B0 = [  # side of the kernel, repeats, filters out, factor on the filters inside, whether frames and bands are halved
    (3, 1, 16, 1, False),
    (3, 2, 24, 6, True),
    (5, 2, 40, 6, True),
    (3, 3, 80, 6, True),
    (5, 3, 112, 6, False),
    (5, 4, 192, 6, True),
    (3, 1, 320, 6, False),
]
EFFICIENTNET_DROP = 0.2  # share of the last block's examples that skip it; rises from 0 at the first


def efficientnet(features: keras.KerasTensor, width: float = 1.0, stages=EFFICIENTNET_B0) -> keras.KerasTensor:
    """EfficientNet-B0 (Tan & Le, ICML 2019), with the mean over its last map; in training a block is skipped now and then.

    4,007,548 trainable parameters, keras.applications' number without top; layers bear its names and hold its shapes. Published with dropout .2
    before the head. Here the input norm stands for its scaling of pixels.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; one channel is repeated to three.
        width: factor on the filters `float > 0`.
        stages: rows (side of the kernel, repeats, filters out, factor on the filters inside, whether the first halves).

    Returns:
        One vector an example `[shape=(batch, dims)]`; 1,280 dims.
    """
    x = as_rgb(features)  # (batch, frames, mels, 3)
    x = _convolved(x, scaled(EFFICIENTNET_STEM, width), 3, halving(x), "swish", "stem_")
    count, total = 0, sum(repeats for _, repeats, *_ in stages)
    for stage, (side, repeats, filters, factor, halve) in enumerate(stages, start=1):
        for repeat in range(repeats):
            inside, squeeze = factor * x.shape[-1], max(1, x.shape[-1] // 4)
            name, drop = f"block{stage}{chr(ord('a') + repeat)}_", EFFICIENTNET_DROP * count / total
            x = _inverted(x, side, inside, scaled(filters, width), squeeze, ("swish", "swish"), halve and not repeat, drop, name)
            count += 1
    x = _convolved(x, scaled(EFFICIENTNET_TOP, width), 1, (1, 1), "swish", "top_")
    return keras.layers.GlobalAveragePooling2D()(x)


def _inverted(x, side: int, inside: int, filters: int, squeeze: int, activations: tuple[str, str], halve: bool, drop: float, name: str):
    """Widen, filter each channel by itself, weigh the channels, narrow; the input is added where it has the output's shape.

    A depthwise convolution strides alike over both axes: where one has one step, neither is halved.
    """
    y = x if inside == x.shape[-1] else _convolved(x, inside, 1, (1, 1), activations[0], f"{name}expand_")
    strides = min(halving(y)) if halve else 1
    y = keras.layers.DepthwiseConv2D(side, strides=strides, padding="same", use_bias=False, name=f"{name}dwconv")(y)
    y = keras.layers.Activation(activations[0])(BatchNormalization(name=f"{name}bn")(y))
    if squeeze:
        weights = keras.layers.GlobalAveragePooling2D(keepdims=True)(y)
        weights = keras.layers.Conv2D(squeeze, 1, activation=activations[1], name=f"{name}se_reduce")(weights)
        weights = keras.layers.Conv2D(inside, 1, activation="sigmoid", name=f"{name}se_expand")(weights)
        y = keras.layers.Multiply()([y, weights])
    y = _convolved(y, filters, 1, (1, 1), "linear", f"{name}project_")
    if halve or x.shape[-1] != filters:
        return y
    y = keras.layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(y) if drop else y
    return keras.layers.Add(name=f"{name}add")([y, x])


def _convolved(x, filters: int, side: int, strides: tuple[int, int], activation: str, name: str):
    x = keras.layers.Conv2D(filters, side, strides=strides, padding="same", use_bias=False, name=f"{name}conv")(x)
    x = BatchNormalization(name=f"{name}bn")(x)
    return x if activation == "linear" else keras.layers.Activation(activation)(x)
