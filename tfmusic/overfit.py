"""Whether a net can learn one batch by heart: if not, something between records, net and loss is wrong, and no longer training mends it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import metrics, models, schema, training
from tfmusic.config import Augment, Experiment, InputError

NEAR_ZERO = 0.05  # of the first loss


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One batch, learnt or not."""

    losses: list[float]  # of every step
    figures: dict[str, float]  # of the batch afterwards, with its own statistics in batch normalization
    rows: int

    @property
    def learnt(self) -> bool:
        """Whether the loss fell near 0."""
        return self.losses[-1] <= NEAR_ZERO * self.losses[0]

    def __str__(self) -> str:
        told = "".join(f", {name} {value:.3f}" for name, value in self.figures.items())
        course = f"loss {self.losses[0]:.4g} to {self.losses[-1]:.4g} in {len(self.losses)} steps on the same {self.rows} windows{told}"
        if self.learnt:
            return f"the net can learn one batch: {course}"
        hint = "a lower --fit.learning-rate" if not math.isfinite(self.losses[-1]) else "more --overfit-steps, another --fit.learning-rate or net"
        return f"the net did not learn one batch: {course}; try {hint}, and look at labels and loss"


def overfit(experiment: Experiment, records: Path | str, steps: int = 300) -> Outcome:
    """Trains on the first batch again and again until its loss is near 0; nothing is written.

    All that works against that is off: augmentation, dropout, weight decay, label smoothing, averaged weights, schedules. A loss that cannot be 0,
    as of supervised contrastive learning, is not for this.

    Args:
        experiment: a recipe's.
        records: directory.
        steps: at most `int > 0`.

    Raises:
        InputError: records that do not fit, or a loss that has no 0.

    >>> print(overfit(recipes.tagging(), "data/records"))  # doctest: +SKIP
    the net can learn one batch: loss 0.7391 to 0.03604 in 61 steps on the same 16 windows, ROC-AUC 1.000
    """
    if experiment.task == "similarity" and experiment.similarity.loss != "triplet":
        raise InputError(f"--overfit-batch needs a loss that can be 0, as triplet, got {experiment.similarity.loss}")
    plain = {"weight_decay": 0.0, "label_smoothing": 0.0, "ema": 0.0, "schedule": "constant", "warm_up_epochs": 0.0, "steps_per_execution": 1}
    fields = type(experiment.fit).model_fields
    read = {name: fields[name].default for name in ("plateau_factor", "plateau_patience", "switch_at", "sgd_learning_rate")}
    changes = {
        "augment": Augment(),
        "net": experiment.net.model_copy(update={"dropout": 0.0}),
        "fit": experiment.fit.model_copy(update={**plain, **read, "epochs": 1}),
    }
    found = training.rehearse(experiment.model_copy(update=changes), records)
    for layer in models.leaves(found.net):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    with schema.damage_named(records):
        batch = next(iter(found.stream.take(1)))
    watcher = _Losses()
    found.model.fit(tf.data.Dataset.from_tensors(batch).repeat(), steps_per_epoch=steps, callbacks=[watcher], verbose=0, shuffle=False)
    inputs, truth = batch if len(batch) > 1 else (*batch, {})
    outputs = tf.nest.map_structure(np.asarray, found.model(inputs, training=True))  # moving averages would lag behind by a hundred steps
    return Outcome(watcher.losses, _figures(found.experiment, truth, outputs) | _nearest(inputs, outputs), len(tf.nest.flatten(batch)[0]))


class _Losses(keras.callbacks.Callback):
    """Keeps the loss of every step by itself, and ends a training whose loss is near 0 or not finite."""

    def __init__(self):
        super().__init__()
        self.losses: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        self.model.reset_metrics()  # else the mean of all steps so far
        if not math.isfinite(self.losses[-1]) or self.losses[-1] <= NEAR_ZERO * self.losses[0]:
            self.model.stop_training = True


def _figures(experiment: Experiment, truth: Mapping[str, tf.Tensor], outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of one label out of all the share that is right; of independent labels one ROC-AUC over all pairs of window and label; of targets R2."""
    found = {}
    if "logits" in truth:
        y_true, scores = np.asarray(truth["logits"]), np.asarray(outputs["logits"], np.float64)
        if experiment.activation == "softmax":
            found["accuracy"] = float((scores.argmax(axis=1) == y_true.argmax(axis=1)).mean())
        elif 0 < y_true.mean() < 1 and np.isfinite(scores).all():
            found["ROC-AUC"] = float(metrics.roc_auc(y_true.reshape(-1, 1), scores.reshape(-1, 1))[0])
    if "targets" in truth:
        y_true, given = np.asarray(truth["targets"], np.float64), np.asarray(outputs["targets"], np.float64)
        error, spread = np.nansum((given - y_true) ** 2, axis=0), np.nansum((y_true - np.nanmean(y_true, axis=0)) ** 2, axis=0)
        found["R2"] = float(np.mean(1 - error[spread > 0] / spread[spread > 0])) if (spread > 0).any() else math.nan
    return found


def _nearest(inputs: Mapping[str, tf.Tensor] | tf.Tensor, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of embeddings the share of windows whose nearest other is alike, among those that have one alike."""
    if "embedding" not in outputs:
        return {}
    truth, embedding = np.asarray(inputs["truth"]), np.asarray(outputs["embedding"], np.float64)
    alike, near = truth @ truth.T > 0, embedding @ embedding.T
    np.fill_diagonal(alike, False)
    np.fill_diagonal(near, -np.inf)
    asked = alike.any(axis=1)
    return {"nearest alike": float(alike[np.arange(len(near)), near.argmax(axis=1)][asked].mean()) if asked.any() else math.nan}
