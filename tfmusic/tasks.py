"""What a task asks of net, loss and metrics: `TASKS`, one frozen record of functions each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from tfmusic import config, losses, metrics


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of prediction.

    Args:
        activation: from logits to scores in the deployed model.
        loss: setting to a loss on (labels, logits).
        figures: (y_true, scores, bootstrap resamples, seed) to the figures of metrics.json.
        watched: names in `figures` that go into the logs of every epoch as val_<name> and into the printed table.
    """

    activation: str
    loss: Callable[[config.Loss], keras.losses.Loss]
    figures: Callable[[np.ndarray, np.ndarray, int, int], dict]
    watched: tuple[str, ...]


TASKS: dict[str, Task] = {
    "tagging": Task(activation="sigmoid", loss=losses.make, figures=metrics.ranking, watched=("roc_auc", "map")),
}
