"""Weights that others trained, in our networks: musicnn's four published taggers, and files of PANNs and of Keras Applications.

`PRETRAINED` says what the taggers are, `deployed` makes one of them whole, waveform to tags; `load_file` fills a network from a file that the
user has. Every array is compared with the layer that it goes to before anything changes, and an error names the layer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import pickle
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import models
from tfmusic.config import PRESETS, FrontEnd, InputError, Net
from tfmusic.frontend import LogMel

INSTALL = "pip install --no-deps musicnn==0.1.0"  # its own requirements are of 2019; nothing of it is imported
Arrays = list[np.ndarray]  # of one layer, in Keras' order: kernel, bias; gamma, beta, moving mean, moving variance


# --- what there is ------------------------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A published tagger."""

    net: Net
    labels: tuple[str, ...]  # in the order of its scores
    folder: str  # in the package musicnn
    published: str  # what its authors measured
    frontend: FrontEnd = PRESETS["musicnn_patch"]
    hop_s: float = 187 * 256 / 16_000  # between its windows: the original lays its patches side by side


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


# musicnn 0.1.0, configuration.py: MTT_LABELS and MSD_LABELS, the 50 most frequent tags of MagnaTagATune and of the Million Song Dataset
MTT_LABELS = _names(
    "guitar, classical, slow, techno, strings, drums, electronic, rock, fast, piano, ambient, beat, violin, vocal, synth, female, indian, opera, "
    "male, singing, vocals, no vocals, harpsichord, loud, quiet, flute, woman, male vocal, no vocal, pop, soft, sitar, solo, man, classic, choir, "
    "voice, new age, dance, male voice, female vocal, beats, harp, cello, no voice, weird, country, metal, female voice, choral"
)
MSD_LABELS = _names(
    "rock, pop, alternative, indie, electronic, female vocalists, dance, 00s, alternative rock, jazz, beautiful, metal, chillout, male vocalists, "
    "classic rock, soul, indie rock, Mellow, electronica, 80s, folk, 90s, chill, instrumental, punk, oldies, blues, hard rock, ambient, acoustic, "
    "experimental, female vocalist, guitar, Hip-Hop, 70s, party, country, easy listening, sexy, catchy, funk, electro, heavy metal, "
    "Progressive rock, 60s, rnb, indie pop, sad, House, happy"
)
MUSICNN, VGG, VGG_MSD = (Net(name=name, dropout=0.5) for name in ("musicnn", "musicnn_vgg", "musicnn_vgg_msd"))
PRETRAINED: dict[str, Pretrained] = {  # published: experiment.result in each folder, test ROC-AUC and PR-AUC
    "mtt_musicnn": Pretrained(MUSICNN, MTT_LABELS, "MTT_musicnn", "MagnaTagATune .907 / .383"),
    "mtt_vgg": Pretrained(VGG, MTT_LABELS, "MTT_vgg", "MagnaTagATune .903 / .382"),
    "msd_musicnn": Pretrained(MUSICNN, MSD_LABELS, "MSD_musicnn", "Million Song Dataset .880 / .289"),
    "msd_vgg": Pretrained(VGG_MSD, MSD_LABELS, "MSD_vgg", "Million Song Dataset .877 / .282"),
}
MUSICNN_LAYERS = ("front1", "front2", "front3", "front4", "front5", "middle1", "middle2", "middle3")
MUSICNN_NORMS = ("input_norm", *(f"{layer}_norm" for layer in MUSICNN_LAYERS), "pool_norm", "dense_norm")
VGG_NORMS = ("input_norm", *(f"norm{number}" for number in range(1, 6)))


def _counted(scope: str, layers: tuple[str, ...]) -> dict[str, str]:
    """Our layers to the names that TensorFlow 1 counts up: scope, scope_1, scope_2, ..."""
    return {layer: f"{scope}_{number}" if number else scope for number, layer in enumerate(layers)}


MUSICNN_SCOPES = {
    **_counted("conv2d", MUSICNN_LAYERS),
    **_counted("batch_normalization", MUSICNN_NORMS),
    **_counted("dense", ("dense", "logits")),
}
VGG_SCOPES = {**{f"conv{number}": f"{number}CNN" for number in range(1, 6)}, **_counted("batch_normalization", VGG_NORMS), "logits": "dense"}
SCOPES = {"musicnn": MUSICNN_SCOPES, "musicnn_vgg": VGG_SCOPES, "musicnn_vgg_msd": VGG_SCOPES}  # net -> our layer -> its scope in the checkpoint


