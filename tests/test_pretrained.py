"""Weights of other projects: musicnn's taggers against their own graph, PANNs' files against PyTorch, ImageNet's against keras.applications."""

import ast
import importlib.util
import os
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import librosa
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import EXPERIMENT, tone
from tfmusic import audio, evaluate, models, pretrained, run, training
from tfmusic.config import InputError, Net
from tfmusic.files import AUDIO_SUFFIXES
from tfmusic.models.blocks import BatchNormalization
from tfmusic.pretrained import INSTALL, PRETRAINED

PATCH = 187 * 256  # samples between the original's patches
PACKAGE = importlib.util.find_spec("musicnn")
needs_package = pytest.mark.skipif(PACKAGE is None, reason=f"the package musicnn is missing: {INSTALL}")


# --- the original -------------------------------------------------------------------------------------------------------------------------
def patches(waveform):
    """musicnn/extractor.py: the track's log-mel, cut into 187 frames side by side; in float32, for in float16 loud bands are infinite."""
    mel = librosa.feature.melspectrogram(y=waveform, sr=16_000, hop_length=256, n_fft=512, n_mels=96, pad_mode="reflect").T
    log_mel = np.log10(10_000 * mel + 1)
    return np.stack([log_mel[start : start + 187] for start in range(0, len(log_mel) - 187 + 1, 187)])


def original(folder, patches):
    """The published graph with its published weights: taggram and penultimate layer, patch by patch."""
    graph_def = tf.compat.v1.MetaGraphDef.FromString((folder / ".meta").read_bytes())
    for node in graph_def.graph_def.node:
        node.attr.pop("_output_shapes", None)  # of 2019, which today's importer refuses
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.compat.v1.train.import_meta_graph(graph_def).restore(session, f"{folder}/")
        inputs = {operation.outputs[0] for operation in graph.get_operations() if operation.type == "Placeholder"}
        (features,) = (tensor for tensor in inputs if tensor.shape.rank == 3)
        training = [tensor for tensor in inputs if tensor.dtype == tf.bool]
        tags = graph.get_tensor_by_name("model/Sigmoid:0")
        vector = tags.op.inputs[0].op.inputs[0].op.inputs[0]  # sigmoid of a sum of a product of it; its dropout does nothing here
        return session.run([tags, vector], {features: patches, **dict.fromkeys(training, False)})


