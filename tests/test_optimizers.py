"""Adam with a step of its own for some layers: against Keras' Adam, saved and loaded."""

import keras
import numpy as np

from tfmusic import optimizers
from tfmusic.config import Fit


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
    ours = fitted(optimizers.PartwiseAdam(["old"], 0.1, learning_rate=1e-2, weight_decay=0.0))
    for step, expected, share in zip(ours, adam, (0.1, 0.1, 1, 1), strict=True):
        np.testing.assert_allclose(step, share * expected, rtol=1e-3, atol=1e-7)


def test_a_factor_of_zero_holds_still():
    ours = fitted(optimizers.make(Fit(learning_rate=1e-2, init_learning_rate=0.0), ["old"]))
    assert not ours[0].any() and ours[2].any()


def test_it_is_made_again_from_its_config():
    config = optimizers.PartwiseAdam(["b", "a"], 0.5, learning_rate=1e-3).get_config()
    again = optimizers.PartwiseAdam.from_config(config)
    assert again.layers == ["a", "b"] and again.factor == 0.5 and again.get_config() == config