# --- musicnn ------------------------------------------------------------------------------------------------------------------------------
def deployed(name: str, directory: Path | str | None = None, window_s: float | None = None) -> keras.Model:
    """One of musicnn's published taggers (Pons & Serra, ISMIR late-breaking demos 2019) with its original front end.

    Its windows are what the original cuts out of a whole track's spectrogram, 187 frames of 3.008 s, none of which holds padding: windows that
    start 256 samples before multiples of 187 * 256 give the original's patches exactly, those that start at 0 the same one frame (16 ms) later.
    A centred window of its own for each patch would fill half of its first frame with reflected sound: measured on music, that frame's log-mel
    is up to 3.5 off, a score up to .09, its mean over a track .016; a shift by one frame alone moves scores as much.

    Args:
        name: key of `PRETRAINED`.
        directory: with the folders MTT_musicnn, MTT_vgg, MSD_musicnn, MSD_vgg; none: the installed package musicnn, which is not imported.
        window_s: length of its windows; none: the original's. musicnn pools over time and takes others, vgg does not.

    Returns:
        What `models.deploy` makes, saved and loaded like a run's best.keras: waveform in [-1, 1] at 16 kHz `[shape=(batch, 48128)]` to "tags",
        probabilities in the order of the labels `[shape=(batch, 50)]`, and "embedding", the vector before the last layer, at unit length
        `[shape=(batch, 200)]`, of vgg `[shape=(batch, 256)]`.

    Raises:
        InputError: an unknown name, the package is not installed, or the files are damaged or of other shapes.

    >>> tags = deployed("mtt_musicnn")(np.zeros((1, 48_128)))["tags"]
    """
    if name not in PRETRAINED:
        raise InputError(f"name must be one of {', '.join(PRETRAINED)}, got {name}")
    pretrained = PRETRAINED[name]
    folder = folder_of(name, directory)
    settings = pretrained.frontend.model_copy(update={"window_s": window_s or pretrained.frontend.window_s})
    frontend = LogMel(settings)
    shape = frontend.compute_output_shape((1, settings.window_samples))[1:]
    net = models.build(pretrained.net, shape, len(pretrained.labels))
    found = _checkpoint(folder, SCOPES[pretrained.net.name])
    _fill([(net.get_layer(layer), arrays) for layer, arrays in found.items()], folder, epsilon=1e-3)
    return models.deploy(frontend, net, "sigmoid")


def folder_of(name: str, directory: Path | str | None = None) -> Path:
    """Where the checkpoint of a published tagger lies; arguments as of `deployed`.

    Raises:
        InputError: nowhere; the message says what to install.
    """
    if directory is None:
        package = importlib.util.find_spec("musicnn")  # importing it would ask for the librosa and TensorFlow of 2019
        if package is None or not package.submodule_search_locations:
            raise InputError(f"the weights of musicnn are not installed; install them with: {INSTALL}")
        directory = package.submodule_search_locations[0]
    folder = Path(directory) / PRETRAINED[name].folder
    if not (folder / ".index").is_file():
        raise InputError(f"{folder} must hold a checkpoint of musicnn 0.1.0 (.index and .data-00000-of-00001), got none; {INSTALL}")
    return folder


def _checkpoint(folder: Path, scopes: dict[str, str]) -> dict[str, Arrays]:
    """Arrays of each of our layers out of a TensorFlow 1 checkpoint whose prefix is empty."""
    with _readable(folder):
        reader = tf.compat.v1.train.NewCheckpointReader(f"{folder}/")  # tf.train.load_checkpoint would look for a file named `checkpoint`
        found = {}
        for layer, scope in scopes.items():
            names = ("gamma", "beta", "moving_mean", "moving_variance") if scope.startswith("batch_norm") else ("kernel", "bias")
            missing = [name for name in names if not reader.has_tensor(f"{scope}/{name}")]
            if missing:
                raise InputError(f"{folder} must hold {scope}/{missing[0]} for the layer {layer}, got none")
            found[layer] = [reader.get_tensor(f"{scope}/{name}") for name in names]
    for layer, (kernel, *_) in found.items():
        if kernel.ndim == 4 and kernel.shape[2] == 1 and layer.startswith("middle"):  # published over (frames, curves) with one channel
            found[layer][0] = kernel[:, :, 0]
    return found


