"""Every network of the registry: shape, size, saving, export, and outputs that do not depend on the batch."""

import typing

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as flatbuffer
from ai_edge_litert.interpreter import Interpreter

from export import bundle
from tests.conftest import EXPERIMENT
from tfmusic import models
from tfmusic.config import Net
from tfmusic.frontend import LogMel

SIZES = {  # full size: frames and mels, classes, dimensions of the embedding, trainable parameters. (P): the published number, else our count
    "linear": ((188, 96), 50, 18_048, 902_452),  # the input norm's 2 and 188 * 96 * 50 + 50
    "mlp": ((200,), 50, 32, 8_146),  # 200 * 32 + 32, the norm's 64, 32 * 50 + 50
    "cnn1d": ((188, 96), 50, 128, 99_572),
    "cnn1d_3": ((173, 128), 8, 32, 49_706),
    "cnn1d_4": ((173, 128), 8, 256, 193_962),
    "cnn2d": ((188, 96), 50, 64, 299_892),  # (P)
    "cnn2d_4": ((173, 128), 50, 1_024, 655_348),
    "cnn2d_deep": ((188, 96), 50, 64, 447_732),  # (P)
    "fcn": ((1813, 96), 50, 64, 447_732),
    # Choi's Keras model counts 396,786. There the input norm has a scale and an offset for each of 1,440 frames, 2,880, here 2; and Keras' GRUs
    # have had a second bias since, 2 * 3 * 32: 396,786 - 2,878 + 192
    "crnn": ((188, 96), 50, 32, 394_100),
    "crnn_attention": ((188, 96), 50, 32, 394_100 + 32 * 32 + 32 + 32),
    "lstm": ((None, 128), 10, 128, 264_714),  # 256 of the norm, 4 * 128 * (128 + 128 + 1) twice, 128 * 10 + 10
    # The checkpoints of musicnn 0.1.0, kernel + bias + batch norm's two: front [7,38,1,204] 54,876, [7,67,1,204] 96,288, [128|64|32,1,1,51] 6,681,
    # 3,417, 1,785; middle [7,561,1,64] 251,520, [7,64,1,64] 28,864 twice; norm of the pooled 3,012, dense [1506,200] 301,800, dense_1 [200,50]
    # 10,050; less the input norm's 2, which here are in its statistics
    "musicnn": ((187, 96), 50, 200, 787_157),
    # The same package's vgg: [3,3,1,128] 1,280, [3,3,128,128] 147,584 four times, norms 256 five times, dense [256,50] 12,850; less those 2
    "musicnn_vgg": ((187, 96), 50, 256, 605_746),
    "musicnn_vgg_msd": ((187, 96), 50, 256, 605_746),
    "musical_res": ((101, 128, 3), 50, 512, 1_196_018),
    "short_chunk": ((231, 128), 50, 512, 3_687_348),
    "short_chunk_res": ((231, 128), 50, 512, 12_104_244),  # (P) as 12.1 M
    "cnn3": ((516, 128), 200, 256, 1_385_128),  # (P) as 1.4 M
    "cnn4": ((516, 128), 200, 256, 1_472_776),  # (P)
    "vgg_like": ((101, 96), 200, 256, 265_640),  # (P) as .27 M
    "crnn_fsd": ((101, 96), 200, 64, 959_816),  # (P) as .96 M
    "cnn6": ((1001, 64), 527, 512, 4_837_455),  # (P)
    "cnn10": ((1001, 64), 527, 512, 5_219_279),  # (P)
    "cnn14": ((1001, 64), 527, 2_048, 80_753_615),  # (P)
    "mobile": ((1000, 128), 527, 512, 983_599),  # (P) as .983 M
    # without top; against keras.applications itself in test_networks
    "efficientnet_b0": ((224, 224, 3), 0, 1_280, 4_007_548),  # (P)
    "densenet121": ((224, 224, 3), 0, 1_024, 6_953_856),  # (P)
    "vgg13": ((224, 224, 3), 0, 512, 9_404_992),
    "vgg16": ((224, 224, 3), 0, 512, 14_714_688),  # (P)
    "vgg19": ((224, 224, 3), 0, 512, 20_024_384),  # (P)
    "resnet18": ((224, 224, 3), 1000, 512, 11_689_512),  # (P) torchvision's
    "resnet34": ((224, 224, 3), 1000, 512, 21_797_672),  # (P) torchvision's
    "resnet50": ((224, 224, 3), 0, 2_048, 23_534_592),  # (P)
    "resnet101": ((224, 224, 3), 0, 2_048, 42_552_832),  # (P)
}
# Quick tests take one table of each function; all the others, and nets of a hundred layers and more, take minutes together
TABLES = {"cnn1d_3", "cnn1d_4", "cnn2d_4", "cnn2d_deep", "fcn", "cnn3", "cnn10", "cnn14", "vgg16", "vgg19", "resnet34", "resnet101"}
DEEP = {"mobile", "efficientnet_b0", "densenet121", "resnet50"}
NETWORKS = [pytest.param(name, marks=pytest.mark.slow) if name in TABLES | DEEP else name for name in models.MODELS]
SLOW_TO_CONVERT = {name for name in models.MODELS if name not in ("linear", "cnn2d", "crnn", "musicnn", "short_chunk_res")}
EXPORTED = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW_TO_CONVERT else name for name in models.MODELS]
HALVED = {"cnn2d", "crnn", "musicnn", "short_chunk_res"}  # that quick tests train in bfloat16
HEADS = {  # embedding, classes -> what the net gives
    "tags and the vector they come from": (0, 5),
    "tags and a projection": (6, 5),
    "a projection": (6, 0),
    "the vector": (0, 0),
}


