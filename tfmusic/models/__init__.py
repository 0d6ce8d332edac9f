"""Networks from log-mel to logits and embedding, and the one place where front end and net are joined.

Importing this module registers every custom object, so `keras.saving.load_model` reads any model that tfmusic saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import keras

from tfmusic import augment, embedding_losses, losses  # noqa: F401 (registers their layers)
from tfmusic.config import FrontEnd, Net
from tfmusic.frontend import LogMel
from tfmusic.models import cnn, image, mobile, musicnn, panns, recurrent, resnet
from tfmusic.models.blocks import UnitLength

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


HEADS = ("projection", "logits", "targets_scaled")  # layers with weights that `build` puts on a trunk


Shape = tuple[int | None, ...]


def build(
    net: Net, input_shape: Shape | dict[str, Shape], classes: int, policy: str = "float32", targets: Sequence[tuple[float, float]] = ()
) -> keras.Model:
    """The network a setting names, with fresh weights.

    Args:
        net: name, width, dropout and embedding.
        input_shape: (frames, mels) of the features, (frames, mels, channels) of several resolutions, (None, dims) of sequences, (dims,) of a
            frozen net's vector; or {"features": one of the first two, "vector": (dims,)}, whose two networks are put side by side.
        classes: number of logits `int >= 0`; 0: no logits.
        policy: Keras dtype policy of its layers, whatever the global one; weights and outputs are float32 under each.
        targets: mean and standard deviation of every regression target, so that a fresh head begins where they lie.

    Returns:
        Features `[shape=(batch, *input_shape)]`, or a dict of them, to a dict: "logits" `[shape=(batch, classes)]` and "targets"
        `[shape=(batch, targets)]`, each a linear layer on the trunk's vector, and "embedding" of unit length `[shape=(batch, dims)]`, another
        linear layer of `net.embedding` dims, or the trunk's vector itself.
    """
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        shapes = input_shape if isinstance(input_shape, dict) else {"features": input_shape}
        inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
        vector = MODELS[net.name](inputs["features"], width=net.width)
        if "vector" in inputs:
            vector = keras.layers.Concatenate(name="fused")([vector, MODELS["mlp"](inputs["vector"], width=net.width)])
        if net.dropout:
            vector = keras.layers.Dropout(net.dropout)(vector)
        outputs = {"logits": keras.layers.Dense(classes, dtype="float32", name="logits")(vector)} if classes else {}
        if targets:
            means, deviations = zip(*targets, strict=True)
            scaled = keras.layers.Dense(len(targets), dtype="float32", name="targets_scaled")(vector)
            outputs["targets"] = keras.layers.Rescaling([*deviations], [*means], dtype="float32", name="targets")(scaled)
        if net.embedding:
            vector = keras.layers.Dense(net.embedding, dtype="float32", name="projection")(vector)
        outputs["embedding"] = UnitLength(name="embedding")(vector)
        return keras.Model(inputs if len(inputs) > 1 else inputs["features"], outputs, name=net.name)
    finally:
        keras.config.set_dtype_policy(outer)


def front_end(frontend: FrontEnd, frozen: keras.Model | None = None, alone: bool = False) -> LogMel | keras.Model:
    """What stands before the net: the log-mel, and a trained net whose weights stay.

    Args:
        frontend: of the log-mel.
        frozen: waveform of the same window to a vector `[shape=(batch, dims)]`; none: the log-mel alone.
        alone: the vector alone.

    Returns:
        Waveform `[shape=(batch, samples)]` to features, to the vector, or to {"features", "vector"}, which the net takes.
    """
    if frozen is None:
        return LogMel(frontend)
    frozen.trainable = False
    waveform = keras.Input((frontend.window_samples,), name="waveform")
    vector = frozen(waveform, training=False)
    return keras.Model(waveform, vector if alone else {"features": LogMel(frontend)(waveform), "vector": vector}, name="front_end")


def vector_of(deployed: keras.Model) -> keras.Model:
    """The part of a deployed model from the waveform to what its `logits` layer is fed, or, without one, to its embedding `[shape=(batch, dims)]`."""
    frontend, net, _ = parts(deployed)
    fed = [layer.input for layer in net.layers if layer.name == "logits"] or [net.output["embedding"]]
    waveform = keras.Input(deployed.inputs[0].shape[1:], name="waveform")
    return keras.Model(waveform, keras.Model(net.input, fed[0], name=net.name)(frontend(waveform)), name="frozen")


def deploy(frontend: LogMel | keras.Model | None, net: keras.Model, activation: str) -> keras.Model:
    """Front end and net as the one model that is evaluated, saved and exported.

    Args:
        frontend: waveform to features (`front_end`); none: the net reads sequences of features, and so does the model.
        net: features to "embedding" and, where it has them, "logits" and "targets".
        activation: "sigmoid" for independent labels, "softmax" for one of them.

    Returns:
        Waveform in [-1, 1] `[shape=(batch, samples)]` to a dict, with the weights of `net`: "embedding" `[shape=(batch, dims)]`, for a net with
        logits "tags", probabilities `[shape=(batch, classes)]`, and for one with targets these `[shape=(batch, targets)]`.
    """
    if frontend is None:
        heard = keras.Input(net.input.shape[1:], name="features")
        outputs = net(heard)
    else:
        samples = frontend.frontend.window_samples if isinstance(frontend, LogMel) else frontend.input.shape[1]
        heard = keras.Input((samples,), name="waveform")
        outputs = net(frontend(heard))
    if "logits" in outputs:
        outputs["tags"] = keras.layers.Activation(activation, name="tags")(outputs.pop("logits"))
    return keras.Model(heard, outputs, name="deployed")


def parts(deployed: keras.Model) -> tuple[LogMel | keras.Model | None, keras.Model, str]:
    """What `deploy` joined: front end, net and the name of the activation."""
    _, *joined = (layer for layer in deployed.layers if layer.name != "tags")
    activation = deployed.get_layer("tags").activation.__name__ if "tags" in deployed.output else "linear"
    return (joined[0] if len(joined) > 1 else None), joined[-1], activation


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models inside it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer
