"""Networks of computer vision on the log-mel as an image.

Where keras.applications has the net, layers bear its names and hold weights of its shapes, so that its ImageNet files can be read. ImageNet's
images have three channels: a log-mel of one is repeated. Its mean and variance are taken out by the input norm, which has no parameters, so
counts are the published ones. Files of VGG and ResNet (keras.applications' "caffe" mode) were trained on images of a standard
deviation near 58 rather than 1: `pretrained.load_file` multiplies their first kernel by that.
"""

from __future__ import annotations

import keras

from tfmusic.models.blocks import BatchNormalization, cut, halving, input_norm, scaled

EPSILON = 1.001e-5  # of keras.applications' batch normalization in ResNet and DenseNet


def as_rgb(features: keras.KerasTensor) -> keras.KerasTensor:
    """Normalised features as an image; a single channel is repeated to three, any other number stays."""
    x = input_norm(features)
    return keras.layers.Concatenate(name="rgb")([x, x, x]) if x.shape[-1] == 1 else x


# --- VGG: filters, convolutions ------------------------------------------------------------------------------------------------------------
VGG13 = [(64, 2), (128, 2), (256, 2), (512, 2), (512, 2)]
VGG16 = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
VGG19 = [(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)]


def vgg(features: keras.KerasTensor, width: float = 1.0, blocks=VGG16) -> keras.KerasTensor:
    """VGG (Simonyan & Zisserman, ICLR 2015) with the mean over its last map in place of its two dense layers of 4,096 units.

    Those hold nine tenths of the published 138 M parameters and ask for images of one size. The convolutions count as keras.applications'
    without top: 9,404,992, 14,714,688 and 20,024,384. There is no batch normalization in it; He's initial weights keep the signal's size.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: factor on the filters `float > 0`.
        blocks: rows (filters, convolutions); a pool of 2 follows each, cut to what is left.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 512 dims.
    """
    x = as_rgb(features)  # (batch, frames, mels, 3)
    for block, (filters, convolutions) in enumerate(blocks, start=1):
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name)(x)
        x = keras.layers.MaxPooling2D(cut((2, 2), x))(x)
    return keras.layers.GlobalAveragePooling2D()(x)


# --- ResNet: filters, blocks ---------------------------------------------------------------------------------------------------------------
RESNET18 = [(64, 2), (128, 2), (256, 2), (512, 2)]
RESNET34 = RESNET50 = [(64, 3), (128, 4), (256, 6), (512, 3)]
RESNET101 = [(64, 3), (128, 4), (256, 23), (512, 3)]


def resnet(features: keras.KerasTensor, width: float = 1.0, stages=RESNET50, bottleneck: bool = True) -> keras.KerasTensor:
    """ResNet (He et al., CVPR 2016), with the mean over its last map.

    Of two kinds of blocks, as published: 18 and 34 of two 3x3 convolutions, without biases, 11,176,512 and 21,284,672 trainable
    parameters (torchvision's 11,689,512 and 21,797,672 less 513,000 of its head of 1,000 classes); 50 and 101 of a 3x3 convolution
    between two of 1x1, with keras.applications' biases, 23,534,592 and 42,552,832, its numbers.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: factor on the filters `float > 0`.
        stages: rows (filters, blocks); the first block of each stage but the first halves frames and bands.
        bottleneck: which kind of block.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 512 dims, or 2,048 of the bottlenecks.
    """
    x = _stem(as_rgb(features), scaled(64, width), bottleneck)  # (batch, frames / 4, mels / 4, filters)
    for stage, (filters, blocks) in enumerate(stages, start=2):
        for block in range(1, blocks + 1):
            strides = halving(x) if stage > 2 and block == 1 else (1, 1)
            x = _residual(x, scaled(filters, width), strides, bottleneck, block == 1, f"conv{stage}_block{block}")
    return keras.layers.GlobalAveragePooling2D()(x)


