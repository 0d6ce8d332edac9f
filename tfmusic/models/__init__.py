"""Networks from log-mel to logits and embedding, and the one place where front end and net are joined.

Importing this module registers every custom object, so `keras.saving.load_model` reads any model that tfmusic saved.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from tfmusic import augment, embedding_losses, losses  # noqa: F401 (registers their layers)
from tfmusic.config import Net
from tfmusic.frontend import LogMel
from tfmusic.models import cnn, musicnn, recurrent, resnet

# name -> trunk: features, width to one vector an example; the heads are the same for all
MODELS: dict[str, Callable[..., keras.KerasTensor]] = {
    "linear": cnn.linear,
    "cnn2d": cnn.cnn2d,
    "crnn": recurrent.crnn,
    "musicnn": musicnn.musicnn,
    "short_chunk_res": resnet.short_chunk_res,
}


HEADS = ("projection", "logits")  # layers with weights that `build` puts on a trunk


def build(net: Net, input_shape: tuple[int, ...], classes: int, policy: str = "float32") -> keras.Model:
    """The network a setting names, with fresh weights.

    Args:
        net: name, width, dropout and embedding.
        input_shape: (frames, mels) of the features, or (frames, mels, channels) of several resolutions.
        classes: number of logits `int >= 0`; 0: no logits.
        policy: Keras dtype policy of its layers, whatever the global one; weights and outputs are float32 under each.

    Returns:
        Features `[shape=(batch, *input_shape)]` to a dict: "logits" `[shape=(batch, classes)]`, a linear layer on the trunk's vector, and
        "embedding" of unit length `[shape=(batch, dims)]`, another linear layer of `net.embedding` dims, or the trunk's vector itself.
    """
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        features = keras.Input(input_shape, name="features")
        vector = MODELS[net.name](features, width=net.width)
        if net.dropout:
            vector = keras.layers.Dropout(net.dropout)(vector)
        outputs = {"logits": keras.layers.Dense(classes, dtype="float32", name="logits")(vector)} if classes else {}
        if net.embedding:
            vector = keras.layers.Dense(net.embedding, dtype="float32", name="projection")(vector)
        outputs["embedding"] = keras.layers.UnitNormalization(dtype="float32", name="embedding")(vector)
        return keras.Model(features, outputs, name=net.name)
    finally:
        keras.config.set_dtype_policy(outer)


def deploy(frontend: LogMel, net: keras.Model, activation: str) -> keras.Model:
    """Front end and net as the one model that is evaluated, saved and exported.

    Args:
        frontend: waveform to features.
        net: features to "embedding" and, where it has them, "logits".
        activation: "sigmoid" for independent labels, "softmax" for one of them.

    Returns:
        Waveform in [-1, 1] `[shape=(batch, samples)]` to a dict, with the weights of `net`: "embedding" `[shape=(batch, dims)]` and, for a
        net with logits, "tags", probabilities `[shape=(batch, classes)]`.
    """
    waveform = keras.Input((frontend.frontend.window_samples,), name="waveform")
    outputs = net(frontend(waveform))
    if "logits" in outputs:
        outputs["tags"] = keras.layers.Activation(activation, name="tags")(outputs.pop("logits"))
    return keras.Model(waveform, outputs, name="deployed")


def parts(deployed: keras.Model) -> tuple[LogMel, keras.Model, str]:
    """What `deploy` joined: front end, net and the name of the activation."""
    _, frontend, net, *tags = deployed.layers
    return frontend, net, tags[0].activation.__name__ if tags else "linear"
