"""What a task asks of net, loss and metrics: `TASKS`, one frozen record of functions each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from tfmusic import data, embedding_losses, losses, retrieval, sampling
from tfmusic.config import SIMILARITY_READS, Experiment


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


def _embedder(net: keras.Model, experiment: Experiment, truth: np.ndarray | None) -> tuple[keras.Model, None]:
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


TASKS: dict[str, Task] = {
    "tagging": Task(
        activation="sigmoid", output="tags", logged=("roc_auc", "map"), watched=("roc_auc", "map"), chooses=False, trainee=_tagger,
    ),
    "similarity": Task(
        activation="sigmoid", output="embedding", logged=retrieval.FIGURES, watched=("recall_at_1", "map_at_r", "filtered_map_at_r"), chooses=True,
        trainee=_embedder,
    ),
}  # fmt: skip
