"""Filters, activations and gradients of the first layers, of nets whose numbers are known."""

import keras
import numpy as np
import pytest

from tfmusic import layers, pictures, run
from tfmusic.config import InputError


def test_activations_and_gradients_of_a_net_by_hand():
    """One frame of bands (1, 2), kernel rows (3, -1) to one map, doubled by the logits' weight: activation 1, logit 2.

    d logit / d kernel = 2 x input."""
    features = keras.Input((1, 2))
    x = keras.layers.Dense(1, use_bias=False, name="first")(features)
    logits = keras.layers.Dense(1, use_bias=False, name="logits")(keras.layers.Flatten()(x))
    net = keras.Model(features, {"logits": logits})
    net.set_weights([np.array([[3.0], [-1.0]]), np.array([[2.0]])])
    found = layers.of_first_layers(net, np.array([[[1.0, 2.0]]], np.float32), 5)
    assert [layer.name for layer, _, _ in found] == ["first", "logits"]
    (_, activation, gradient), (_, score, of_logits) = found
    np.testing.assert_allclose(activation, [[1.0]])
    np.testing.assert_allclose(gradient, [[2.0], [4.0]])
    assert (score.item(), of_logits.item()) == (2.0, 1.0)


def test_kernels_and_maps_are_upright():
    """Frames to the right, bands upwards, the mean over the inputs; a kernel over time shows its inputs, a dense one is a column each."""
    kernel = np.arange(3 * 4 * 2 * 5.0).reshape(3, 4, 2, 5)
    planes = layers._planes(kernel)
    assert planes.shape == (5, 4, 3) and planes[1, 3, 2] == kernel[2, 3, :, 1].mean()
    assert layers._planes(np.zeros((3, 7, 5))).shape == (5, 7, 3) and layers._planes(np.zeros((7, 5))).shape == (5, 7, 1)
    output = np.arange(6.0 * 4 * 2).reshape(6, 4, 2)
    assert layers._maps(output)[1, 3, 5] == output[5, 3, 1] and layers._maps(output[..., 0]).shape == (1, 4, 6)


def test_tiles_share_a_scale():
    figure = pictures.tiles(np.stack([np.full((4, 3), value) for value in (-2.0, 1.0)]), signed=True)
    assert {axes.images[0].get_clim() for axes in figure.axes[:2]} == {(-2.0, 2.0)}
    assert len(pictures.tiles(np.zeros((50, 4, 3))).axes) == pictures.TILES + 1


def test_a_run_s_first_layers_are_shown(trained):
    """Input, and three pictures of each of two layers; the window can be heard; TensorBoard has the same."""
    text = layers.write(trained, count=2, track=1).read_text()
    assert text.count("data:image/png") == 7 and text.count("<audio") == 1 and "http" not in text and "conv1 (Conv2D)" in text
    assert [*(trained / run.TENSORBOARD / "layers").glob("events*")]
    with pytest.raises(InputError, match="--track in 0..11, got 2 and 12"):
        layers.write(trained, track=12)