def _stem(x, filters: int, bias: bool):
    """A 7x7 convolution and a 3x3 pool, each halving, padded alike on both sides, which "same" is not."""
    strides = halving(x)
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = keras.layers.Conv2D(filters, 7, strides=strides, use_bias=bias, name="conv1_conv")(x)
    x = keras.layers.ReLU(name="conv1_relu")(BatchNormalization(epsilon=EPSILON, name="conv1_bn")(x))
    strides = halving(x)
    return keras.layers.MaxPooling2D(3, strides=strides, name="pool1_pool")(keras.layers.ZeroPadding2D(1, name="pool1_pad")(x))


def _residual(x, filters: int, strides: tuple[int, int], bottleneck: bool, first: bool, name: str):
    """Convolutions beside a shortcut, summed; a stage's first block projects the shortcut where its shape changes."""
    if bottleneck:
        rows = [(filters, 1, strides), (filters, 3, (1, 1)), (4 * filters, 1, (1, 1))]
    else:
        rows = [(filters, 3, strides), (filters, 3, (1, 1))]
    shortcut = x
    if first and (bottleneck or strides != (1, 1) or x.shape[-1] != filters):
        shortcut = _normed(x, rows[-1][0], 1, strides, bottleneck, f"{name}_0")
    for number, (count, side, step) in enumerate(rows, start=1):
        x = _normed(x, count, side, step, bottleneck, f"{name}_{number}")
        x = keras.layers.ReLU(name=f"{name}_{number}_relu")(x) if number < len(rows) else x
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([shortcut, x]))


def _normed(x, filters: int, side: int, strides: tuple[int, int], bias: bool, name: str):
    x = keras.layers.Conv2D(filters, side, strides=strides, padding="same", use_bias=bias, name=f"{name}_conv")(x)
    return BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)


# --- DenseNet: layers of the blocks --------------------------------------------------------------------------------------------------------
DENSENET121 = [6, 12, 24, 16]
DENSENET_GROWTH = 32


def densenet(features: keras.KerasTensor, width: float = 1.0, blocks=DENSENET121, growth=DENSENET_GROWTH) -> keras.KerasTensor:
    """DenseNet-121 (Huang et al., CVPR 2017): every layer of a block reads all before it; the mean over the last map.

    6,953,856 trainable parameters, keras.applications' number. With a head of 200 classes that is 7.2 M: the 12.5 M of FSD50K's DenseNet-121
    belong to a variant whose sizes the paper does not give.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: factor on the filters `float > 0`.
        blocks: layers of each block; between two of them channels, frames and bands are halved.
        growth: filters that a layer adds `int > 0`.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 1,024 dims.
    """
    x = _stem(as_rgb(features), 2 * scaled(growth, width), False)
    for block, layers in enumerate(blocks, start=2):
        if block > 2:
            x = _activated(x, f"pool{block - 1}")
            x = keras.layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False, name=f"pool{block - 1}_conv")(x)
            x = keras.layers.AveragePooling2D(cut((2, 2), x), name=f"pool{block - 1}_pool")(x)
        for layer in range(1, layers + 1):
            name = f"conv{block}_block{layer}"
            y = _activated(x, f"{name}_0")
            y = keras.layers.Conv2D(4 * scaled(growth, width), 1, use_bias=False, name=f"{name}_1_conv")(y)
            y = _activated(y, f"{name}_1")
            y = keras.layers.Conv2D(scaled(growth, width), 3, padding="same", use_bias=False, name=f"{name}_2_conv")(y)
            x = keras.layers.Concatenate(name=f"{name}_concat")([x, y])
    x = keras.layers.ReLU(name="relu")(BatchNormalization(epsilon=EPSILON, name="bn")(x))
    return keras.layers.GlobalAveragePooling2D()(x)


def _activated(x, name: str):
    return keras.layers.ReLU(name=f"{name}_relu")(BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x))
