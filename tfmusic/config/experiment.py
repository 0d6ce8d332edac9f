"""An experiment, and which of its settings belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic
from pydantic import Field

from tfmusic.config.base import Settings, check_read
from tfmusic.config.hearing import Features, FrontEnd
from tfmusic.config.learning import (
    SAMPLING_READS,
    SIMILARITY_READS,
    Augment,
    Data,
    Evaluation,
    Fit,
    Loss,
    Net,
    Sampling,
    Similarity,
)

TASK_LOSSES = {  # what loss.name may be; the first is for those that have no labels to learn
    "tagging": ("bce", "focal"),
    "genre": ("crossentropy",),
    "events": ("bce", "focal", "crossentropy"),
    "emotion": ("bce",),
    "multitask": ("bce", "focal", "crossentropy"),
    "similarity": ("bce", "focal"),
}
TASKS_WITH_TARGETS = ("emotion", "multitask")
SEQUENCE_NETS = ("lstm",)  # that read tracks of any length
INPUT_READS = {  # what a net that hears no log-mel of its own reads of these sections
    "a frozen vector": {"frontend": {"sample_rate_hz", "window_s", "short"}, "augment": {"waveform", "mixup_alpha"}},
    "sequences": {
        "frontend": {"sample_rate_hz"},
        "augment": set(),
        "data": {"shuffle_buffer", "limit"},
        "evaluation": {"bootstrap"},
        "fit": {*Fit.model_fields} - {"steps_per_execution"},
    },
}  # batches of sequences differ in size


class Experiment(Settings):
    """Everything a run needs besides its records."""

    recipe: str = Field(description="Name of the recipe this began as.")
    task: Literal["tagging", "genre", "events", "emotion", "multitask", "similarity"] = Field("tagging", description="Key of tfmusic.tasks.TASKS.")
    frozen: str | None = Field(
        None,
        description="A trained net among the front ends, whose weights stay: a key of tfmusic.pretrained.PRETRAINED, or a run directory. "
        "The net mlp reads its vector alone, all others beside the log-mel.",
    )
    sequences: Features | None = Field(
        None,
        description="The net reads whole tracks from records of --payload features with these settings (--sequences.kind and others); none: windows.",
    )
    targets: tuple[str, ...] = Field((), description="emotion, multitask: numeric targets of the records that are learnt; none: all.")
    init: Path | None = Field(
        None, description="Run directory, or key of tfmusic.pretrained.PRETRAINED, whose net this one begins with; its front end and net are the "
        "defaults then."
    )  # fmt: skip
    freeze: str | None = Field(None, description="Layer up to which the net keeps the weights of --init.")
    frontend: FrontEnd = FrontEnd()
    augment: Augment = Augment()
    data: Data = Data()
    net: Net = Net()
    loss: Loss = Loss()
    sampling: Sampling = Sampling()
    similarity: Similarity = Similarity()
    fit: Fit = Fit()
    evaluation: Evaluation = Evaluation()

    def hearing(self, kind: str, **changes: object) -> Experiment:
        """A recipe for windows of audio for a key of `INPUT_READS` instead: with what is read there, and the defaults of all else."""
        sections = {
            name: getattr(self, name).model_copy(update={field: value for field, value in type(getattr(self, name))() if field not in read})
            for name, read in INPUT_READS[kind].items()
        }
        if kind == "sequences":
            sections["net"] = self.net.model_copy(update={"name": SEQUENCE_NETS[0]})
        return self.model_copy(update=sections | changes)

    @property
    def activation(self) -> str:
        """From logits to scores: "softmax" where one label of all is true, "sigmoid" where each is by itself."""
        return "softmax" if self.loss.name == "crossentropy" else "sigmoid"

    @property
    def triplets_given(self) -> bool:
        """Whether a batch is a row of anchor, positive, negative."""
        return self.sampling.batches in ("triplets", "extremes", "errors")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.loss.name not in TASK_LOSSES[self.task]:
            raise ValueError(f"loss.name must be {' or '.join(TASK_LOSSES[self.task])} for {self.task}, got {self.loss.name}")
        if self.task == "similarity":
            self._check_similarity()
        else:
            if self.net.embedding:
                raise ValueError(f"net.embedding is for the task similarity and must be 0 for {self.task}, got {self.net.embedding}")
            for name in ("sampling", "similarity"):
                check_read(name, getattr(self, name), self.task, set())
        if self.targets and self.task not in TASKS_WITH_TARGETS:
            raise ValueError(
                f"targets are for {' and '.join(TASKS_WITH_TARGETS)} and must be left out for {self.task}, got {', '.join(self.targets)}"
            )
        if len({*self.targets}) < len(self.targets):
            raise ValueError(f"targets must be different ones, got {', '.join(self.targets)}")
        if self.task == "emotion":
            check_read("loss", self.loss, "emotion", {"name"} | ({"targets_weight"} if len(self.loss.targets_weight) > 1 else set()))
            check_read("data", self.data, "emotion", {*Data.model_fields} - {"oversample"})
        elif self.task != "multitask":
            check_read("loss", self.loss, self.task, {*Loss.model_fields} - {"targets_weight"})
        self._check_inputs()
        if self.fit.label_smoothing and self.task in ("emotion", "similarity"):
            raise ValueError(f"fit.label_smoothing does nothing for {self.task} and must be left out, got {self.fit.label_smoothing:g}")
        if self.loss.name != "focal":
            check_read("loss", self.loss, self.loss.name, {*Loss.model_fields} - {"focal_gamma", "focal_alpha"})
        if self.loss.class_weights:
            check_read("loss", self.loss, "class_weights", {*Loss.model_fields} - {"focal_alpha"})
        if self.data.oversample:
            check_read("data", self.data, "oversample", {*Data.model_fields} - {"shuffle_buffer"})
        if self.init is not None and self.net.weights is not None:
            raise ValueError(f"net.weights stand in place of --init {self.init}, which must be left out beside them, got {self.net.weights}")
        if self.init is None and self.net.weights is None:
            for name, value in (("freeze", self.freeze), ("fit.init_learning_rate", self.fit.init_learning_rate)):
                if value is not None:
                    raise ValueError(f"{name} is for layers that --init or net.weights bring and must be left out without them, got {value}")
        return self

    def _check_inputs(self) -> None:
        """What the net is fed fits it."""
        if self.net.name == "mlp" and self.frozen is None:
            raise ValueError("net.name mlp reads the vector of a frozen net: frozen must name one, got none")
        kind = "sequences" if self.sequences is not None else "a frozen vector" if self.net.name == "mlp" else None
        for name, read in INPUT_READS.get(kind, {}).items():
            check_read(name, getattr(self, name), kind, read)
        if self.task == "emotion":
            check_read("evaluation", self.evaluation, "emotion", {*Evaluation.model_fields} - {"pool"})
        if self.sequences is None:
            return
        if self.net.name not in SEQUENCE_NETS:
            raise ValueError(f"net.name must be {' or '.join(SEQUENCE_NETS)} for sequences, got {self.net.name}")
        if self.frozen or self.init or self.task == "similarity":
            raise ValueError(
                f"sequences are read by the net itself: frozen and init must be left out and the task not be similarity, got {self.task}"
            )

    def _check_similarity(self) -> None:
        batches, batch_size, loss = self.sampling.batches, self.fit.batch_size, self.similarity.loss
        if self.augment.mixup_alpha:
            raise ValueError(f"augment.mixup_alpha must be 0 for similarity, whose labels are shared or not, got {self.augment.mixup_alpha:g}")
        if self.triplets_given and loss != "triplet":
            raise ValueError(f"sampling.batches {batches} are for the loss triplet, got {loss}")
        check_read("sampling", self.sampling, f"batches {batches}", {"batches"} | SAMPLING_READS[batches])
        read = SIMILARITY_READS[loss]
        if self.triplets_given:
            read = read - {"mining", "overlap", "positive_from"}
        elif batches == "crops" or self.sampling.positives == "group":
            read = read - {"overlap", "positive_from"}
        check_read("similarity", self.similarity, f"{loss} on {batches}", {"loss", "tag_weight"} | read)
        if self.similarity.soft_margin and self.similarity.margin is not None:
            raise ValueError(f"similarity.soft_margin stands in place of margin, which must be left out beside it, got {self.similarity.margin:g}")
        if batches == "crops" and loss.startswith("proxy"):
            raise ValueError(f"sampling.batches crops have no labels that a loss {loss} could keep proxies of; take shuffled or balanced")
        if self.similarity.overlap == "idf" and loss == "triplet" and not self.similarity.positive_from:
            raise ValueError("similarity.overlap idf needs positive_from above 0 for triplets, which otherwise ask for any shared tag, got 0")
        if not self.similarity.tag_weight:
            check_read("loss", self.loss, "similarity without tag_weight", set())
        check_read("loss", self.loss, "similarity", {*Loss.model_fields} - {"class_weights"})
        check_read("data", self.data, "similarity", {"crops_per_clip", "crop", "limit"})
        multiple = {"crops": 2, "balanced": self.sampling.clips_per_label}.get(batches, 3 if self.triplets_given else 1)
        if batch_size % multiple or batch_size < 2 * multiple:
            raise ValueError(
                f"fit.batch_size must be a multiple of {multiple} and at least {2 * multiple} for sampling.batches {batches}, got {batch_size}"
            )
        if "tagger" in SAMPLING_READS[batches] and self.sampling.tagger is None:
            raise ValueError(f"sampling.tagger must name the run of a tagger for sampling.batches {batches}, got none")