def build(name, embedding=0, classes=5, shape=(32, 16), width=0.125):
    """A small network with weights away from their initial zeros and ones, statistics included."""
    net = models.build(Net(name=name, width=width, embedding=embedding), shape, classes)
    random = np.random.default_rng(0)
    for weight in net.weights:
        scale = np.prod(weight.shape[:-1]) ** -0.5
        weight.assign(random.uniform(0.1, 0.5, weight.shape) if len(weight.shape) == 1 else random.normal(0, scale, weight.shape))
    return net


def windows(count):
    return np.random.default_rng(2).uniform(-1, 1, (count, EXPERIMENT.frontend.window_samples)).astype("float32")


def agree(found, expected, **tolerance):
    """Two dicts of outputs."""
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], err_msg=name, **tolerance)


# --- every network ------------------------------------------------------------------------------------------------------------------------
def test_every_network_can_be_named_in_the_settings_and_has_its_size_here():
    assert set(typing.get_args(Net.model_fields["name"].annotation)) == set(models.MODELS) == set(SIZES)


@pytest.mark.parametrize("name", models.MODELS)
def test_parameter_count_is_the_published_one(name):
    shape, classes, dims, parameters = SIZES[name]
    net = models.build(Net(name=name), shape, classes)
    assert sum(int(np.prod(weight.shape)) for weight in net.trainable_weights) == parameters
    logits = {"logits": (None, classes)} if classes else {}
    assert {output: tensor.shape for output, tensor in net.output.items()} == {**logits, "embedding": (None, dims)}


