"""Layers that the networks share. BatchNormalization: Keras' own is the reference, in value, gradient and everything around."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmusic.models import blocks

SHAPES = [(12, 6), (5, 7, 6), (4, 5, 3, 6)]


def _pair(shape, seed=0, **arguments):
    """Our layer and Keras' with equal settings and equal weights, none of them trivial."""
    random = np.random.default_rng(seed)
    layers = [kind(momentum=0.8, **arguments) for kind in (blocks.BatchNormalization, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.build(shape)
    weights = [random.uniform(0.5, 2.0, weight.shape) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def _noise(shape, seed=1):
    return tf.constant(np.random.default_rng(seed).normal(0.5, 2.0, shape), tf.float32)


def _run(layer, x, training, factors):
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * factors)
    gradients = tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])
    return outputs, gradients


def _uses_kernel(layer, x, training=True):
    graph = tf.function(lambda x: layer(x, training=training)).get_concrete_function(x).graph
    return any(operation.type == "FusedBatchNormV3" for operation in graph.get_operations())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"rank {len(shape)}")
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("arguments", [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}, {"epsilon": 1e-2}], ids=str)
def test_values_and_gradients_are_keras(shape, training, arguments):
    ours, theirs = _pair(shape, **arguments)
    x, factors = _noise(shape), _noise(shape, seed=2)
    assert _uses_kernel(ours, x, training)
    ours.set_weights(theirs.get_weights())
    outputs, gradients = _run(ours, x, training, factors)
    expected, expected_gradients = _run(theirs, x, training, factors)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)
    assert len(gradients) == 1 + len(ours.trainable_weights)
    for gradient, of_keras in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, of_keras, rtol=1e-5, atol=1e-6 * np.abs(of_keras).max())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"rank {len(shape)}")
def test_moving_variance_is_unbiased(shape):
    """One step at momentum .8: .8 old + .2 new, new the batch's mean and n / (n - 1) of its variance, as numpy's ddof=1."""
    ours, theirs = _pair(shape)
    x = _noise(shape)
    before = [weight.numpy() for weight in (ours.moving_mean, ours.moving_variance)]
    ours(x, training=True)
    theirs(x, training=True)
    rows = x.numpy().reshape(-1, shape[-1])
    np.testing.assert_allclose(ours.moving_mean, 0.8 * before[0] + 0.2 * rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(ours.moving_variance, 0.8 * before[1] + 0.2 * rows.var(axis=0, ddof=1), rtol=1e-6)
    of_batch, of_keras = (np.asarray(layer.moving_variance) - 0.8 * before[1] for layer in (ours, theirs))
    np.testing.assert_allclose(of_batch / of_keras, len(rows) / (len(rows) - 1), rtol=1e-5)


def test_defaults():
    layer = blocks.BatchNormalization()
    assert (layer.momentum, layer.epsilon, layer.axis) == (0.9, 1e-3, -1)


def test_inference_and_a_frozen_layer_move_nothing():
    ours, theirs = _pair((4, 5, 3, 6))
    x = _noise((4, 5, 3, 6))
    before = ours.get_weights()
    ours(x, training=False)
    ours.trainable = theirs.trainable = False
    outputs = ours(x, training=True)  # frozen is inference, as Keras has it
    np.testing.assert_allclose(outputs, theirs(x, training=True), rtol=1e-6, atol=1e-6)
    for weight, old in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert not ours.trainable_weights


@pytest.mark.parametrize(
    ("shape", "arguments", "mask"),
    [
        ((4, 6, 5, 3), {"axis": 1}, None),
        ((4, 5, 6), {}, np.arange(20).reshape(4, 5) % 3 > 0),
        ((2, 3, 4, 5, 6), {}, None),
        ((4, 5, 6), {"dtype": "float64"}, None),
        ((4, 5, 6), {"renorm": True}, None),
    ],
    ids=["axis 1", "mask", "rank 5", "float64", "renorm"],
)
def test_what_the_kernel_does_not_know_is_keras(shape, arguments, mask):
    ours, theirs = _pair(shape, **arguments)
    x = tf.cast(_noise(shape), arguments.get("dtype", "float32"))
    assert not _uses_kernel(lambda x, training: ours(x, training=training, mask=mask), x)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(ours(x, training=True, mask=mask), theirs(x, training=True, mask=mask))
    for weight, of_keras in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, of_keras)


def test_axis_may_be_named_from_the_front():
    ours, theirs = _pair((4, 5, 3, 6), axis=3)
    x = _noise((4, 5, 3, 6))
    assert _uses_kernel(ours, x)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_statistics_in_float32(dtype):
    """Inputs and outputs are halves; means, variances, scale and offset are not: halves have 3 digits, the moving mean here shows 6."""
    shape = (8, 9, 7, 6)
    ours, theirs = _pair(shape, dtype=dtype)
    x, factors = tf.cast(_noise(shape), ours.compute_dtype), _noise(shape, seed=2)
    assert _uses_kernel(ours, x)
    ours.set_weights(theirs.get_weights())
    outputs, gradients = _run(ours, x, True, factors)
    expected, expected_gradients = _run(theirs, x, True, factors)
    assert outputs.dtype == expected.dtype == ours.compute_dtype
    assert {weight.dtype for weight in ours.weights} == {"float32"}
    np.testing.assert_allclose(*(tf.cast(each, tf.float32) for each in (outputs, expected)), rtol=1e-2, atol=1e-2)
    for gradient, of_keras in zip(gradients, expected_gradients, strict=True):
        gradient, of_keras = tf.cast(gradient, tf.float32).numpy(), tf.cast(of_keras, tf.float32).numpy()
        np.testing.assert_allclose(gradient, of_keras, rtol=2e-2, atol=2e-2 * np.abs(of_keras).max())
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)


def _net():
    """The layer behind a dense, a 1D and a 2D convolution, and on top of the input."""
    features = keras.Input((16, 12))
    x = blocks.BatchNormalization()(keras.ops.expand_dims(features, -1))
    x = keras.layers.Conv2D(8, 3, padding="same")(x)
    x = keras.layers.ReLU()(blocks.BatchNormalization()(x))
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Conv1D(10, 3, padding="same")(keras.layers.Reshape((8, 48))(x))
    x = keras.layers.ReLU()(blocks.BatchNormalization()(x))
    x = keras.layers.Dense(9)(keras.layers.GlobalAveragePooling1D()(x))
    x = keras.layers.ReLU()(blocks.BatchNormalization(scale=False)(x))
    return keras.Model(features, keras.layers.Dense(3)(x))


@pytest.fixture(scope="module")
def trained():
    """A net whose moving statistics are no longer 0 and 1."""
    keras.utils.set_random_seed(0)
    net = _net()
    net.compile(keras.optimizers.Adam(0.01), "mse")
    net.fit(_noise((64, 16, 12)), _noise((64, 3)), batch_size=16, epochs=5, verbose=0)
    return net


def test_saves_and_loads(trained, tmp_path):
    trained.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    x = _noise((3, 16, 12))
    np.testing.assert_array_equal(loaded(x), trained(x))
    for ours, copy in zip(trained.layers, loaded.layers, strict=True):
        assert type(copy) is type(ours) and copy.get_config() == ours.get_config()


def test_learns_and_an_example_stands_alone_at_inference(trained):
    """fit ran the kernel's own gradient; afterwards a batch of one equals the same example in a batch of eight."""
    x = _noise((8, 16, 12))
    np.testing.assert_allclose(trained(x[:1]), trained(x)[:1], rtol=1e-5, atol=1e-6)
    history = trained.history.history["loss"]
    assert history[-1] < history[0]


def test_folds_into_convolutions_in_tflite(trained, tmp_path):
    """Builtins only, and no arithmetic left but that of the norm on the input: multiply and add."""
    from ai_edge_litert.interpreter import Interpreter

    trained.export(tmp_path / "saved", input_signature=[tf.TensorSpec((1, 16, 12))], verbose=False)
    x = _noise((1, 16, 12))
    served = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(served.serve(x), trained(x), rtol=1e-5, atol=1e-6)
    interpreter = Interpreter(model_content=tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), trained(x), rtol=1e-4, atol=1e-5)
    operations = [operation["op_name"] for operation in interpreter._get_ops_details()]
    assert (operations.count("MUL"), operations.count("ADD")) == (1, 1), operations
    assert not {"SUB", "RSQRT", "DIV"} & set(operations)


def test_shapes_survive_symbolically():
    for shape in [(6,), (None, 6), (None, None, 6)]:
        assert blocks.BatchNormalization()(keras.Input(shape)).shape == (None, *shape)


def test_scaled_keeps_a_filter():
    assert [blocks.scaled(64, width) for width in (1.0, 0.5, 1e-3)] == [64, 32, 1]


def test_unit_length_is_exact_and_leaves_nothing_as_it_is():
    """(3, 4) / 5; the zero vector and its gradient are 0, where a division by the length is nan."""
    layer, vectors = blocks.UnitLength(), tf.constant([[3.0, 4.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        found = layer(vectors)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert np.isfinite(tape.gradient(found, vectors)).all()
