"""What single networks promise: the nets they are copies of, padding that is not heard, pools that fit what is left."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmusic import models
from tfmusic.config import Net
from tfmusic.models import blocks, image

APPLICATIONS = {  # ours -> keras.applications' net, what it does to an image first
    "vgg16": (keras.applications.VGG16, 1),
    "vgg19": (keras.applications.VGG19, 1),
    "resnet50": (keras.applications.ResNet50, 1),
    "resnet101": (keras.applications.ResNet101, 1),
    "densenet121": (keras.applications.DenseNet121, 1),
    "efficientnet_b0": (keras.applications.EfficientNetB0, 255),  # divides by 255 itself
}
SLOW = {"vgg19", "resnet101", "densenet121", "efficientnet_b0"}  # half a minute each; vgg16 and resnet50 stand for them


def build(name, shape, width=0.125, **settings):
    return models.build(Net(name=name, width=width, **settings), shape, 5)


# --- nets of keras.applications ------------------------------------------------------------------------------------------------------------
def weights(net):
    """Layer name to its weights, of layers that have any; preprocessing aside, whose layers have statistics and no parameters."""
    return {layer.name: layer.weights for layer in net.layers if layer.weights and not layer.name.startswith(("input_norm", "normalization"))}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in APPLICATIONS])
def test_an_image_net_is_that_of_keras_applications(name):
    """The same layers of the same shapes, so that its files of weights fit; and with its weights the same vector, to float32."""
    kind, factor = APPLICATIONS[name]
    keras.utils.set_random_seed(3)
    theirs = kind(weights=None, include_top=False, pooling="avg", input_shape=(64, 48, 3))
    ours = models.build(Net(name=name), (64, 48, 3), 0)
    expected = weights(theirs)
    assert {layer: [w.shape for w in found] for layer, found in weights(ours).items()} == {
        layer: [w.shape for w in found] for layer, found in expected.items()
    }
    for layer, found in expected.items():
        ours.get_layer(layer).set_weights([np.array(w) for w in found])
    ours.get_layer("input_norm").moving_variance.assign([1 - 1e-3] * 3)  # and epsilon is one: the image as it is
    images = np.random.default_rng(1).normal(size=(2, 64, 48, 3)).astype("float32")
    vectors = np.array(theirs(factor * images, training=False))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(ours(images, training=False)["embedding"], vectors, atol=1e-5)


def test_one_channel_is_repeated_to_three_and_any_other_number_stays():
    for shape, channels in (((32, 16), 3), ((32, 16, 1), 3), ((32, 16, 2), 2), ((32, 16, 3), 3)):
        assert image.as_rgb(keras.Input(shape)).shape == (None, 32, 16, channels)


# --- PANNs ---------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "kernels"), [("cnn6", {5: 4}), ("cnn10", {3: 8}), ("cnn14", {3: 12})])
def test_panns_bear_the_checkpoints_names(name, kernels):
    """fc_audioset is the head; bn0 normalises each of the bands by itself."""
    net = build(name, (64, 64), width=0.05)
    count = max(kernels.values())
    per_block = 1 if name == "cnn6" else 2
    expected = {f"conv_block{1 + i // per_block}_{part}{1 + i % per_block}" for i in range(count) for part in ("conv", "bn")}
    assert {layer.name for layer in net.layers if layer.weights} == expected | {"bn0", "fc1", "logits"}
    sides = [layer.kernel_size for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]
    assert {(side, side): number for side, number in kernels.items()} == {side: sides.count(side) for side in sides}
    assert net.get_layer("bn0").gamma.shape == (64,)
    assert {layer.epsilon for layer in net.layers if isinstance(layer, blocks.BatchNormalization)} == {1e-5}


def test_panns_pool_by_mean_over_bands_and_maximum_plus_mean_over_time():
    """On features constant over bands and linear in time t = 0..1, all kernels the centre's 1 and no normalization, nothing but pools is left."""
    net = models.build(Net(name="cnn6", width=1 / 64), (64, 64), 0)
    for layer in net.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape, "float32")
            kernel[2, 2, 0, 0] = 1
            layer.kernel.assign(kernel)
    ramp = np.broadcast_to(np.linspace(0, 1, 64, dtype="float32")[None, :, None], (1, 64, 64))
    pooled = keras.Model(net.input, net.get_layer("fc1").input)(ramp)
    means = np.linspace(0, 1, 64).reshape(4, 16).mean(1)  # four pools by 2
    np.testing.assert_allclose(np.array(pooled)[0, 0], means.max() + means.mean(), rtol=1e-4)  # five epsilons of 1e-5