@pytest.mark.parametrize(("embedding", "classes"), HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("name", ["linear", "cnn2d", "crnn", "musicnn"])
def test_heads(name, embedding, classes):
    """Logits where there are classes; an embedding of unit length always, of the asked dimensions, else of the trunk's."""
    features = np.random.default_rng(1).normal(size=(4, 32, 16)).astype("float32")
    outputs = build(name, embedding, classes)(features, training=False)
    assert outputs.keys() == ({"logits", "embedding"} if classes else {"embedding"})
    if classes:
        assert outputs["logits"].shape == (4, classes)
    trunk = build(name).output["embedding"].shape[1]
    assert outputs["embedding"].shape == (4, embedding or trunk)
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_tags_and_projection_come_from_the_same_vector(name):
    """Without a projection the embedding is the vector at unit length, so that the logits less their bias are parallel to kernel times it."""
    net, features = build(name), np.random.default_rng(1).normal(size=(4, 32, 16)).astype("float32")
    outputs = net(features, training=False)
    kernel, bias = net.get_layer("logits").get_weights()
    from_embedding = np.asarray(outputs["embedding"]) @ kernel
    from_vector = np.asarray(outputs["logits"]) - bias
    cosine = (from_embedding * from_vector).sum(1) / np.linalg.norm(from_embedding, axis=1) / np.linalg.norm(from_vector, axis=1)
    np.testing.assert_allclose(cosine, 1, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_do_not_depend_on_the_batch(name):
    net, features = build(name), np.random.default_rng(1).normal(size=(8, 32, 16)).astype("float32")
    together = net(features, training=False)
    alone = [net(features[i : i + 1], training=False) for i in range(8)]
    agree({key: np.concatenate([one[key] for one in alone]) for key in together}, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_several_resolutions_are_channels(name):
    """As of FrontEnd.resolutions_ms."""
    net = build(name, shape=(32, 16, 3))
    assert net.count_params() > build(name).count_params()
    assert net(np.zeros((2, 32, 16, 3), "float32"))["logits"].shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        pytest.param(name, policy, marks=[pytest.mark.slow] * (name in TABLES or (policy != "float32" and name not in HALVED)))
        for name in models.MODELS
        for policy in ("float32", "mixed_bfloat16")
    ],
)
def test_one_step_reaches_every_weight(name, policy):
    """Outputs are float32 under each policy, and every trainable weight gets a finite gradient; the embedding's head by a sum over it."""
    net = models.build(Net(name=name, width=0.125, embedding=6), (32, 16), 5, policy=policy)
    features = np.random.default_rng(1).normal(size=(8, 32, 16)).astype("float32")
    with tf.GradientTape() as tape:
        outputs = net(features, training=True)
        loss = sum(tf.reduce_sum(output * np.arange(1.0, 1 + output.shape[1], dtype="float32")) for output in outputs.values())
    assert {output.dtype for output in outputs.values()} == {tf.float32}
    for weight, gradient in zip(net.trainable_weights, tape.gradient(loss, [w.value for w in net.trainable_weights]), strict=True):
        assert gradient is not None and np.isfinite(gradient).all(), weight.path


def test_no_convolution_strides_over_an_axis_of_one_step():
    """oneDNN's bfloat16 gradient of such a kernel is garbage in most runs, where the width is 1."""
    for name in models.MODELS.keys() - TABLES:
        for layer in models.build(Net(name=name, width=0.05), (32, 16), 5).layers:
            if isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
                assert all(stride == 1 or size > 1 for stride, size in zip(layer.strides, layer.input.shape[1:-1], strict=True)), layer.name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_deployed_model_gives_the_same(name, tmp_path):
    deployed = models.deploy(LogMel(EXPERIMENT.frontend), build(name, embedding=6), "sigmoid")
    expected = deployed(windows(3))
    assert expected["tags"].shape == (3, 5) and 0 <= np.min(expected["tags"]) and np.max(expected["tags"]) <= 1
    assert expected["embedding"].shape == (3, 6)
    deployed.save(tmp_path / "model.keras")
    agree(keras.saving.load_model(tmp_path / "model.keras", compile=False)(windows(3)), expected, rtol=0)


@pytest.mark.parametrize("classes", [0, 5])
def test_parts_are_what_was_deployed(classes):
    frontend, net = LogMel(EXPERIMENT.frontend), build("cnn2d", classes=classes)
    deployed = models.deploy(frontend, net, "softmax")
    assert models.parts(deployed) == (frontend, net, "softmax" if classes else "linear")
    assert deployed.output.keys() == ({"tags", "embedding"} if classes else {"embedding"})


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_model_is_one_graph_of_builtins_and_gives_the_same(name):
    """Recurrent layers too, unrolled: a loop would be a subgraph, and TensorFlow's own an operator that a phone's runtime lacks."""
    deployed = models.deploy(LogMel(EXPERIMENT.frontend), build(name, embedding=6), "sigmoid")
    content = bundle.to_tflite(deployed)
    graph = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    assert len(graph.subgraphs) == 1 and not any(code.customCode for code in graph.operatorCodes)
    score = Interpreter(model_content=content).get_signature_runner("serving_default")
    expected = deployed(windows(3))
    for row in range(3):
        agree(score(waveform=windows(3)[row : row + 1]), {key: values[row : row + 1] for key, values in expected.items()}, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "linear"])  # which has nothing to scale
def test_width_scales_every_layer(name):
    sizes = [models.build(Net(name=name, width=width), (64, 32), 5).count_params() for width in (0.25, 0.5, 1.0)]
    assert sizes[0] * 1.9 < sizes[1] and sizes[1] * 1.9 < sizes[2]


# --- single networks ----------------------------------------------------------------------------------------------------------------------
def test_linear_is_a_linear_projection_of_the_features():
    """f(a + b) - f(a) = f(b) - f(0), of the logits; width changes nothing."""
    net = build("linear")
    a, b = np.random.default_rng(3).normal(size=(2, 4, 32, 16)).astype("float32")
    of = {key: np.asarray(net(value, training=False)["logits"]) for key, value in {"a": a, "b": b, "0": 0 * a, "a+b": a + b}.items()}
    np.testing.assert_allclose(of["a+b"] - of["a"], of["b"] - of["0"], atol=1e-4)
    assert build("linear", width=4.0).count_params() == net.count_params()