# --- files that the user has --------------------------------------------------------------------------------------------------------------
def load_file(net: keras.Model, path: Path | str) -> list[str]:
    """Fills a network with the weights of a file: PANNs' of PyTorch (.pth), or ImageNet's of Keras Applications without top (.h5, .weights.h5).

    Layers are found by name, PyTorch's `conv_block1.conv1` as `conv_block1_conv1`. Those that no name fits take what is left of the file in its
    order, if that is as many layers and the file has an order (.h5 of Keras 2), or one layer.

    An `input_norm` without parameters is ours and stays as it is. It makes images of deviation 1, where VGG's and ResNet's of Keras Applications
    were trained on pixels: their first kernel is multiplied by the deviation of those.

    Kernels are turned to Keras' axes, (out, in, frames, bands) to (frames, bands, in, out), and variances so that a layer with another epsilon
    computes the same. `logits` are filled where the file has as many classes, else they stay as they are, like `projection`, which no file has.

    Args:
        net: of `models.build`, with layer names as published.
        path: of the file.

    Returns:
        Names of the layers that were filled.

    Raises:
        InputError: no such file, not readable, PyTorch is missing, or a layer does not fit; the network is unchanged then.

    >>> load_file(models.build(Net(name="cnn14"), (301, 64), 50), "Cnn14_mAP=0.431.pth")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise InputError(f"a file of weights must end in {' or '.join(READERS)}, got {path}")
    if not path.is_file():
        raise InputError(f"{path} must be a file of weights, got none")
    with _readable(path):
        found, ordered = READERS[path.suffix](path)
    logits = found.pop("logits", None)
    layers = [layer for layer in models.leaves(net) if layer.weights and layer.name not in models.HEADS and (layer.name in found or not _ours(layer))]
    unnamed = [layer for layer in layers if layer.name not in found]
    rest = [name for name in found if name not in {layer.name for layer in layers}]
    if unnamed and (len(rest) != len(unnamed) or not ordered and len(rest) > 1):
        raise InputError(f"{path} must hold the layer {unnamed[0].name}, got {', '.join(rest)[:200] or 'no other layers'} that the net has not")
    others = {layer.name: name for layer, name in zip(unnamed, rest, strict=False)}
    pairs = [(layer, found[others.get(layer.name, layer.name)]) for layer in layers]
    if path.suffix == ".h5" and net.name in OF_PIXELS and any(_ours(layer) for layer in models.leaves(net)):
        first, (kernel, *rest) = pairs[0]
        pairs[0] = first, [PIXELS * kernel, *rest]
    heads = [layer for layer in net.layers if layer.name == "logits"]
    if logits and heads and heads[0].units == logits[0].shape[-1]:
        pairs.append((heads[0], logits))
    _fill(pairs, path, EPSILON[path.suffix](net.name))
    return [layer.name for layer, _ in pairs]


def _ours(layer: keras.layers.Layer) -> bool:
    """Whether it is the input norm of a net that others published without one."""
    return layer.name == "input_norm" and not layer.trainable_weights


def _read_pytorch(path: Path) -> tuple[dict[str, Arrays], bool]:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{path} needs PyTorch to be read; install it with: pip install torch") from error
    array = [  # PANNs' files hold the state of their sampler too, numpy arrays; nothing else than arrays and tensors is ever unpickled
        (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
        np._core.multiarray._reconstruct,
        np._core.multiarray.scalar,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in ("int32", "int64", "float32", "float64")},
    ]
    with torch.serialization.safe_globals(array):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict):
        state = state.get("model", state)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} must hold a state_dict of tensors, by itself or under 'model', got {type(state).__name__}")
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in state.items():
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = tensor.numpy()
    found = {}
    for module, parts in modules.items():
        layer = "logits" if module == "fc_audioset" else module.replace(".", "_")
        if "running_mean" in parts:
            found[layer] = [parts[name] for name in ("weight", "bias", "running_mean", "running_var")]
        elif "weight" in parts and parts["weight"].ndim in (2, 4):
            kernel = parts["weight"].transpose((2, 3, 1, 0) if parts["weight"].ndim == 4 else (1, 0))
            found[layer] = [kernel, *([parts["bias"]] if "bias" in parts else [])]
    return found, False


def _read_h5(path: Path) -> tuple[dict[str, Arrays], bool]:
    import h5py

    with h5py.File(path) as file:
        ordered = "layer_names" in file.attrs
        if ordered:  # Keras 2: a group for every layer
            names = [_text(name) for name in file.attrs["layer_names"]]
            found = {name: [file[name][_text(weight)][()] for weight in file[name].attrs["weight_names"]] for name in names}
        else:  # Keras 3: groups are counted by class, the layer's name is an attribute
            groups = []
            file.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) and "name" in item.attrs else None)
            found = {_text(group.attrs["name"]): [group[key][()] for key in sorted(group, key=int)] for group in groups}
    return {name: arrays for name, arrays in found.items() if arrays}, ordered


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


READERS = {".pth": _read_pytorch, ".h5": _read_h5}  # suffix -> (path -> arrays of each layer, whether in the order of the net)
EPSILON = {  # of the file's batch normalizations, which files do not say, by the name of the net: PyTorch's, and those of keras.applications
    ".pth": lambda name: 1e-5,
    ".h5": lambda name: 1.001e-5 if name.startswith(("resnet", "densenet")) else 1e-3,
}

OF_PIXELS = {"vgg16", "vgg19", "resnet50", "resnet101"}  # whose images were not divided by their deviation: keras.applications' mode "caffe"
PIXELS = 58.0  # that deviation, of ImageNet's pixels of 0..255: .229, .224 and .225 of 255 in the three channels


# --- into the layers ----------------------------------------------------------------------------------------------------------------------
def _fill(pairs: list[tuple[keras.layers.Layer, Arrays]], source: Path, epsilon: float) -> None:
    """Assigns the arrays to the layers; all of them are checked first."""
    filled = []
    for layer, arrays in pairs:
        if isinstance(layer, keras.layers.BatchNormalization):
            arrays = _statistics(layer, arrays, source, epsilon)
        if len(arrays) != len(layer.weights):
            names = ", ".join(weight.name for weight in layer.weights)
            raise InputError(f"{layer.name} must have {len(layer.weights)} weights ({names}), got {len(arrays)} in {source}")
        for weight, array in zip(layer.weights, arrays, strict=True):
            if tuple(weight.shape) != array.shape:
                raise InputError(f"{weight.name} of the layer {layer.name} must be of shape {tuple(weight.shape)}, got {array.shape} in {source}")
        filled += zip(layer.weights, arrays, strict=True)
    for weight, array in filled:
        weight.assign(array.astype(keras.backend.standardize_dtype(weight.dtype)))


def _statistics(layer: keras.layers.BatchNormalization, arrays: Arrays, source: Path, epsilon: float) -> Arrays:
    """What makes a layer compute `gamma (x - mean) / sqrt(variance + epsilon) + beta`, though its own epsilon differs or it has no gamma and beta.

    Under the root only `variance + epsilon` counts, so `variance + epsilon - layer.epsilon` is as exact, and may be below 0. Without scale and
    offset the same line is `(x - mean') / sqrt(variance')`, `mean' = mean - beta sqrt(variance) / gamma`, `variance' = variance / gamma^2`.
    """
    if len(arrays) != 4:
        raise InputError(f"{layer.name} must have gamma, beta, mean and variance, got {len(arrays)} weights in {source}")
    gamma, beta, mean, variance = (array.astype(np.float64) for array in arrays)
    variance = variance + epsilon
    if layer.scale and layer.center:
        return [gamma, beta, mean, variance - layer.epsilon]
    if layer.scale or layer.center or (gamma <= 0).any():
        raise InputError(f"gamma of the layer {layer.name}, which has none of its own, must be positive, got {gamma.min():g} in {source}")
    return [mean - beta * np.sqrt(variance) / gamma, variance / gamma**2 - layer.epsilon]


UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, tf.errors.OpError)


@contextlib.contextmanager
def _readable(path: Path):
    """Whatever h5py, PyTorch or TensorFlow say of a damaged file is one line that names it."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as weights: {' '.join(str(error).split())[:200]}") from error
