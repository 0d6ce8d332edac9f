"""What a task asks of net, loss and metrics: `TASKS`, one frozen record of functions each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfmusic import data, embedding_losses, losses, retrieval, sampling
from tfmusic.config import SIMILARITY_READS, Experiment


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of prediction.

    Args:
        outputs: of the deployed model, that the task is about.
        logged: names of figures that go into the logs of every epoch as val_<name>, where the records and the loss have them (`logged`).
        watched: those in the printed table and on the card; the first is the default of --fit.monitor.
        trainee: (net, experiment, truth of chosen tracks, training tracks with each label) to the model that is fitted, and its losses and
            their weights by output; none: its layers add their own.
        chooses: whether batches are made of chosen tracks (`tfmusic.sampling`), not of all in random order.
    """

    outputs: tuple[str, ...]
    logged: tuple[str, ...]
    watched: tuple[str, ...]
    trainee: Callable[[keras.Model, Experiment, np.ndarray | None, Sequence[int]], tuple[keras.Model, Losses | None]]
    chooses: bool = False


Losses = dict[str, tuple[keras.losses.Loss, float]]


def logged(experiment: Experiment, families: bool) -> tuple[str, ...]:
    """The figures of a run that go into its logs.

    Args:
        experiment: task and loss.
        families: whether the records know families of labels.
    """
    absent = {*()} if experiment.activation == "softmax" else {*ONE_OF_FIGURES}
    if not families:
        absent.add("family_map")
    return tuple(name for name in TASKS[experiment.task].logged if name not in absent)


def _learner(net: keras.Model, experiment: Experiment, truth: None, counts: Sequence[int]) -> tuple[keras.Model, Losses]:
    """Features to all outputs that have a truth."""
    found = {}
    if "logits" in net.output:
        found["logits"] = losses.make(experiment.loss, counts, experiment.fit.label_smoothing), 1.0
    if "targets" in net.output:
        found["targets"] = losses.TargetLoss(net.get_layer("targets").scale, experiment.loss.targets_weight), 1.0
    return keras.Model(net.input, {name: net.output[name] for name in found}), found


LOSS_LAYERS: dict[str, Callable[..., keras.layers.Layer]] = {  # on (truth, embeddings)
    "triplet": embedding_losses.TripletLossLayer,
    "supervised_contrastive": embedding_losses.SupervisedContrastiveLossLayer,
    "nt_xent": embedding_losses.NTXentLossLayer,
    "proxy_nca": embedding_losses.ProxyNCALayer,
    "proxy_anchor": embedding_losses.ProxyAnchorLayer,
}


def _loss_layer(experiment: Experiment, truth: np.ndarray | None, columns: int) -> keras.layers.Layer:
    """The layer that the settings name, with the arguments that they give; the rest is the layer's own."""
    settings = experiment.similarity
    read = SIMILARITY_READS[settings.loss]
    given = {name: getattr(settings, name) for name in read - {"overlap", "soft_margin"} if getattr(settings, name) is not None}
    if settings.soft_margin:
        given["margin"] = None
    if settings.overlap == "idf":
        given["weights"] = sampling.idf(truth).tolist()
    if experiment.triplets_given:
        given["mining"] = "given"
    if settings.loss.startswith("proxy"):
        given |= {"labels": columns, "seed": experiment.fit.seed}
    return LOSS_LAYERS[settings.loss](**given)


def _embedder(net: keras.Model, experiment: Experiment, truth: np.ndarray | None, counts: Sequence[int]) -> tuple[keras.Model, None]:
    """Features, truth and labels to the embedding, whose loss a layer adds; with a tag weight to logits and theirs as well."""
    settings = experiment.similarity
    columns = data.truth_columns(experiment, truth)
    layer = _loss_layer(experiment, truth, columns)
    inputs = {"features": net.input, "truth": keras.Input((columns,), name="truth")}
    outputs = {"embedding": layer(inputs["truth"], net.output["embedding"])}
    if settings.tag_weight:
        inputs["labels"] = keras.Input(net.output["logits"].shape[1:], name="labels")
        gamma, alpha = (experiment.loss.focal_gamma, experiment.loss.focal_alpha) if experiment.loss.name == "focal" else (0.0, None)
        outputs["logits"] = losses.FocalLossLayer(gamma, alpha, weight=settings.tag_weight)(inputs["labels"], net.output["logits"])
    return keras.Model(inputs, outputs), None


RANKING = ("roc_auc", "map", "d_prime", "lwlrap")
ONE_OF_FIGURES = ("accuracy", "balanced_accuracy", "f1_macro")  # of one label out of all; independent ones need thresholds first
REGRESSION = ("mse", "r2", "spearman")
TASKS: dict[str, Task] = {
    "tagging": Task(("tags",), RANKING, ("roc_auc", "map"), _learner),
    "genre": Task(("tags",), (*ONE_OF_FIGURES, *RANKING), ("accuracy", "f1_macro"), _learner),
    "events": Task(("tags",), (*RANKING, *ONE_OF_FIGURES, "family_map"), ("map", "accuracy", "d_prime", "lwlrap", "family_map"), _learner),
    "emotion": Task(("targets",), REGRESSION, ("r2", "mse", "spearman"), _learner),
    "multitask": Task(("tags", "targets"), (*RANKING, *ONE_OF_FIGURES, *REGRESSION), ("map", "accuracy", "r2", "spearman"), _learner),
    "similarity": Task(("embedding",), retrieval.FIGURES, ("recall_at_1", "map_at_r", "filtered_map_at_r"), _embedder, chooses=True),
}
