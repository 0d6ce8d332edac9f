"""Every network of the registry: shape, size, saving, and scores that do not depend on the batch."""

import keras
import numpy as np
import pytest

from tests.conftest import EXPERIMENT
from tfmusic import models
from tfmusic.config import InputError, Net
from tfmusic.frontend import LogMel

SIZES = {  # full size: input, classes, trainable parameters (derived in the networks' tables and the papers)
    "cnn2d": ((188, 96), 50, 299_892),
    "short_chunk_res": ((231, 128), 50, 12_104_244),
}


def small(name):
    net = models.build(Net(name=name, width=0.125), (32, 16), 5)
    random = np.random.default_rng(0)
    for weight in net.weights:  # away from the initial zeros and ones, statistics included
        weight.assign(random.uniform(0.1, 0.5, weight.shape))
    return net


@pytest.mark.parametrize("name", models.MODELS)
def test_parameter_count_is_the_published_one(name):
    shape, classes, parameters = SIZES[name]
    net = models.build(Net(name=name), shape, classes)
    assert sum(int(np.prod(weight.shape)) for weight in net.trainable_weights) == parameters


@pytest.mark.parametrize("name", models.MODELS)
def test_logits_do_not_depend_on_the_batch(name):
    net, features = small(name), np.random.default_rng(1).normal(size=(8, 32, 16)).astype("float32")
    together = np.asarray(net(features, training=False))
    assert together.shape == (8, 5)
    alone = np.concatenate([np.asarray(net(features[i : i + 1], training=False)) for i in range(8)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6 * np.abs(together).max())


@pytest.mark.parametrize("name", models.MODELS)
def test_a_saved_deployed_model_scores_the_same(name, tmp_path):
    deployed = models.deploy(LogMel(EXPERIMENT.frontend), small(name), "sigmoid")
    waveform = np.random.default_rng(2).uniform(-1, 1, (3, 4000)).astype("float32")
    expected = np.asarray(deployed(waveform))
    assert expected.shape == (3, 5) and 0 <= expected.min() and expected.max() <= 1
    deployed.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(np.asarray(loaded(waveform)), expected)


@pytest.mark.parametrize("name", models.MODELS)
def test_width_scales_every_layer(name):
    sizes = [models.build(Net(name=name, width=width), (64, 32), 5).count_params() for width in (0.25, 0.5, 1.0)]
    assert sizes[0] * 2 < sizes[1] and sizes[1] * 2 < sizes[2]


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="cnn2d, short_chunk_res, got 'cnn3d'"):
        models.build(Net(name="cnn3d"), (32, 16), 5)
