"""How it is learnt: augmentation, stream, net, loss, batches of metric learning, optimisation, evaluation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from tfmusic.config.base import Settings, check_read

Probability = Annotated[float, Field(ge=0, le=1)]


class SpecAugment(Settings):
    """Masks on the log-mel of every training example (Park et al., Interspeech 2019); `tfmusic.augment.spec_augment`."""

    probability: Probability = Field(0.0, description="Share of the examples that are masked; 0 switches it off.")
    time_masks: int = Field(2, ge=0, description="Masks over frames.")
    time_frames: int = Field(20, ge=0, description="Greatest width of a time mask in frames.")
    mel_masks: int = Field(2, ge=0, description="Masks over mel bands.")
    mel_bands: int = Field(10, ge=0, description="Greatest width of a mel mask in bands.")


class WaveformAugment(Settings):
    """Changes to the audio of training examples before the front end, different ones in every example; `tfmusic.waveform`.

    Noise, tempo and pitch for music, about half of the examples each:

    >>> WaveformAugment(probability=0.5, noise_snr_db=(10, 40), noise="pink", stretch=0.1, pitch_semitones=2)

    Recorded noise, and other music of the training clips far behind, for events in the open:

    >>> WaveformAugment(probability=0.5, noise_snr_db=(0, 30), noise_folder=Path("noises"), background_snr_db=(10, 30))
    """

    probability: Probability = Field(0.0, description="Share of the examples that each change reaches, drawn change by change; 0: none of them.")
    gain_db: float = Field(6.0, ge=0, le=60, description="Greatest change of the level, up or down; samples never leave -1..1. 0: none.")
    noise_snr_db: tuple[float, float] | None = Field(
        (10.0, 40.0), description="Least and greatest ratio of the music to added noise; none: no noise."
    )
    noise: Literal["white", "pink"] = Field("white", description="pink: its power density falls by 10 dB for a tenfold frequency.")
    noise_folder: Path | None = Field(None, description="Folder whose audio files, also in folders inside, noise is cut from; none: made as --noise.")
    background_snr_db: tuple[float, float] | None = Field(
        None, description="Least and greatest ratio of the music to another example of its batch that is mixed in behind it; labels stay. none: off."
    )
    shift_s: float = Field(
        0.0, ge=0, description="Greatest shift, back or forth; what leaves at one end comes in at the other. It is for clips shorter than the "
        "window, which all begin at its start; longer ones begin anywhere without it. 0: none."
    )  # fmt: skip
    stretch: float = Field(0.0, ge=0, le=0.5, description="Greatest change of the tempo, .1: .9 to 1.1 times as fast; the pitch stays. 0: none.")
    pitch_semitones: float = Field(0.0, ge=0, le=12, description="Greatest change of the pitch, up or down; the tempo stays. 0: none.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> WaveformAugment:
        for name in ("noise_snr_db", "background_snr_db"):
            low_db, high_db = getattr(self, name) or (0, 0)
            if not -60 <= low_db <= high_db <= 120:
                raise ValueError(f"{name} must be the least and the greatest, in -60..120 dB, got {low_db:g} and {high_db:g}")
        if self.noise_folder and (self.noise_snr_db is None or self.noise != "white"):
            raise ValueError(f"noise_folder needs noise_snr_db and stands in place of noise, which must be left out, got {self.noise}")
        mixed = self.noise_snr_db or self.background_snr_db
        if self.probability and not (mixed or self.gain_db or self.shift_s or self.stretch or self.pitch_semitones):
            raise ValueError(f"probability must be 0 where no change is set, got {self.probability:g}")
        return self

    def cut_samples(self, samples: int) -> int:
        """Samples to cut for a window of `samples`, which may be played faster."""
        return samples + math.ceil(samples * self.stretch) if self.probability else samples


class Augment(Settings):
    """What happens to training examples only; validation and test never see it."""

    waveform: WaveformAugment = WaveformAugment()
    spec_augment: SpecAugment = SpecAugment()
    mixup_alpha: float = Field(0.0, ge=0, description="Mixup weights are drawn from Beta(alpha, alpha); 0 switches it off.")


class Data(Settings):
    """The training stream."""

    crops_per_clip: int = Field(1, gt=0, description="Windows of one epoch for each training clip.")
    crop: Literal["random", "start"] = Field("random", description="Where a window begins in its clip; start: all of them at the clip's.")
    shuffle_buffer: int = Field(1024, gt=0, description="Windows shuffled together, beside the shuffled order of what is read.")
    limit: int | None = Field(None, gt=0, description="For a quick look: tracks of each split at most, the same ones each time; none: all.")
    oversample: float | None = Field(
        None, gt=0, lt=1, description="Least share of an epoch's windows for every label: tracks of rarer ones are drawn more often; none: all alike."
    )


class Net(Settings):
    """The network from log-mel to logits: an entry of `tfmusic.models.MODELS`."""

    name: Literal[
        "linear", "mlp", "cnn1d", "cnn1d_3", "cnn1d_4", "cnn2d", "cnn2d_4", "cnn2d_deep", "fcn", "crnn", "crnn_attention", "lstm",
        "musicnn", "musicnn_vgg", "musicnn_vgg_msd", "musical_res", "short_chunk", "short_chunk_res", "cnn3", "cnn4", "vgg_like",
        "crnn_fsd", "cnn6", "cnn10", "cnn14", "mobile", "efficientnet_b0", "densenet121", "vgg13", "vgg16", "vgg19", "resnet18", "resnet34",
        "resnet50", "resnet101",
    ] = Field("cnn2d", description="Key of tfmusic.models.MODELS.")  # fmt: skip
    width: float = Field(1.0, gt=0, description="Factor on every layer's number of filters; linear has none.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of units dropped before the heads.")
    embedding: int = Field(0, ge=0, description="Dimensions that the embedding is projected to; 0: the vector that the tags come from.")
    weights: Path | None = Field(None, description="File of another project that the trunk begins with: PANNs' .pth, keras.applications' .h5.")


class Loss(Settings):
    """What is minimised."""

    name: Literal["bce", "focal", "crossentropy"] = Field(
        "bce", description="bce: binary cross-entropy, of independent labels, as focal is. crossentropy: of one label out of all."
    )
    focal_gamma: float = Field(2.0, ge=0, description="Focusing strength of the focal loss.")
    focal_alpha: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="Weight of the positives; none: no balancing.")
    class_weights: bool = Field(
        False, description="Positives of a label weigh the more the fewer training tracks have it; focal: as an alpha for each label."
    )
    prior_bias: bool = Field(False, description="Fresh logits begin at the labels' shares of the training tracks.")
    targets_weight: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (1.0,), min_length=1,
        description="Weight of each target's squared error, in their order, or one for all of them; multitask: beside 1 of the labels' loss.",
    )  # fmt: skip


class Sampling(Settings):
    """Metric learning: which training clips make a batch; `tfmusic.sampling`."""

    batches: Literal["shuffled", "balanced", "triplets", "extremes", "errors", "crops"] = Field(
        "balanced",
        description="shuffled: every clip once. balanced: a few clips of each of a few labels. triplets: anchor, positive, negative. extremes, "
        "errors: triplets out of a tagger's scores. crops: two windows of each clip.",
    )
    positives: Literal["tags", "group"] = Field("tags", description="What makes two clips alike: shared tags, or the group (artist, instrument).")
    clips_per_label: int = Field(4, gt=1, description="balanced: clips of each tag or group in a batch.")
    tagger: Path | None = Field(None, description="extremes, errors: run directory of the tagger.")
    top: int | None = Field(None, gt=0, description="errors: tags taken as predicted, the highest; none: as many as the clip has.")
    mined: Literal["both", "positives", "negatives"] = Field("both", description="errors: what comes from an error; the rest is of any tag.")
    clean_negatives: bool = Field(False, description="extremes, errors: a negative shares no tag with its anchor.")


class Similarity(Settings):
    """Metric learning: the loss on the embedding; `tfmusic.embedding_losses`."""

    loss: Literal["triplet", "supervised_contrastive", "nt_xent", "proxy_nca", "proxy_anchor"] = "triplet"
    mining: Literal["all", "hard", "semi_hard", "weighted", "distance_weighted"] = Field(
        "semi_hard", description="triplet: which of a batch's triplets count."
    )
    distance: Literal["cosine", "euclidean", "squared"] = Field("cosine", description="triplet: between embeddings.")
    margin: float | None = Field(None, ge=0, description="triplet, proxy_anchor: least gap asked for; none: the loss's own, .2 and .1.")
    soft_margin: bool = Field(False, description="triplet: log(1 + exp(gap)) in place of a margin.")
    overlap: Literal["jaccard", "idf"] = Field("jaccard", description="How alike two clips are: shared labels by number, or by rarity.")
    positive_from: Probability = Field(0.0, description="triplet: least overlap of a positive; all below is negative. 0: any shared label.")
    temperature: float = Field(0.1, gt=0, description="supervised_contrastive, nt_xent: divisor of similarities.")
    scale: float | None = Field(None, gt=0, description="proxy_nca, proxy_anchor: factor on similarities; none: the loss's own, 9 and 32.")
    tag_weight: float = Field(0.0, ge=0, description="Weight of tags learnt beside the embedding, by the settings of the tagging loss; 0: none.")


# What else each choice reads; another field set beside it would do nothing, and is refused.
SAMPLING_READS = {
    "shuffled": {"positives"},
    "balanced": {"positives", "clips_per_label"},
    "triplets": {"positives"},
    "extremes": {"tagger", "clean_negatives"},
    "errors": {"tagger", "clean_negatives", "top", "mined"},
    "crops": set(),
}
SIMILARITY_READS = {
    "triplet": {"mining", "distance", "margin", "soft_margin", "overlap", "positive_from"},
    "supervised_contrastive": {"temperature", "overlap"},
    "nt_xent": {"temperature"},
    "proxy_nca": {"scale"},
    "proxy_anchor": {"margin", "scale"},
}


SCHEDULE_READS = {
    "constant": set(),
    "cosine": set(),
    "plateau": {"plateau_factor", "plateau_patience"},
    "two_stage": {"switch_at", "sgd_learning_rate"},
}


class Fit(Settings):
    """Optimisation."""

    epochs: int = Field(40, ge=0, description="Passes over the training clips.")
    batch_size: int = Field(16, gt=0, description="Windows a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Step size of Adam.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay (AdamW); 0: Adam.")
    schedule: Literal["constant", "cosine", "plateau", "two_stage"] = Field(
        "constant", description="Of the step size. cosine: to 0 over the epochs. plateau: smaller whenever the monitor gets no better. two_stage: "
        "Adam, then SGD with Nesterov's momentum .9 in ever smaller steps, each time from the best epoch's weights."
    )  # fmt: skip
    warm_up_epochs: float = Field(0.0, ge=0, allow_inf_nan=False, description="In which the step size rises from 0.")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="plateau: what the step size is multiplied by.")
    plateau_patience: int = Field(4, gt=0, description="plateau: epochs without a better monitor until then.")
    switch_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.4, 0.5, 0.6), min_length=1,
        description="two_stage: shares of the epochs after which SGD begins, and after which it takes a tenth of its step.",
    )  # fmt: skip
    sgd_learning_rate: float = Field(1e-3, gt=0, description="two_stage: step size with which SGD begins.")
    ema: float = Field(0.0, ge=0, lt=1, description="Decay a step of averaged weights and statistics, which are validated and kept; 0: none.")
    clip_norm: float | None = Field(None, gt=0, description="Greatest norm of a step's whole gradient; none: any.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each label that goes to the average of all answers.")
    monitor: str = Field("val_map", description="Figure of every epoch's log that picks the best one, greater is better.")
    init_learning_rate: float | None = Field(None, ge=0, description="Step size of all layers but the heads, after --init; none: that of all.")
    patience: int = Field(
        10, gt=0, description="Epochs without a better monitor after which training stops; two_stage: from its last switch on. cosine: it does not."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the net in training; auto: bfloat16 where the processor computes in it. All else is float32."
    )
    xla: Literal["auto", "on", "off"] = Field("auto", description="Compilation of the step by XLA; auto: on accelerators, not if deterministic.")
    steps_per_execution: int = Field(1, gt=0, description="Steps that run at a time; an epoch leaves the rest of a division by it out.")
    histogram_epochs: int = Field(0, ge=0, description="Epochs between histograms of all weights in TensorBoard; 0: none, for they are large.")
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = Field(
        "auto", description="Who trains. mirrored: all GPUs of this machine. multi_worker: the processes of TF_CONFIG. auto: multi_worker where "
        "TF_CONFIG names several, mirrored with several GPUs, else none: one device."
    )  # fmt: skip
    seed: int = Field(0, ge=0, description="Seed of weights, order, crops and augmentation.")
    deterministic: bool = Field(False, description="Bit-for-bit repeatable on CPU; slower on some accelerators.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Fit:
        unread = set.union(*SCHEDULE_READS.values()) - SCHEDULE_READS[self.schedule]
        check_read("fit", self, f"schedule {self.schedule}", {*Fit.model_fields} - unread)
        if self.warm_up_epochs >= self.epochs > 0:
            raise ValueError(f"warm_up_epochs must be below epochs = {self.epochs}, got {self.warm_up_epochs:g}")
        if self.schedule == "plateau" and self.plateau_patience >= self.patience:
            raise ValueError(f"plateau_patience must be below patience = {self.patience}, which ends the training, got {self.plateau_patience}")
        if self.deterministic and self.xla == "on":
            raise ValueError("xla must be auto or off where deterministic is set, which Keras compiles without it, got on")
        if list(self.switch_at) != sorted({*self.switch_at}):
            raise ValueError(f"switch_at must rise, got {' '.join(f'{share:g}' for share in self.switch_at)}")
        return self


class Evaluation(Settings):
    """How whole tracks are scored: windows at a fixed hop, pooled."""

    hop_s: float = Field(1.5, gt=0, description="Seconds between the windows of a track; the last one ends at the track's end.")
    pool: Literal["mean", "max"] = Field("mean", description="Of a track's windows: what their scores of a label become.")
    bootstrap: int = Field(500, ge=0, description="Resamples of the test tracks for the 95 % intervals; 0: none.")
