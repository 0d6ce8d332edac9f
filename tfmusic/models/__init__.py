"""Networks from log-mel to logits and embedding, and the one place where front end and net are joined.

Importing this module registers every custom object, so `keras.saving.load_model` reads any model that tfmusic saved.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras

from tfmusic import augment, embedding_losses, losses  # noqa: F401 (registers their layers)
from tfmusic.config import Net
from tfmusic.frontend import LogMel
from tfmusic.models import cnn, image, mobile, musicnn, panns, recurrent, resnet

# name -> trunk: features, width to one vector an example; the heads are the same for all
MODELS: dict[str, Callable[..., keras.KerasTensor]] = {
    "linear": cnn.linear,
    "mlp": cnn.mlp,
    "cnn1d": cnn.cnn1d,
    "cnn1d_3": partial(cnn.cnn1d, layers=cnn.CNN1D_3),
    "cnn1d_4": partial(cnn.cnn1d, layers=cnn.CNN1D_4),
    "cnn2d": cnn.cnn2d,
    "cnn2d_4": partial(cnn.cnn2d, layers=cnn.CNN2D_4),
    "cnn2d_deep": partial(cnn.cnn2d, layers=cnn.CNN2D_DEEP),
    "fcn": partial(cnn.cnn2d, layers=cnn.FCN),
    "crnn": recurrent.crnn,
    "crnn_attention": partial(recurrent.crnn, attention=32),
    "lstm": recurrent.lstm,
    "musicnn": musicnn.musicnn,
    "musical_res": musicnn.musical_res,
    "short_chunk": cnn.short_chunk,
    "musicnn_vgg": musicnn.musicnn_vgg,
    "musicnn_vgg_msd": musicnn.musicnn_vgg_msd,
    "short_chunk_res": resnet.short_chunk_res,
    "cnn3": partial(cnn.cnn_events, layers=cnn.CNN3),
    "cnn4": cnn.cnn_events,
    "vgg_like": cnn.vgg_like,
    "crnn_fsd": recurrent.crnn_events,
    "cnn6": partial(panns.panns, blocks=panns.CNN6),
    "cnn10": partial(panns.panns, blocks=panns.CNN10),
    "cnn14": panns.panns,
    "mobile": mobile.mobile,
    "efficientnet_b0": mobile.efficientnet,
    "densenet121": image.densenet,
    "vgg13": partial(image.vgg, blocks=image.VGG13),
    "vgg16": image.vgg,
    "vgg19": partial(image.vgg, blocks=image.VGG19),
    "resnet18": partial(image.resnet, stages=image.RESNET18, bottleneck=False),
    "resnet34": partial(image.resnet, stages=image.RESNET34, bottleneck=False),
    "resnet50": image.resnet,
    "resnet101": partial(image.resnet, stages=image.RESNET101),
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
