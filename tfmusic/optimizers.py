"""One optimiser for every run: Adam with a step of its own for some layers, which may end as SGD, on a schedule, with averaged weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfmusic import config

MOMENTUM = 0.9  # of SGD


@keras.saving.register_keras_serializable("tfmusic")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 to `rate` over the warm-up, then constant, or half a cosine down to 0 (Loshchilov and Hutter, ICLR 2017, without restarts).

    Args:
        rate: greatest step size `float > 0`.
        warm_up_steps: until it is reached `float >= 0`.
        decay_steps: from there on to 0 `float >= 0`; 0: it stays.

    >>> Schedule(1e-3, decay_steps=100)(50)  # cos(pi / 2) = 0: half of the rate
    """

    def __init__(self, rate: float, warm_up_steps: float = 0.0, decay_steps: float = 0.0):
        super().__init__()
        self.rate, self.warm_up_steps, self.decay_steps = rate, warm_up_steps, decay_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = self.rate * ops.minimum(step / self.warm_up_steps, 1.0) if self.warm_up_steps else ops.full((), self.rate)
        if not self.decay_steps:
            return rate
        share = ops.clip((step - self.warm_up_steps) / self.decay_steps, 0.0, 1.0)
        return rate * 0.5 * (1 + ops.cos(math.pi * share))

    def get_config(self):
        return {"rate": self.rate, "warm_up_steps": self.warm_up_steps, "decay_steps": self.decay_steps}


