"""Adam with a step size of its own for some layers."""

from __future__ import annotations

from collections.abc import Collection

import keras

from tfmusic import config


@keras.saving.register_keras_serializable("tfmusic")
class PartwiseAdam(keras.optimizers.Adam):
    """AdamW whose step and weight decay for some layers are a multiple of the learning rate: a backbone moves slower than a fresh head.

    Args:
        layers: names of the layers; a layer inside one of them, such as the cell of a GRU, belongs to it.
        factor: their share of the learning rate `float >= 0`.
        decay: decoupled weight decay `float >= 0`, as AdamW's.
        **kwargs: as in keras.optimizers.Adam.

    >>> PartwiseAdam(layers=["conv1", "norm1"], factor=0.1, learning_rate=1e-3, decay=1e-4)
    """

    def __init__(self, layers: Collection[str] = (), factor: float = 1.0, decay: float = 0.0, name="partwise_adam", **kwargs):
        super().__init__(name=name, **kwargs)
        for argument, value in (("factor", factor), ("decay", decay)):
            if not value >= 0:
                raise ValueError(f"{argument} must be >= 0, got {value!r}")
        self.layers, self.factor, self.decay = sorted(layers), float(factor), float(decay)

    def build(self, variables):
        super().build(variables)
        self._factors = [self.factor if {*variable.path.split("/")} & {*self.layers} else 1.0 for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = learning_rate * self._factors[self._get_variable_index(variable)]
        if self.decay:  # here and not in Keras' own place, which knows one learning rate
            self.assign_sub(variable, variable * keras.ops.cast(learning_rate * self.decay, variable.dtype))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "layers": self.layers, "factor": self.factor, "decay": self.decay}


def make(settings: config.Fit, trunk: Collection[str] = ()) -> keras.optimizers.Optimizer:
    """The optimiser of these settings.

    Args:
        settings: learning rates and weight decay.
        trunk: names of the layers that step with `init_learning_rate`, where it is set.
    """
    if settings.init_learning_rate is not None:
        factor = settings.init_learning_rate / settings.learning_rate
        return PartwiseAdam(trunk, factor, settings.weight_decay, learning_rate=settings.learning_rate)
    if settings.weight_decay:
        return keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
    return keras.optimizers.Adam(settings.learning_rate)