def windows(waveform):
    """The same patches as windows of `deployed`: from 256 samples before each, reflected before the track's start as librosa of 2019 did."""
    padded = np.pad(waveform, (256, 256), mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(padded, 48_128)[::PATCH]


def penultimate(model):
    """A deployed model up to what its last layer takes, before the embedding is brought to unit length."""
    frontend, net, _ = models.parts(model)
    vector = keras.Model(net.input, net.get_layer("embedding").input)
    return lambda windows: vector(frontend(windows), training=False).numpy()


def clips():
    """12 s made here: chords with a beat, a glide, noise that swells from silence; and the files of TFMUSIC_AUDIO, 30 s of each."""
    time_s = np.arange(12 * 16_000) / 16_000
    chord = sum(tone(frequency_hz, 12, 16_000, 0.15, seed) for seed, frequency_hz in enumerate((220, 277.2, 329.6, 1760)))
    beat = np.random.default_rng(3).normal(0, 0.3, len(time_s)) * np.exp(-(time_s % 0.5) * 30)
    glide = 0.5 * np.sin(2 * np.pi * (100 * time_s + 150 * time_s**2))
    swell = np.random.default_rng(4).uniform(-1, 1, len(time_s)) * (time_s / 12) ** 4
    made = {"chord": chord + beat, "glide": glide, "swell": swell}
    files = sorted(Path(os.environ["TFMUSIC_AUDIO"]).iterdir()) if "TFMUSIC_AUDIO" in os.environ else []
    found = {path.name: audio.load(path, 16_000, duration_s=30) / 32_768 for path in files if path.suffix.lower() in AUDIO_SUFFIXES}
    return {name: waveform.astype("float32") for name, waveform in (made | found).items() if len(waveform) >= 48_128}


@pytest.mark.slow
@needs_package
@pytest.mark.parametrize("name", PRETRAINED)
def test_the_original_graph_agrees(name):
    """Tags, taggram and penultimate layer from the waveform on, through librosa and TensorFlow 1's graph on the one side; all within 1e-4.

    Measured on 16 clips: scores at most 2.2e-6 apart, the penultimate layer 6.5e-6 of values up to 8.
    """
    model = pretrained.deployed(name)
    folder = Path(PACKAGE.submodule_search_locations[0]) / PRETRAINED[name].folder
    for clip, waveform in clips().items():
        taggram, vectors = original(folder, patches(waveform))
        found = model(windows(waveform), training=False)
        np.testing.assert_allclose(found["tags"], taggram, rtol=0, atol=1e-4, err_msg=clip)
        np.testing.assert_allclose(np.mean(found["tags"], axis=0), taggram.mean(axis=0), rtol=0, atol=1e-4, err_msg=clip)
        np.testing.assert_allclose(penultimate(model)(windows(waveform)), vectors, rtol=1e-4, atol=1e-4, err_msg=clip)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(found["embedding"], unit, rtol=0, atol=1e-4, err_msg=clip)


@needs_package
def test_labels_are_those_of_the_package():
    """Read as text: the package cannot be imported beside today's librosa."""
    tree = ast.parse((Path(PACKAGE.submodule_search_locations[0]) / "configuration.py").read_text("utf-8"))
    written = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    for name, one in PRETRAINED.items():
        assert list(one.labels) == ast.literal_eval(written[f"{name[:3].upper()}_LABELS"])


# --- musicnn without the package ----------------------------------------------------------------------------------------------------------
SHAPES = {  # scope -> kernel, as musicnn 0.1.0 stores them
    "musicnn": {
        "conv2d": (7, 38, 1, 204),
        "conv2d_1": (7, 67, 1, 204),
        "conv2d_2": (128, 1, 1, 51),
        "conv2d_3": (64, 1, 1, 51),
        "conv2d_4": (32, 1, 1, 51),
        "conv2d_5": (7, 561, 1, 64),
        "conv2d_6": (7, 64, 1, 64),
        "conv2d_7": (7, 64, 1, 64),
        "dense": (1506, 200),
        "dense_1": (200, 50),
    },
    "vgg": {"1CNN": (3, 3, 1, 128), **{f"{number}CNN": (3, 3, 128, 128) for number in range(2, 6)}, "dense": (256, 50)},
}
NORMS = {"musicnn": [1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200], "vgg": [1, 128, 128, 128, 128, 128]}


def made_up(kind, seed=0):
    """Random arrays under the published names."""
    random = np.random.default_rng(seed)
    arrays = {}
    for scope, shape in SHAPES[kind].items():
        arrays[f"{scope}/kernel"] = random.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
        arrays[f"{scope}/bias"] = random.normal(0, 0.1, shape[-1])
    for number, size in enumerate(NORMS[kind]):
        scope = f"batch_normalization_{number}" if number else "batch_normalization"
        arrays |= {f"{scope}/{name}": random.uniform(0.5, 1.5, size) for name in ("gamma", "moving_mean", "moving_variance")}
        arrays[f"{scope}/beta"] = random.normal(0, 0.3, size)
    return {name: array.astype("float32") for name, array in arrays.items()}


def write_checkpoint(directory, name, arrays):
    """A checkpoint whose files have no name but their suffix, as TensorFlow 1 wrote them there."""
    folder = directory / PRETRAINED[name].folder
    folder.mkdir()
    tf.raw_ops.SaveV2(prefix=f"{folder}/", tensor_names=list(arrays), shape_and_slices=[""] * len(arrays), tensors=list(arrays.values()))
    return directory


def norm(x, arrays, number):
    gamma, beta, mean, variance = (arrays[f"batch_normalization{number and f'_{number}' or ''}/{name}"] for name in ORDER)
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


ORDER = ("gamma", "beta", "moving_mean", "moving_variance")


def conv(x, arrays, scope, padding):
    return np.maximum(tf.nn.conv2d(x, arrays[f"{scope}/kernel"], 1, padding) + arrays[f"{scope}/bias"], 0)


def dense(x, arrays, scope):
    return x @ arrays[f"{scope}/kernel"] + arrays[f"{scope}/bias"]


def musicnn(log_mel, arrays):
    """The published network line by line, in its own axes: (batch, frames, bands or curves, channels)."""
    x = norm(log_mel[..., None], arrays, 0)
    curves = []
    for number in range(5):
        scope = f"conv2d_{number}" if number else "conv2d"
        y = conv(np.pad(x, ((0, 0), (3, 3), (0, 0), (0, 0))), arrays, scope, "VALID") if number < 2 else conv(x, arrays, scope, "SAME")
        curves.append(norm(y, arrays, number + 1).max(axis=2))
    x = np.concatenate(curves, axis=2)
    curves, total = [x], 0
    for number in range(5, 8):
        y = conv(np.pad(x, ((0, 0), (3, 3), (0, 0)))[..., None], arrays, f"conv2d_{number}", "VALID")[:, :, 0]
        x = total = norm(y, arrays, number + 1) + total
        curves.append(total)
    x = np.concatenate(curves, axis=2)
    x = np.stack([x.max(axis=1), x.mean(axis=1)], axis=-1).reshape(len(x), -1)
    vector = norm(np.maximum(dense(norm(x, arrays, 9), arrays, "dense"), 0), arrays, 10)
    return dense(vector, arrays, "dense_1"), vector


def vgg(log_mel, arrays, pools):
    x = norm(log_mel[..., None], arrays, 0)
    for number, (pool, steps) in enumerate(pools, start=1):
        x = norm(conv(x, arrays, f"{number}CNN", "SAME"), arrays, number)
        x = tf.nn.max_pool2d(x, pool, steps, "VALID").numpy()
    vector = x.reshape(len(x), -1)
    return dense(vector, arrays, "dense"), vector


LAST_POOLS = [((2, 2), (2, 2)), ((2, 2), (2, 2)), ((4, 4), (4, 4))]
REFERENCES = {  # the pools of vgg: of MTT_vgg's graph and of MSD_vgg's, which differ
    "mtt_musicnn": ("musicnn", musicnn),
    "mtt_vgg": ("vgg", lambda log_mel, arrays: vgg(log_mel, arrays, [((4, 1), (2, 2)), ((2, 2), (2, 2)), *LAST_POOLS])),
    "msd_vgg": ("vgg", lambda log_mel, arrays: vgg(log_mel, arrays, [((4, 1), (4, 1)), ((1, 4), (1, 4)), *LAST_POOLS])),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_every_array_goes_where_it_belongs(name, tmp_path):
    """Random weights in the published files score as the published network does, written out above; saved and loaded too."""
    kind, reference = REFERENCES[name]
    model = pretrained.deployed(name, write_checkpoint(tmp_path, name, made_up(kind)))
    waveform = np.random.default_rng(1).uniform(-0.5, 0.5, 2 * PATCH).astype("float32") * np.linspace(0, 1, 2 * PATCH, dtype="float32")
    logits, vectors = reference(patches(waveform), made_up(kind))
    found = model(windows(waveform), training=False)
    np.testing.assert_allclose(found["tags"], 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-4)
    np.testing.assert_allclose(penultimate(model)(windows(waveform)), vectors, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["embedding"], vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rtol=0, atol=1e-4)
    if kind == "musicnn":
        model.save(tmp_path / "best.keras")
        again = keras.saving.load_model(tmp_path / "best.keras", compile=False)(windows(waveform), training=False)
        np.testing.assert_allclose(again["tags"], found["tags"], rtol=0, atol=1e-6)


def test_settings_of_the_taggers():
    """50 labels each, one of which is no other's; 187 frames and 187 frames on, as librosa counts 3 s: 1 + floor((48,000 - 256) / 256)."""
    for one in PRETRAINED.values():
        assert len(set(one.labels)) == 50 and one.net.name in pretrained.SCOPES
        assert one.hop_s * one.frontend.sample_rate_hz == PATCH == (1 + librosa.time_to_frames(3, sr=16_000, hop_length=256, n_fft=512)) * 256
        assert (one.frontend.window_samples - one.frontend.n_fft) // one.frontend.hop_samples + 1 == 187


def test_a_tagger_needs_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="^the weights of musicnn are not installed; install them with: pip install --no-deps musicnn==0.1.0$"):
        pretrained.deployed("mtt_musicnn")
    with pytest.raises(InputError, match="MTT_vgg must hold a checkpoint of musicnn 0.1.0"):
        pretrained.deployed("mtt_vgg", tmp_path)
    with pytest.raises(InputError, match="name must be one of mtt_musicnn, .*, got musicnn"):
        pretrained.deployed("musicnn", tmp_path)


DAMAGES = {
    "shape": ({"3CNN/kernel": np.zeros((3, 3, 64, 128))}, r"kernel of the layer conv3 must be of shape \(3, 3, 128, 128\), got \(3, 3, 64, 128\) in"),
    "missing": ({"batch_normalization_2/beta": None}, "must hold batch_normalization_2/beta for the layer norm2, got none"),
    "sign": ({"batch_normalization/gamma": -np.ones(1)}, "gamma of the layer input_norm, which has none of its own, must be positive, got -1 in"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_error_names_the_layer(damage, tmp_path):
    change, message = DAMAGES[damage]
    arrays = {name: array for name, array in (made_up("vgg") | change).items() if array is not None}
    with pytest.raises(InputError, match=message):
        pretrained.deployed("mtt_vgg", write_checkpoint(tmp_path, "mtt_vgg", {name: np.float32(array) for name, array in arrays.items()}))


def test_a_damaged_checkpoint_is_named(tmp_path):
    write_checkpoint(tmp_path, "mtt_vgg", made_up("vgg"))
    (tmp_path / "MTT_vgg" / ".index").write_bytes(b"nothing")
    with pytest.raises(InputError, match="MTT_vgg cannot be read as weights"):
        pretrained.deployed("mtt_vgg", tmp_path)


# --- PANNs --------------------------------------------------------------------------------------------------------------------------------
def panns_net(classes=7, epsilon=1e-3, width=4):
    """A small network with the layer names of PANNs' CNN10 and the heads of `models.build`."""
    features = keras.Input((12, 8), name="features")
    x = keras.ops.expand_dims(BatchNormalization(epsilon=epsilon, name="bn0")(features), -1)
    for number in (1, 2):
        x = keras.layers.Conv2D(width, (3, 5), padding="same", use_bias=False, name=f"conv_block1_conv{number}")(x)
        x = keras.layers.ReLU()(BatchNormalization(epsilon=epsilon, name=f"conv_block1_bn{number}")(x))
    x = keras.layers.Dense(6, activation="relu", name="fc1")(keras.ops.mean(x, axis=(1, 2)))
    outputs = {"logits": keras.layers.Dense(classes, name="logits")(x), "embedding": keras.layers.UnitNormalization(name="embedding")(x)}
    return keras.Model(features, outputs, name="cnn10")


def panns_torch(classes=7):
    """The same in PyTorch, under PANNs' own names, with statistics away from 0 and 1 and one dead channel."""
    torch = pytest.importorskip("torch")

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = (torch.nn.Conv2d(channels, 4, (3, 5), padding=(1, 2), bias=False) for channels in (1, 4))
            self.bn1, self.bn2 = torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)

        def forward(self, x):
            return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bn0, self.conv_block1 = torch.nn.BatchNorm2d(8), Block()
            self.fc1, self.fc_audioset = torch.nn.Linear(4, 6), torch.nn.Linear(6, classes)
            self.register_buffer("logmel_extractor", torch.zeros(3))  # files hold more than a net needs

        def forward(self, x):  # (batch, 1, frames, mels); bn0 sees mels as channels
            x = self.conv_block1(self.bn0(x.transpose(1, 3)).transpose(1, 3))
            return self.fc_audioset(torch.relu(self.fc1(x.mean(dim=(2, 3)))))

    torch.manual_seed(0)
    net = Small().eval()
    for name, values in net.state_dict().items():
        if name.endswith(("running_var", "running_mean")) or (".bn" in name or "bn0" in name) and name.endswith(("weight", "bias")):
            values.uniform_(0.2, 1.5)
    net.conv_block1.bn2.running_var[1] = 1e-7  # the epsilon decides
    return torch, net


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_panns_file_scores_as_in_pytorch(epsilon, tmp_path):
    """Axes, names, and 1e-5 under the root whatever our layer adds there; the file holds a sampler's numpy arrays beside the weights."""
    torch, original = panns_torch()
    sampler = {"indexes": np.arange(5), "pointer": np.float64(1)}
    torch.save({"iteration": 1, "model": original.state_dict(), "sampler": sampler}, tmp_path / "Cnn10.pth")
    net = panns_net(epsilon=epsilon)
    loaded = pretrained.load_file(net, tmp_path / "Cnn10.pth")
    assert loaded == ["bn0", "conv_block1_conv1", "conv_block1_bn1", "conv_block1_conv2", "conv_block1_bn2", "fc1", "logits"]
    features = np.random.default_rng(0).normal(size=(3, 12, 8)).astype("float32")
    with torch.no_grad():
        expected = original(torch.tensor(features)[:, None]).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(net(features, training=False)["logits"], expected, rtol=1e-4, atol=1e-4)


def test_a_file_of_older_numpy_is_read(tmp_path):
    """PANNs' files are of 2019: NumPy 1 called the maker of its arrays numpy.core.multiarray._reconstruct."""
    torch, original = panns_torch()
    torch.save({"model": original.state_dict(), "sampler": {"indexes": np.arange(5)}}, tmp_path / "new.pth", pickle_protocol=2)
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        assert any(b"numpy._core" in new.read(name) for name in new.namelist())
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core", b"numpy.core"))
    assert len(pretrained.load_file(panns_net(), tmp_path / "old.pth")) == 7


def test_a_pytorch_file_runs_no_code_and_needs_pytorch(tmp_path, monkeypatch):
    torch, _ = panns_torch()
    torch.save({"model": Path("anything")}, tmp_path / "Cnn10.pth")
    with pytest.raises(InputError, match="Cnn10.pth cannot be read as weights: Weights only load failed"):
        pretrained.load_file(panns_net(), tmp_path / "Cnn10.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="Cnn10.pth needs PyTorch to be read; install it with: pip install torch"):
        pretrained.load_file(panns_net(), tmp_path / "Cnn10.pth")


def test_another_head_stays_as_it_is(tmp_path):
    torch, original = panns_torch()
    torch.save(original.state_dict(), tmp_path / "Cnn10.pth")
    net = panns_net(classes=3)
    before = net.get_layer("logits").get_weights()
    assert "logits" not in pretrained.load_file(net, tmp_path / "Cnn10.pth")
    np.testing.assert_array_equal(net.get_layer("logits").get_weights()[0], before[0])


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    torch, original = panns_torch()
    path = tmp_path / "Cnn10.pth"
    torch.save(original.state_dict(), path)
    net = panns_net(width=3)
    before = [np.array(weight) for weight in net.weights]
    with pytest.raises(InputError, match=r"^kernel of the layer conv_block1_conv1 must be of shape \(3, 5, 1, 3\), got \(3, 5, 1, 4\) in .*pth$"):
        pretrained.load_file(net, path)
    for weight, old in zip(net.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    torch.save({name: value for name, value in original.state_dict().items() if not name.startswith("fc1.")}, path)
    with pytest.raises(InputError, match="must hold the layer fc1, got no other layers that the net has not"):
        pretrained.load_file(panns_net(), path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="must hold a state_dict of tensors"):
        pretrained.load_file(panns_net(), path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.pth", "a.pth cannot be read as weights"), ("a.h5", "a.h5 cannot be read as weights"), ("a.npz", "must end in .pth or .h5, got")],
)
def test_what_is_no_file_of_weights(name, message, tmp_path):
    with pytest.raises(InputError, match="must be a file of weights, got none|must end in"):
        pretrained.load_file(panns_net(), tmp_path / name)
    (tmp_path / name).write_bytes(b"nothing")
    if name.endswith("pth"):
        pytest.importorskip("torch")
    with pytest.raises(InputError, match=message):
        pretrained.load_file(panns_net(), tmp_path / name)


# --- ImageNet -----------------------------------------------------------------------------------------------------------------------------
def residual(named=True, epsilon=1.001e-5, classes=5):
    """A block of keras.applications' ResNet with our heads; without names for its layers, as another author would have."""
    layer = keras.layers
    call = (lambda name: {"name": name}) if named else (lambda name: {})
    features = keras.Input((16, 16, 3), name="features")
    x = layer.Conv2D(4, 7, strides=2, padding="same", **call("conv1_conv"))(features)
    x = shortcut = layer.ReLU()(layer.BatchNormalization(epsilon=epsilon, **call("conv1_bn"))(x))
    x = layer.Conv2D(4, 3, padding="same", **call("conv2_block1_1_conv"))(x)
    x = layer.BatchNormalization(epsilon=epsilon, **call("conv2_block1_1_bn"))(x)
    vector = layer.GlobalAveragePooling2D()(layer.add([x, shortcut]))
    if not classes:
        return keras.Model(features, vector, name="resnet18")
    outputs = {"logits": layer.Dense(classes, name="logits")(vector), "embedding": layer.UnitNormalization(name="embedding")(vector)}
    return keras.Model(features, outputs, name="resnet18")


def shaken(model, seed=0):
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(random.uniform(0.2, 1.0, weight.shape) * (0.1 if len(weight.shape) == 4 else 1))
    return model


def write_keras2(model, path):
    """The layout of the published notop files: names of layers and weights in attributes."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [f"{layer.name}/{weight.name}:0".encode() for weight in layer.weights]
            for weight in layer.weights:
                group[f"{layer.name}/{weight.name}:0"] = np.array(weight)


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("epsilon", [1.001e-5, 1e-3])
def test_imagenet_file_gives_the_same_vector(suffix, epsilon, tmp_path):
    """Files without top of Keras 2's layout, which Keras itself must read as well, and of Keras 3's; into a net of other epsilon too."""
    original, path = shaken(residual(classes=0)), tmp_path / f"resnet18{suffix}"
    if suffix == ".h5":
        write_keras2(original, path)
        again = residual(classes=0)
        again.load_weights(path)
        np.testing.assert_array_equal(again.weights[-1], original.weights[-1])
    else:
        original.save_weights(path)
    net = residual(epsilon=epsilon)
    assert pretrained.load_file(net, path) == ["conv1_conv", "conv1_bn", "conv2_block1_1_conv", "conv2_block1_1_bn"]
    image = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype("float32")
    expected = original(image, training=False).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(net(image, training=False)["embedding"], expected, rtol=0, atol=1e-5)


def test_layers_of_other_names_are_taken_in_order(tmp_path):
    original, net = shaken(residual(classes=0)), residual(named=False)
    write_keras2(original, tmp_path / "resnet18.h5")
    pretrained.load_file(net, tmp_path / "resnet18.h5")
    np.testing.assert_allclose(net.weights[-3], original.weights[-1], rtol=1e-6)  # before logits' kernel and bias: the last variance
    original.save_weights(tmp_path / "resnet18.weights.h5")  # counted by class: of no use without names
    with pytest.raises(InputError, match="must hold the layer conv2d.*, got conv1_bn, .* that the net has not"):
        pretrained.load_file(net, tmp_path / "resnet18.weights.h5")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VGG16", "ResNet50", "EfficientNetB0", "DenseNet121"])
def test_applications_in_both_layouts(name, tmp_path):
    """Whole networks of keras.applications, random weights, through both kinds of file."""
    build = getattr(keras.applications, name)
    first = build(weights=None, include_top=False, input_shape=(32, 32, 3), name=name.lower())
    write_keras2(first, tmp_path / "a.h5")
    first.save_weights(tmp_path / "a.weights.h5")
    image = np.random.default_rng(1).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    for file in ("a.h5", "a.weights.h5"):
        second = build(weights=None, include_top=False, input_shape=(32, 32, 3), name=name.lower())
        pretrained.load_file(second, tmp_path / file)
        np.testing.assert_allclose(second(image), first(image), rtol=1e-4, atol=1e-5)


APPLICATIONS = {  # ours -> keras.applications' net, what it must be fed where ours is fed images of deviation 1
    "vgg16": (keras.applications.VGG16, pretrained.PIXELS),
    "resnet50": (keras.applications.ResNet50, pretrained.PIXELS),
    "densenet121": (keras.applications.DenseNet121, 1),
    "efficientnet_b0": (keras.applications.EfficientNetB0, 255),  # divides by 255 itself, and normalises by layers with weights
}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_file_of_keras_applications_fills_our_net(name, tmp_path):
    """Whole networks, random weights, from both kinds of file; our input norm stays and here does nothing: (1 - epsilon) + epsilon is 1."""
    build, factor = APPLICATIONS[name]
    keras.utils.set_random_seed(3)
    theirs = build(weights=None, include_top=False, pooling="avg", input_shape=(64, 48, 3), name=name)
    write_keras2(theirs, tmp_path / "a.h5")
    theirs.save_weights(tmp_path / "a.weights.h5")
    images = np.random.default_rng(1).normal(size=(2, 64, 48, 3)).astype("float32")
    vectors = np.array(theirs(factor * images, training=False))
    for file in ("a.h5", "a.weights.h5"):
        ours = models.build(Net(name=name), (64, 48, 3), 5)
        assert not {"input_norm", "logits"} & {*pretrained.load_file(ours, tmp_path / file)}
        ours.get_layer("input_norm").moving_variance.assign([1 - 1e-3] * 3)
        found = np.array(ours(images, training=False)["embedding"])
        np.testing.assert_allclose(found, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-5)


def test_a_run_begins_with_a_file(records, tmp_path):
    """A narrow VGG's layers, as keras.applications would write them: without our input norm and head. Its first kernel is made for pixels."""
    small = Net(name="vgg16", width=1 / 32)
    original = models.build(small, (32, 16), 0)
    trunk = keras.Model(original.get_layer("block1_conv1").input, original.get_layer("block5_conv3").output)
    write_keras2(trunk, tmp_path / "vgg16.h5")
    still = EXPERIMENT.fit.model_copy(update={"epochs": 1, "learning_rate": 1e-12})
    experiment = EXPERIMENT.model_copy(update={"net": small.model_copy(update={"weights": tmp_path / "vgg16.h5"}), "fit": still})
    directory = training.fit(experiment, records, tmp_path / "run")
    assert run.read(directory).experiment.net.weights.is_absolute()
    _, net, _ = models.parts(evaluate.load_best(directory))
    for layer in [layer for layer in trunk.layers if layer.weights]:
        for number, (ours, theirs) in enumerate(zip(net.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True)):
            np.testing.assert_allclose(ours, theirs * (pretrained.PIXELS if (layer.name, number) == ("block1_conv1", 0) else 1), rtol=1e-6, atol=1e-9)
    (tmp_path / "vgg16.h5").unlink()
    training.resume(directory)  # a run that is begun has no need of the file
    with pytest.raises(InputError, match="vgg16.h5 must be a file of weights, got none"):
        training.fit(experiment, records, tmp_path / "other")
    with pytest.raises(ValueError, match="net.weights stand in place of --init"):
        type(experiment).model_validate(experiment.model_dump() | {"init": directory})
