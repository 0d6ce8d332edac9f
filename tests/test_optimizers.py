"""The optimiser of every run: against Keras' Adam, SGD, schedules, clipping and averages; saved and loaded."""

import keras
import numpy as np
import pytest

from tests.test_models import NETWORKS
from tfmusic import models, optimizers
from tfmusic.config import Fit, Net


def fitted(optimizer, epochs=1):
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="old"), keras.layers.Dense(2, name="new")])
    net.compile(optimizer, "mse")
    before = [np.array(weight) for weight in net.get_weights()]
    random = np.random.default_rng(0)
    net.fit(random.normal(size=(8, 3)), random.normal(size=(8, 2)), epochs=epochs, shuffle=False, verbose=0)
    return [after - start for start, after in zip(before, net.get_weights(), strict=True)]


def stepped(optimizer, gradients, start=(1.0, -2.0, 3.0)):
    """A variable after each of the gradients."""
    variable = keras.Variable(np.array(start, "float32"))
    optimizer.build([variable])
    found = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, "float32"))])
        found.append(np.array(variable))
    return np.array(found)


GRADIENTS = np.random.default_rng(0).normal(size=(6, 3))


@pytest.mark.parametrize("sgd", [False, True])
def test_the_named_layers_take_a_tenth_of_the_step_and_the_others_all_of_it(sgd):
    keras_own = keras.optimizers.SGD(1e-2, momentum=0.9, nesterov=True) if sgd else keras.optimizers.Adam(1e-2)
    ours = optimizers.PartwiseAdam(["old"], 0.1, learning_rate=optimizers.Schedule(1e-2))
    ours.sgd = sgd
    for step, expected, share in zip(fitted(ours), fitted(keras_own), (0.1, 0.1, 1, 1), strict=True):
        np.testing.assert_allclose(step, share * expected, rtol=1e-3, atol=1e-7)


def test_with_a_factor_of_one_it_is_adamw():
    adamw = fitted(keras.optimizers.AdamW(1e-2, weight_decay=0.3))
    ours = fitted(optimizers.PartwiseAdam(["old"], 1.0, 0.3, learning_rate=1e-2))
    for step, expected in zip(ours, adamw, strict=True):
        np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-7)


def test_its_sgd_is_keras_with_nesterov_momentum_step_after_step():
    ours = optimizers.PartwiseAdam(learning_rate=0.05)
    ours.sgd = True
    np.testing.assert_allclose(stepped(ours, GRADIENTS), stepped(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), GRADIENTS), rtol=1e-6)


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
    scheduled = optimizers.PartwiseAdam(learning_rate=optimizers.Schedule(1e-3, 5, 20))
    assert float(optimizers.PartwiseAdam.from_config(scheduled.get_config())._learning_rate(15)) == float(scheduled._learning_rate(15))


# --- schedules ------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("warm_up_epochs", [0.0, 0.5, 2.0])
def test_cosine_is_that_of_keras_and_ends_at_0_with_the_epochs(warm_up_epochs):
    """10 epochs of 4 steps; 40 steps later there is nothing left."""
    ours = optimizers.make(Fit(epochs=10, schedule="cosine", warm_up_epochs=warm_up_epochs), steps=4)._learning_rate
    warm = int(4 * warm_up_epochs)
    begin = {"initial_learning_rate": 0.0, "warmup_target": 1e-3, "warmup_steps": warm} if warm else {"initial_learning_rate": 1e-3}
    expected = keras.optimizers.schedules.CosineDecay(decay_steps=40 - warm, **begin)
    np.testing.assert_allclose([float(ours(step)) for step in range(41)], [float(expected(step)) for step in range(41)], rtol=1e-5, atol=1e-10)
    assert float(ours(40)) < 1e-9 and float(ours(0)) == (0 if warm else np.float32(1e-3))


@pytest.mark.parametrize("schedule", ["constant", "plateau", "two_stage"])
def test_warm_up_is_linear_from_0_and_stays_there(schedule):
    ours = optimizers.make(Fit(schedule=schedule, warm_up_epochs=2), steps=5)._learning_rate
    np.testing.assert_allclose([float(ours(step)) for step in (0, 1, 5, 10, 500)], [0, 1e-4, 5e-4, 1e-3, 1e-3], rtol=1e-6)


@pytest.mark.parametrize(("epochs", "expected"), [(200, [80, 100, 120]), (10, [4, 5, 6]), (4, [2, 2, 3]), (1, [1, 1, 1])])
def test_two_stages_begin_at_the_shares_of_the_literature(epochs, expected):
    """80 of 200 epochs of Adam, then 20 of SGD with .001, 20 with .0001, 80 with .00001; an only epoch is Adam's."""
    first, scales = optimizers.stages(Fit(epochs=epochs, learning_rate=1e-4, schedule="two_stage"))
    assert first == expected
    np.testing.assert_allclose(np.array(scales) * 1e-4, [1e-3, 1e-4, 1e-5])