@keras.saving.register_keras_serializable("tfmusic")
class PartwiseAdam(keras.optimizers.Adam):
    """AdamW whose step and weight decay for some layers are a multiple of the learning rate: a backbone moves slower than a fresh head.

    Its variables hold all of its state: beside Adam's moments `scale`, a factor on the learning rate that callbacks lower, `seen`, the steps so far,
    and `failed`, the number of the first one whose gradient was not finite, or after which a variable of `watched` was not, -1 before.
    Where the attribute `sgd` is set, steps are those of SGD with Nesterov's momentum instead, `m <- .9 m + g, w <- w - rate (g + .9 m)`; a train
    function must be traced after that.

    Args:
        layers: names of the layers; a layer inside one of them, such as the cell of a GRU, belongs to it.
        factor: their share of the learning rate `float >= 0`.
        decay: decoupled weight decay `float >= 0`, as AdamW's.
        **kwargs: as in keras.optimizers.Adam.

    >>> PartwiseAdam(layers=["conv1", "norm1"], factor=0.1, learning_rate=1e-3, decay=1e-4)
    """

    sgd = False
    scaled = False  # whether it stands in a `ScaledLoss`, which looks at every step, of those passed over too
    watched: Sequence[keras.Variable] = ()

    def __init__(self, layers: Collection[str] = (), factor: float = 1.0, decay: float = 0.0, name="partwise_adam", **kwargs):
        super().__init__(name=name, **kwargs)
        for argument, value in (("factor", factor), ("decay", decay)):
            if not value >= 0:
                raise ValueError(f"{argument} must be >= 0, got {value!r}")
        self.layers, self.factor, self.decay = sorted(layers), float(factor), float(decay)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._factors = [self.factor if {*variable.path.split("/")} & {*self.layers} else 1.0 for variable in variables]
        self.scale = self.add_variable((), "ones", "float32", "only_first_replica", name="scale")
        self.failed = self.add_variable((), keras.initializers.Constant(-1), "int64", "only_first_replica", name="failed")
        self.seen = self.add_variable((), "zeros", "int64", "only_first_replica", name="seen")
        self._averaged_statistics = [self.add_variable_from_reference(one, name="average") for one in self.watched] if self.use_ema else []

    def _get_current_learning_rate(self):
        return super()._get_current_learning_rate() * (self.scale if self.built else 1.0)

    def look(self, gradients: Sequence = ()) -> None:
        """Notes the first step that is not finite.

        A finite loss may have a gradient of nan, and the loss of the next batch, which tells, is not the one to blame; a layer of ReLUs may swallow
        nan on its way to the loss, but not on that to the statistics of batch normalization.
        """
        watched = self.watched if tf.distribute.get_strategy().num_replicas_in_sync == 1 else ()  # of all replicas: `_joint`
        finite = [ops.all(ops.isfinite(tensor)) for tensor in (*gradients, *watched) if tensor is not None]
        good = ops.all(ops.stack(finite)) if finite else True
        self.failed.assign(ops.where(ops.logical_or(good, self.failed >= 0), self.failed, self.seen))
        self.seen.assign_add(1)

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(trainable_variables)
        grads = self._joint(grads)
        if not self.scaled:
            self.look(grads)
        super().apply(grads, trainable_variables)

    def _joint(self, gradients: Sequence) -> list:
        """Gradients of the whole batch where replicas have a part of it each: Keras would add them up after clipping, and after `look`.

        What a replica alone knows not to be finite, its statistics of batch normalization, makes the gradients of all so.
        """
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return list(gradients)
        found = [tf.convert_to_tensor(one) for one in gradients if one is not None]
        if self.watched:
            good = ops.all(ops.stack([ops.all(ops.isfinite(one)) for one in self.watched]))
            found[0] += tf.cast(tf.where(good, 0.0, math.nan), found[0].dtype)
        summed = iter(replica.all_reduce("SUM", found))
        return [None if one is None else next(summed) for one in gradients]

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # `_joint` has

    def update_step(self, gradient, variable, learning_rate):
        place = self._get_variable_index(variable)
        learning_rate = ops.cast(learning_rate * self._factors[place], variable.dtype)
        if self.decay:  # here and not in Keras' own place, which knows one learning rate
            self.assign_sub(variable, variable * ops.cast(learning_rate * self.decay, variable.dtype))
        if not self.sgd:
            super().update_step(gradient, variable, learning_rate)
            return
        gradient, momentum = ops.cast(gradient, variable.dtype), self._momentums[place]
        self.assign(momentum, MOMENTUM * momentum + gradient)
        self.assign_sub(variable, learning_rate * (gradient + MOMENTUM * momentum))

    def averages(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """What is averaged, and its average: trained weights, and what batch normalization knows of the outputs of such weights."""
        if not self.use_ema:
            return []
        weights = zip(self._trainable_variables, self._model_variables_moving_average, strict=True)
        return [*weights, *zip(self.watched, self._averaged_statistics, strict=True)]

    def _update_model_variables_moving_average(self, trainable_variables):
        """Keras' own, with statistics, and a decay that is less at first: after t steps (1 + t) / (10 + t) at most, as TensorFlow's has it."""
        step = ops.cast(self.iterations, "float32")
        decay = ops.where(step > 0, ops.minimum(self.ema_momentum, (1 + step) / (10 + step)), 0.0)
        for variable, average in self.averages():
            average.assign(decay * average + (1 - decay) * ops.cast(variable, average.dtype))

    def restart(self, scale: float) -> None:
        """Goes on from the weights as they are now: moments begin anew, averages from here.

        Args:
            scale: factor on the learning rate from here on.
        """
        for variable in (*self._momentums, *self._velocities):
            variable.assign(ops.zeros_like(variable))
        for variable, average in self.averages():
            average.assign(variable)
        self.scale.assign(scale)

    def get_config(self):
        return {**super().get_config(), "layers": self.layers, "factor": self.factor, "decay": self.decay}


@keras.saving.register_keras_serializable("tfmusic")
class ScaledLoss(keras.optimizers.LossScaleOptimizer):
    """Keras' dynamic loss scaling around a `PartwiseAdam`: a step whose scaled gradient overflows is passed over, and the scale halved."""

    def __init__(self, inner_optimizer, **kwargs):
        super().__init__(inner_optimizer, **kwargs)
        inner_optimizer.scaled = True

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(trainable_variables)
        self.inner_optimizer.look()
        super().apply(grads, trainable_variables)


def make(settings: config.Fit, trunk: Collection[str] = (), steps: int = 1, watched: Sequence[keras.Variable] = ()) -> keras.optimizers.Optimizer:
    """The optimiser of these settings; for float16 inside Keras' dynamic loss scaling.

    Args:
        settings: learning rates, schedule, weight decay, averages, clipping and precision.
        trunk: names of the layers that step with `init_learning_rate`, where it is set.
        steps: of an epoch `int > 0`.
        watched: variables that must stay finite, such as the statistics of batch normalization.
    """
    rate, warm_up_steps = settings.learning_rate, settings.warm_up_epochs * steps
    optimizer = PartwiseAdam(
        trunk if settings.init_learning_rate is not None else (),
        1.0 if settings.init_learning_rate is None else settings.init_learning_rate / rate,
        settings.weight_decay,
        learning_rate=Schedule(rate, warm_up_steps, max(settings.epochs * steps - warm_up_steps, 1.0) if settings.schedule == "cosine" else 0.0),
        use_ema=settings.ema > 0,
        ema_momentum=settings.ema,
        global_clipnorm=settings.clip_norm,
    )
    optimizer.watched = tuple(watched)
    return ScaledLoss(optimizer) if settings.precision == "float16" else optimizer


def inner(optimizer: keras.optimizers.Optimizer) -> PartwiseAdam:
    """What `make` made, without the loss scaling around it."""
    return optimizer.inner_optimizer if isinstance(optimizer, ScaledLoss) else optimizer


def averaged(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    """The weights of a model that are validated and kept: in place of those in training their averages, where the optimiser has any.

    Args:
        model: the one that is trained, or a part of it.
        optimizer: of `make`.
    """
    averages = {id(variable): average for variable, average in inner(optimizer).averages()}
    return [ops.convert_to_numpy(averages.get(id(variable), variable)) for variable in model.weights]


def stages(settings: config.Fit) -> tuple[list[int], list[float]]:
    """The epochs that begin the stages of SGD, and the learning rate of each as a factor on that of Adam.

    The rule of Won, Ferraro, Bogdanov and Serra (SMC 2020): of 200 epochs 80 of Adam, then SGD with .001 for 20, .0001 for 20 and .00001. It counts
    epochs, whatever became of the monitor.

    >>> stages(config.Fit(epochs=200, learning_rate=1e-4, schedule="two_stage"))[0]
    [80, 100, 120]
    """
    first: Sequence[int] = [math.ceil(round(share * settings.epochs, 6)) for share in settings.switch_at]
    return [*first], [settings.sgd_learning_rate / settings.learning_rate / 10**stage for stage in range(len(first))]