# --- sizes ---------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("frames", "mels"), [(512, 128), (172, 83), (32, 16)])
def test_the_grid_of_cnn4_is_pytorchs_adaptive_pooling(frames, mels):
    """Of maps of 32 x 8, 10 x 5 and 2 x 1: cells that divide the map, that overlap, and that repeat what there is."""
    torch = pytest.importorskip("torch")
    net = build("cnn4", (frames, mels), width=0.05)
    (last,) = [layer for layer in net.layers if layer.name.startswith("max_pooling2d")][-1:]
    (flat,) = [layer for layer in net.layers if isinstance(layer, keras.layers.Flatten)]
    features = np.random.default_rng(0).normal(size=(2, frames, mels)).astype("float32")
    maps, found = keras.Model(net.input, [last.output, flat.input])(features)
    expected = torch.nn.AdaptiveAvgPool2d((4, 4))(torch.tensor(np.array(maps)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(516, 128), (431, 64), (20, 16)])
def test_cnn4_has_one_size_for_any_features(shape):
    assert models.build(Net(name="cnn4", width=0.125), shape, 5).count_params() == build("cnn4", (64, 64)).count_params()


def test_crnn_fsd_refuses_a_single_step():
    assert build("crnn_fsd", (16, 96)).get_layer("gru").input.shape == (None, 2, 2 * 16)
    with pytest.raises(ValueError, match="crnn_fsd must have frames for two steps of its GRUs, got 15 frames"):
        build("crnn_fsd", (15, 96))


# --- attention -----------------------------------------------------------------------------------------------------------------------------
def attended(x, w, b, v, mask):
    scores = np.where(mask, np.tanh(x @ w + b) @ v[:, 0], -np.inf)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return (shares[..., None] * x).sum(1) / shares.sum(1, keepdims=True)


def test_attention_pooling_is_its_formula_and_leaves_masked_steps_out():
    layer, random = blocks.AttentionPooling(4), np.random.default_rng(0)
    x = random.normal(size=(3, 7, 5)).astype("float32")
    mask = np.arange(7) < np.array([[7], [4], [1]])
    layer.build(x.shape)
    layer.set_weights([random.normal(size=w.shape) for w in layer.weights])
    values = [np.array(w) for w in layer.weights]
    np.testing.assert_allclose(layer(x), attended(x, *values, np.ones((3, 7), bool)), atol=1e-5)
    np.testing.assert_allclose(layer(x, mask=mask), attended(x, *values, mask), atol=1e-5)
    np.testing.assert_allclose(layer(x, mask=mask)[2], x[2, 0], atol=1e-6)
    assert blocks.AttentionPooling.from_config(layer.get_config()).units == 4
    with pytest.raises(ValueError, match="units must be > 0, got 0"):
        blocks.AttentionPooling(0)


# --- sequences and vectors -----------------------------------------------------------------------------------------------------------------
def padded(x, frames):
    return np.pad(x, ((0, 0), (0, frames - x.shape[1]), (0, 0)))


@pytest.mark.parametrize("frames", [None, 20], ids=["a loop", "unrolled"])
def test_lstm_does_not_hear_padding(frames):
    """Neither in inference nor in the statistics of a training step, whose moving mean is .1 of the mean over frames that are there."""
    net, x = build("lstm", (frames, 6)), np.random.default_rng(0).normal(2.0, 1.0, size=(4, 12, 6)).astype("float32")
    short = build("lstm", (None, 6))
    short.set_weights(net.get_weights())
    np.testing.assert_allclose(net(padded(x, 20), training=False)["logits"], short(x, training=False)["logits"], atol=1e-6)
    net(padded(x, 20), training=True)
    np.testing.assert_allclose(net.get_layer("input_norm").moving_mean, 0.1 * x.mean((0, 1)), rtol=1e-4)


def test_lstm_reads_each_example_up_to_its_own_end_and_in_order():
    net, x = build("lstm", (None, 6)), np.random.default_rng(0).normal(size=(1, 12, 6)).astype("float32")
    lengths = {length: padded(x[:, :length], 12) for length in (5, 12)}
    together = net(np.concatenate(list(lengths.values())), training=False)["logits"]
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(together[row : row + 1], net(x[:, :length], training=False)["logits"], atol=1e-6)
    assert np.abs(np.array(net(x[:, ::-1])["logits"]) - np.array(net(x)["logits"])).max() > 1e-4


def test_lstm_trains_on_sequences_of_which_one_is_empty():
    net, x = build("lstm", (None, 6)), np.random.default_rng(0).normal(size=(3, 9, 6)).astype("float32")
    x[1] = 0
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(net(x, training=True)["logits"] ** 2)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, [w.value for w in net.trainable_weights]))


def test_mlp_takes_an_embedding():
    net = models.build(Net(name="mlp"), (200,), 8)
    assert net(np.zeros((3, 200), "float32"))["logits"].shape == (3, 8)
    assert [layer.name for layer in net.layers if layer.weights] == ["hidden", "hidden_norm", "logits"]