def test_a_scale_lowers_the_rate_and_a_restart_forgets_the_moments():
    """Adam's first step after one is rate * sign(gradient), whatever it had seen."""
    optimizer = optimizers.make(Fit(ema=0.5))
    stepped(optimizer, GRADIENTS)
    optimizer.restart(0.1)
    assert float(optimizer.learning_rate) == pytest.approx(1e-4)
    variable = optimizer._trainable_variables[0]
    np.testing.assert_array_equal(optimizer._model_variables_moving_average[0], variable)
    optimizer.iterations.assign(0)
    before = np.array(variable)
    optimizer.apply([keras.ops.convert_to_tensor(np.array([3.0, -1.0, 0.2], "float32"))])
    np.testing.assert_allclose(np.array(variable) - before, [-1e-4, 1e-4, -1e-4], rtol=1e-2)


# --- averages, clipping, loss scale, nan ----------------------------------------------------------------------------------------------------
def test_averages_are_the_recursion_of_weights_and_statistics():
    """The decay is (1 + t) / (10 + t) after t steps, 2/11 to 5/14, and from there on .35; the statistics that are kept are of such weights, too."""
    net = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    random, statistics = np.random.default_rng(0), net.layers[0].non_trainable_variables
    optimizer = optimizers.make(Fit(ema=0.35, learning_rate=0.1), watched=statistics)
    net.compile(optimizer, "mse")
    seen = []
    for _ in range(6):
        net.train_on_batch(random.normal(size=(8, 2)), random.normal(size=(8, 1)))
        seen.append([np.array(weight) for weight in net.weights])
    for place, found in enumerate(optimizers.averaged(net, optimizer)):
        expected = seen[0][place]
        for step, weights in enumerate(seen[1:], start=1):
            decay = min(0.35, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weights[place]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert not np.allclose(net.layers[0].moving_mean, seen[0][2])  # it moved


def test_without_averages_they_are_the_weights():
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    net.compile(optimizers.make(Fit()), "mse")
    net.optimizer.build(net.trainable_variables)
    for found, weights in zip(optimizers.averaged(net, net.optimizer), net.get_weights(), strict=True):
        np.testing.assert_array_equal(found, weights)


def test_the_whole_gradient_is_clipped_to_the_norm():
    """[3, 4] over two variables has norm 5; clipped to 1 it is [.6, .8], and SGD's first step 1.9 times that."""
    optimizer = optimizers.make(Fit(clip_norm=1.0, learning_rate=1.0))
    optimizer.sgd = True
    variables = [keras.Variable(np.zeros(1, "float32")) for _ in range(2)]
    optimizer.build(variables)
    optimizer.apply([keras.ops.convert_to_tensor(np.array([value], "float32")) for value in (3, 4)])
    np.testing.assert_allclose(np.concatenate(variables), [-0.6 * 1.9, -0.8 * 1.9], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_step_whose_gradient_is_not_finite_is_noted(bad):
    optimizer = optimizers.make(Fit())
    stepped(optimizer, [[1, 1, 1], [1, 1, 1]])
    assert int(optimizer.failed) == -1
    for gradient in ([1, bad, 1], [1, 1, 1], [bad, 1, 1]):
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, "float32"))])
    assert int(optimizer.failed) == 2


def test_half_precision_passes_over_a_step_that_overflows_and_halves_its_scale():
    optimizer = optimizers.make(Fit(precision="float16", ema=0.9))
    found = stepped(optimizer, [[np.inf, 0, 0]])
    np.testing.assert_array_equal(found[-1], [1.0, -2.0, 3.0])
    ours = optimizers.inner(optimizer)
    assert float(optimizer.dynamic_scale) == 2**14 and (int(ours.failed), int(ours.iterations)) == (-1, 0)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_watched_variable_that_is_not_finite_is_noted_at_its_step(precision):
    """Of float16 also when the steps before were passed over: the third, number 2."""
    statistic = keras.Variable(np.zeros(2, "float32"))
    optimizer = optimizers.make(Fit(precision=precision), watched=[statistic])
    stepped(optimizer, [[np.inf, 0, 0], [1, 0, 0]] if precision == "float16" else [[1, 0, 0], [1, 0, 0]])
    statistic.assign([0.0, np.nan])
    for _ in range(2):
        optimizer.apply([keras.ops.ones((3,))])
    assert int(optimizers.inner(optimizer).failed) == 2 and int(optimizers.inner(optimizer).seen) == 4
