"""Adam with a step size of its own for some layers."""

from __future__ import annotations

from collections.abc import Collection

import keras

from tfmusic import config


@keras.saving.register_keras_serializable("tfmusic")
class PartwiseAdam(keras.optimizers.AdamW):
    """AdamW whose step for some layers is a multiple of the learning rate: a backbone that another run brought moves slower than a fresh head.

    The weight decay follows the learning rate of all, as AdamW's is decoupled from the step.

    Args:
        layers: names of the layers.
        factor: their share of the learning rate `float >= 0`.
        **kwargs: as in keras.optimizers.AdamW.

    >>> PartwiseAdam(layers=["conv1", "norm1"], factor=0.1, learning_rate=1e-3, weight_decay=0.0)
    """

    def __init__(self, layers: Collection[str] = (), factor: float = 1.0, name="partwise_adam", **kwargs):
        super().__init__(name=name, **kwargs)
        if not factor >= 0:
            raise ValueError(f"factor must be >= 0, got {factor!r}")
        self.layers, self.factor = sorted(layers), float(factor)

    def build(self, variables):
        super().build(variables)
        self._factors = [self.factor if variable.path.split("/")[-2] in self.layers else 1.0 for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self._factors[self._get_variable_index(variable)])

    def get_config(self):
        return {**super().get_config(), "layers": self.layers, "factor": self.factor}


def make(settings: config.Fit, trunk: Collection[str] = ()) -> keras.optimizers.Optimizer:
    """The optimiser of these settings.

    Args:
        settings: learning rates and weight decay.
        trunk: names of the layers that step with `init_learning_rate`, where it is set.
    """
    if settings.init_learning_rate is not None:
        factor = settings.init_learning_rate / settings.learning_rate
        return PartwiseAdam(trunk, factor, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    if settings.weight_decay:
        return keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
    return keras.optimizers.Adam(settings.learning_rate)
