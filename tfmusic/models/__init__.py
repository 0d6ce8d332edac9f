"""Networks from log-mel to logits, and the one place where front end and net are joined.

Importing this module registers every custom object, so `keras.saving.load_model` reads any model that tfmusic saved.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from tfmusic import augment, losses  # noqa: F401 (registers their layers)
from tfmusic.config import Net
from tfmusic.frontend import LogMel
from tfmusic.models import cnn, resnet

MODELS: dict[str, Callable[..., keras.Model]] = {"cnn2d": cnn.cnn2d, "short_chunk_res": resnet.short_chunk_res}


def build(net: Net, input_shape: tuple[int, ...], classes: int, policy: str = "float32") -> keras.Model:
    """The network a setting names, with fresh weights.

    Args:
        net: name, width and dropout.
        input_shape: (frames, mels) of the features, or (frames, mels, channels) of several resolutions.
        classes: number of logits `int > 0`.
        policy: Keras dtype policy of its layers, whatever the global one; weights and logits are float32 under each.

    Returns:
        Features `[shape=(batch, *input_shape)]` to logits `[shape=(batch, classes)]`.
    """
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return MODELS[net.name](input_shape, classes, width=net.width, dropout=net.dropout)
    finally:
        keras.config.set_dtype_policy(outer)


def deploy(frontend: LogMel, net: keras.Model, activation: str) -> keras.Model:
    """Front end and net as the one model that is evaluated, saved and exported.

    Args:
        frontend: waveform to features.
        net: features to logits.
        activation: "sigmoid" for independent labels, "softmax" for one of them.

    Returns:
        Waveform in [-1, 1] `[shape=(batch, samples)]` to probabilities `[shape=(batch, classes)]`, with the weights of `net`.
    """
    waveform = keras.Input((frontend.frontend.window_samples,), name="waveform")
    logits = net(frontend(waveform))
    return keras.Model(waveform, keras.layers.Activation(activation, name="scores")(logits), name="deployed")


def parts(deployed: keras.Model) -> tuple[LogMel, keras.Model, str]:
    """What `deploy` joined: front end, net and the name of the activation."""
    _, frontend, net, scores = deployed.layers
    return frontend, net, scores.activation.__name__
