"""Adam with a step of its own for some layers: against Keras' Adam, saved and loaded."""

import keras
import numpy as np
import pytest

from tests.test_models import NETWORKS
from tfmusic import models, optimizers
from tfmusic.config import Fit, Net


def fitted(optimizer):
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="old"), keras.layers.Dense(2, name="new")])
    net.compile(optimizer, "mse")
    before = [np.array(weight) for weight in net.get_weights()]
    random = np.random.default_rng(0)
    net.fit(random.normal(size=(8, 3)), random.normal(size=(8, 2)), verbose=0)
    return [after - start for start, after in zip(before, net.get_weights(), strict=True)]


def test_the_named_layers_take_a_tenth_of_adams_step_and_the_others_all_of_it():
    adam = fitted(keras.optimizers.Adam(1e-2))
    ours = fitted(optimizers.PartwiseAdam(["old"], 0.1, learning_rate=1e-2))
    for step, expected, share in zip(ours, adam, (0.1, 0.1, 1, 1), strict=True):
        np.testing.assert_allclose(step, share * expected, rtol=1e-3, atol=1e-7)


def test_with_a_factor_of_one_it_is_adamw():
    adamw = fitted(keras.optimizers.AdamW(1e-2, weight_decay=0.3))
    ours = fitted(optimizers.PartwiseAdam(["old"], 1.0, 0.3, learning_rate=1e-2))
    for step, expected in zip(ours, adamw, strict=True):
        np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_factor_of_zero_holds_every_layer_of_a_trunk_still(name):
    """Recurrent cells too, and weight decay does not move them."""
    net = models.build(Net(name=name, width=0.125, embedding=4), (32, 16), 0)
    optimizer = optimizers.make(Fit(init_learning_rate=0.0, weight_decay=0.5), [layer.name for layer in net.layers if layer.name not in models.HEADS])
    optimizer.build(net.trainable_variables)
    before = [np.array(variable) for variable in net.trainable_variables]
    optimizer.apply([keras.ops.ones_like(variable) for variable in net.trainable_variables])
    for variable, start in zip(net.trainable_variables, before, strict=True):
        assert np.array_equal(start, variable) == ("projection" not in variable.path), variable.path


def test_it_is_made_again_from_its_config():
    config = optimizers.PartwiseAdam(["b", "a"], 0.5, 0.1, learning_rate=1e-3).get_config()
    again = optimizers.PartwiseAdam.from_config(config)
    assert again.layers == ["a", "b"] and (again.factor, again.decay) == (0.5, 0.1) and again.get_config() == config