@pytest.mark.parametrize(("frames", "steps"), [(188, 15), (32, 2), (24, 2), (101, 8), (1366, 113)])
def test_crnn_recurs_over_time(frames, steps):
    """188 / 2 / 3 / 2 frames are 15 steps, and one column of bands; never a single step, which is a GRU with nothing to recur over."""
    net = models.build(Net(name="crnn", width=0.05), (frames, 96), 5)
    assert net.get_layer("gru1").input.shape == (None, steps, round(128 * 0.05))
    assert net.get_layer("gru2").input.shape[1] == steps


def test_crnn_refuses_a_single_step():
    with pytest.raises(ValueError, match="crnn must have frames for two steps of its GRUs, got 23 frames"):
        models.build(Net(name="crnn"), (23, 96), 5)


def test_crnn_hears_the_order_of_steps():
    """12 frames are a step. Of kernels symmetric in time the convolutions give of reversed frames the reversed steps: only a net that recurs
    over them can tell. The control is a palindrome, which reversed is the same."""
    net = build("crnn", shape=(48, 96), width=0.25)
    for number in range(1, 5):
        kernel, bias = net.get_layer(f"conv{number}").get_weights()
        net.get_layer(f"conv{number}").set_weights([(kernel + kernel[::-1]) / 2, bias])
    steps, embedding = keras.Model(net.input, net.get_layer("gru1").input), lambda features: net(features)["embedding"]

    features = np.repeat(np.random.default_rng(4).normal(scale=30, size=(4, 4, 96)), 12, axis=1).astype("float32")
    palindrome = features + features[:, ::-1]
    np.testing.assert_allclose(steps(features[:, ::-1]), np.asarray(steps(features))[:, ::-1], rtol=1e-4, atol=1e-4)
    assert (np.linalg.norm(embedding(features) - embedding(features[:, ::-1]), axis=1) > 0.02).all()
    assert (np.linalg.norm(embedding(palindrome) - embedding(palindrome[:, ::-1]), axis=1) < 1e-5).all()


def test_musicnn_hears_each_filter_where_it_belongs():
    """The published kernels at 96 bands, 40 % and 70 % of any other number, and at least one; a long filter is one band high."""
    for mels, heights in ((96, [38, 67, 1, 1, 1]), (128, [51, 89, 1, 1, 1]), (2, [1, 1, 1, 1, 1])):
        net = models.build(Net(name="musicnn", width=0.05), (32, mels), 5)
        kernels = [net.get_layer(f"front{number}").kernel.shape for number in range(1, 6)]
        assert [(frames, height) for frames, height, *_ in kernels] == list(zip([7, 7, 128, 64, 32], heights, strict=True))


def test_musicnn_pools_over_the_whole_window():
    """A window shifted by whole frames between silences longer than the longest filter scores the same."""
    net = build("musicnn", shape=(500, 16))
    sound = np.random.default_rng(5).normal(size=(1, 40, 16)).astype("float32")
    first, second = (np.pad(sound, ((0, 0), (start, 460 - start), (0, 0))) for start in (150, 250))
    agree(net(second), net(first), rtol=0, atol=1e-5)


def test_what_the_published_pools_of_cnn2d_leave_unheard():
    """96 bands / 4 / 3 are 8 columns, and the third pool takes 6 of them: 2 * 3 * 4 = 24 bands pass through no column that is kept. The
    3x3 convolutions bring 17 of them back over the border; the last 7 change nothing. 72 = 4 * 3 * 3 * 2 bands are all heard."""
    assert unheard_bands("cnn2d", (188, 96)) == list(range(89, 96))
    assert unheard_bands("cnn2d", (188, 72)) == []


@pytest.mark.parametrize("name", ["linear", "crnn", "musicnn"])
def test_the_others_hear_all_of_96_bands(name):
    """2 * 3 * 4 * 4 = 96; musicnn pools nothing away."""
    assert unheard_bands(name, (40, 96)) == []


def unheard_bands(name, shape):
    net = models.build(Net(name=name), shape, 5)
    features = tf.Variable(np.random.default_rng(0).normal(size=(4, *shape)).astype("float32"))
    with tf.GradientTape() as tape:
        logits = tf.reduce_sum(net(features, training=False)["logits"] * np.arange(1.0, 6.0, dtype="float32"))
    return np.flatnonzero(np.abs(tape.gradient(logits, features)).max(axis=(0, 1)) == 0).tolist()
