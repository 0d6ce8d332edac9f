"""What a task asks of net, loss and metrics: `TASKS`, one frozen record of functions each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from tfmusic import data, embedding_losses, losses, retrieval, sampling
from tfmusic.config import Experiment, Similarity


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of prediction.

    Args:
        activation: from logits to scores in the deployed model.
        output: of the deployed model, that the task is about.
        logged: names of its figures that go into the logs of every epoch as val_<name>; one of them picks the best epoch.
        watched: those in the printed table and on the card.
        chooses: whether batches are made of chosen tracks (`tfmusic.sampling`), not of all in random order.
        trainee: (net, experiment, truth of chosen tracks) to the model that is fitted, and its loss; none: its layers add their own.
    """

    activation: str
    output: str
    logged: tuple[str, ...]
    watched: tuple[str, ...]
    chooses: bool
    trainee: Callable[[keras.Model, Experiment, np.ndarray | None], tuple[keras.Model, keras.losses.Loss | None]]


def _tagger(net: keras.Model, experiment: Experiment, truth: None) -> tuple[keras.Model, keras.losses.Loss]:
    """Features to logits, and their loss."""
    return keras.Model(net.input, net.output["logits"]), losses.make(experiment.loss)


# loss -> its layer on (truth, embeddings), from settings, the weights of the overlap, and the columns of the truth
EMBEDDING_LOSSES: dict[str, Callable[[Similarity, list[float] | None, int], keras.layers.Layer]] = {
    "triplet": lambda settings, weights, _: embedding_losses.TripletLossLayer(
        margin=settings.margin, distance=settings.distance, mining=settings.mining, positive_from=settings.positive_from, weights=weights
    ),
    "supervised_contrastive": lambda settings, weights, _: embedding_losses.SupervisedContrastiveLossLayer(
        temperature=settings.temperature, weights=weights
    ),
    "nt_xent": lambda settings, *_: embedding_losses.NTXentLossLayer(temperature=settings.temperature),
    "proxy_nca": lambda settings, _, columns: embedding_losses.ProxyNCALayer(labels=columns, scale=settings.scale),
    "proxy_anchor": lambda settings, _, columns: embedding_losses.ProxyAnchorLayer(labels=columns, margin=settings.margin, scale=settings.scale),
}


def _embedder(net: keras.Model, experiment: Experiment, truth: np.ndarray | None) -> tuple[keras.Model, None]:
    """Features, truth and labels to the embedding, whose loss a layer adds; with a tag weight to logits and theirs as well."""
    settings = experiment.similarity
    columns = data.truth_columns(experiment, truth)
    weights = sampling.idf(truth).tolist() if settings.overlap == "idf" and truth is not None and truth.ndim == 2 else None
    if experiment.triplets_given:
        layer = embedding_losses.TripletLossLayer(margin=settings.margin, distance=settings.distance, mining="given")
    else:
        layer = EMBEDDING_LOSSES[settings.loss](settings, weights, columns)
    inputs = {"features": net.input, "truth": keras.Input((columns,), name="truth")}
    outputs = {"embedding": layer(inputs["truth"], net.output["embedding"])}
    if settings.tag_weight:
        inputs["labels"] = keras.Input(net.output["logits"].shape[1:], name="labels")
        gamma, alpha = (experiment.loss.focal_gamma, experiment.loss.focal_alpha) if experiment.loss.name == "focal" else (0.0, None)
        outputs["logits"] = losses.FocalLossLayer(gamma, alpha, weight=settings.tag_weight)(inputs["labels"], net.output["logits"])
    return keras.Model(inputs, outputs), None


TASKS: dict[str, Task] = {
    "tagging": Task(
        activation="sigmoid", output="tags", logged=("roc_auc", "map"), watched=("roc_auc", "map"), chooses=False, trainee=_tagger,
    ),
    "similarity": Task(
        activation="sigmoid", output="embedding", logged=retrieval.FIGURES, watched=("recall_at_1", "map_at_r", "ndcg_at_8"), chooses=True,
        trainee=_embedder,
    ),
}  # fmt: skip
