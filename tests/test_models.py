"""Every network of the registry: shape, size, saving, and scores that do not depend on the batch."""

import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import EXPERIMENT
from tfmusic import models
from tfmusic.config import Net
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


def test_every_network_can_be_named_in_the_settings():
    assert set(typing.get_args(Net.model_fields["name"].annotation)) == set(models.MODELS)


def test_what_the_published_pools_of_cnn2d_leave_unheard():
    """96 bands / 4 / 3 are 8 columns, and the third pool takes 6 of them: 2 * 3 * 4 = 24 bands pass through no column that is kept. The
    3x3 convolutions bring 17 of them back over the border; the last 7 change nothing. 72 = 4 * 3 * 3 * 2 bands are all heard."""
    assert unheard_bands((188, 96)) == list(range(89, 96))
    assert unheard_bands((188, 72)) == []


def unheard_bands(shape):
    net = models.build(Net(name="cnn2d"), shape, 5)
    features = tf.Variable(np.random.default_rng(0).normal(size=(4, *shape)).astype("float32"))
    with tf.GradientTape() as tape:
        logits = tf.reduce_sum(net(features, training=False) * np.arange(1.0, 6.0, dtype="float32"))
    return np.flatnonzero(np.abs(tape.gradient(logits, features)).max(axis=(0, 1)) == 0).tolist()
