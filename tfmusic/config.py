"""Every setting of an experiment: frozen pydantic models with units in the names, ranges in the types and one line of help a field.

A recipe returns an `Experiment`, the command line overrides its fields, the run writes it to experiment.json, and nothing else decides
anything. No TensorFlow here: `--help` and `--list` read this module only.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

VERSION = "0.1.0"  # of the code; stands in every manifest, run and bundle


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what, where, and what was expected."""


def printable(path: str | os.PathLike) -> str:
    r"""A path as text that any file and terminal takes: bytes of a name that are not UTF-8 become `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Settings(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Base of all settings: immutable, unknown keys are errors."""


MEL_FIELDS = {"n_mels", "mel", "f_min_hz", "f_max_hz", "log", "floor"}
TEMPO_FIELDS = {"tempo_bins", "tempo_min_bpm", "tempo_max_bpm", "tempogram_frames"}
FEATURE_READS = {"log_mel": MEL_FIELDS, "chroma": set(), "onset": MEL_FIELDS, "tempogram": MEL_FIELDS | TEMPO_FIELDS}


class FrontEnd(Settings):
    """Waveform window to log-mel spectrogram, chroma, onset strength and tempogram; `tfmusic.frontend.LogMel` is its graph.

    Several time resolutions as channels, here windows of 10, 20 and 30 ms, 128 bands and 101 frames; and log-mel, chroma and tempogram side
    by side, 96 + 12 + 48 columns:

    >>> FrontEnd(resolutions_ms=(10, 20, 30), frames=101, n_mels=128, log="ln_offset", floor=1e-6)
    >>> FrontEnd(features=("log_mel", "chroma", "tempogram"), normalise="window")
    """

    features: tuple[Literal["log_mel", "chroma", "onset", "tempogram"], ...] = Field(
        ("log_mel",), min_length=1,
        description="What stands side by side in each frame: log-mel, 12 pitch classes, onset strength, local autocorrelation of the onsets.",
    )  # fmt: skip

    sample_rate_hz: int = Field(16_000, gt=0, description="Rate the audio is resampled to.")
    window_s: float = Field(3.0, gt=0, description="Length of one training or scoring window in seconds.")
    short: Literal["pad", "tile"] = Field("pad", description="A clip shorter than the window is zero-padded at its end, or repeated.")
    n_fft: int = Field(512, gt=1, description="FFT size in samples.")
    frame_samples: int | None = Field(None, gt=1, description="Length of the Hann window in samples; none: n_fft.")
    hop_samples: int = Field(256, gt=0, description="Samples between frames.")
    resolutions_ms: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (), description="Lengths of the Hann window in ms, a channel each, in place of frame and hop samples; none: one log-mel without channels."
    )
    overlap: float = Field(
        0.5, ge=0, lt=1, description="resolutions_ms: share of a frame that the next one covers; 0: hop = window, whose edges Hann fades out."
    )
    frames: int | None = Field(None, gt=1, description="resolutions_ms: frames that all of them are resized to.")
    padding: Literal["zero", "reflect", "none"] = Field("zero", description="Padding that centres frames; none: the first frame starts at sample 0.")
    power: Literal[1, 2] = Field(2, description="1: magnitude, 2: power spectrogram.")
    n_mels: int = Field(96, gt=0, description="Mel bands.")
    mel: Literal["slaney", "htk", "htk_mel"] = Field(
        "slaney", description="slaney: Slaney scale, area-normalised. htk: HTK scale. htk_mel: HTK scale, triangles linear in mel, no DC bin."
    )
    f_min_hz: float = Field(0.0, ge=0, description="Lower edge of the lowest band.")
    f_max_hz: float | None = Field(None, gt=0, description="Upper edge of the highest band; none: half the sample rate.")
    log: Literal["db", "ln", "ln_offset", "log10_gain"] = Field(
        "db", description="db: 10 log10 max(x, floor). ln: ln max(x, floor). ln_offset: ln(x + floor). log10_gain: log10(1 + x / floor)."
    )
    floor: float = Field(1e-7, gt=0, description="The floor in the log.")
    tempo_bins: int = Field(48, gt=1, description="tempogram: tempi, equally spaced in octaves.")
    tempo_min_bpm: float = Field(30.0, gt=0, description="tempogram: slowest tempo in beats a minute.")
    tempo_max_bpm: float = Field(240.0, gt=0, allow_inf_nan=False, description="tempogram: fastest tempo in beats a minute.")
    tempogram_frames: int = Field(384, gt=1, description="tempogram: frames around each one whose onsets it looks at.")
    normalise: Literal["none", "window"] = Field(
        "none", description="window: of each window every one of the features to zero mean and unit deviation, by itself."
    )

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> FrontEnd:
        self._check_features()
        if (self.frame_samples or self.n_fft) > self.n_fft:
            raise ValueError(f"frame_samples must be at most n_fft = {self.n_fft}, got {self.frame_samples}")
        self._check_resolutions()
        upper_hz = self.sample_rate_hz / 2
        if not self.f_min_hz < (self.f_max_hz or upper_hz) <= upper_hz:
            raise ValueError(f"f_min_hz < f_max_hz <= {upper_hz:g} Hz (half the sample rate) must hold, got {self.f_min_hz:g} and {self.f_max_hz}")
        longest = max(one.frame_samples or one.n_fft for one in self.channels)
        if self.window_samples < longest:
            raise ValueError(f"window_s must hold one frame of {longest} samples, got {self.window_s} s")
        if "tempogram" in self.features:
            self._check_tempi()
        return self

    def _check_features(self) -> None:
        """Each once, on one scale, and no setting that none of them reads."""
        chosen = " ".join(self.features)
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features must name each one once, got {chosen}")
        if len(self.features) > 1 and self.normalise == "none":  # decibels beside shares of 1: a net would hear the decibels alone
            raise ValueError(f"normalise must be window for several features, whose scales differ a hundredfold, got none for {chosen}")
        if self.resolutions_ms and self.features != ("log_mel",):
            raise ValueError(f"resolutions_ms are for the features log_mel alone, got {chosen}")
        unread = set.union(*FEATURE_READS.values()).difference(*(FEATURE_READS[name] for name in self.features))
        for name in sorted(unread):
            if (value := getattr(self, name)) != (default := FrontEnd.model_fields[name].default):
                raise ValueError(f"{name} does nothing for the features {chosen} and must be left at {default}, got {value}")

    def _check_tempi(self) -> None:
        """A beat of the fastest tempo is a frame at least, two of the slowest fit into what is looked at."""
        if not self.tempo_min_bpm < self.tempo_max_bpm <= 60 * self.frames_per_s:
            raise ValueError(
                f"tempo_min_bpm < tempo_max_bpm <= {60 * self.frames_per_s:g} (a beat a frame) must hold, "
                f"got {self.tempo_min_bpm:g} and {self.tempo_max_bpm:g}"
            )
        seen_s = min(self.window_s, self.tempogram_frames / self.frames_per_s)
        if self.tempo_min_bpm * seen_s <= 60:
            raise ValueError(
                f"tempo_min_bpm must be above {60 / seen_s:g}, so that two beats lie in window_s and in tempogram_frames, got {self.tempo_min_bpm:g}"
            )

    def _check_resolutions(self) -> None:
        """Their fields stand together or not at all, and every frame fits the FFT."""
        if not self.resolutions_ms:
            for name in ("frames", "overlap"):
                if (value := getattr(self, name)) != FrontEnd.model_fields[name].default:
                    raise ValueError(f"{name} belongs to resolutions_ms and must be left out without it, got {value}")
            return
        for name in ("frame_samples", "hop_samples"):
            if (value := getattr(self, name)) != FrontEnd.model_fields[name].default:
                raise ValueError(f"resolutions_ms stands in place of {name}, which must be left out beside it, got {value}")
        if self.frames is None:
            raise ValueError("frames must be set beside resolutions_ms, got none")
        for length_ms, one in zip(self.resolutions_ms, self.channels, strict=True):
            if not 2 <= one.frame_samples <= self.n_fft:
                raise ValueError(
                    f"resolutions_ms must be frames of 2 to n_fft = {self.n_fft} samples, "
                    f"got {length_ms:g} ms = {one.frame_samples} samples at {self.sample_rate_hz} Hz"
                )

    @property
    def channels(self) -> tuple[FrontEnd, ...]:
        """The settings of every resolution by itself, with its frame and hop in samples; without resolutions these settings alone."""
        if not self.resolutions_ms:
            return (self,)
        lengths = [round(length_ms * self.sample_rate_hz / 1000) for length_ms in self.resolutions_ms]
        single = {name: FrontEnd.model_fields[name].default for name in ("resolutions_ms", "overlap", "frames")}
        return tuple(
            self.model_copy(update={**single, "frame_samples": length, "hop_samples": max(1, round(length * (1 - self.overlap)))})
            for length in lengths
        )

    @property
    def frames_per_s(self) -> float:
        """Rate of the frames, without resolutions."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def window_samples(self) -> int:
        """Samples of one window."""
        return round(self.window_s * self.sample_rate_hz)


PRESETS: dict[str, FrontEnd] = {
    # librosa.feature.melspectrogram and power_to_db(top_db=None) of librosa 0.11: centred, zero padding, Slaney filters.
    "librosa": FrontEnd(sample_rate_hz=22_050, n_fft=2048, hop_samples=512, n_mels=128, floor=1e-10),
    # torchaudio.transforms.MelSpectrogram and AmplitudeToDB: defaults of both.
    "torchaudio": FrontEnd(n_fft=400, hop_samples=200, n_mels=128, padding="reflect", mel="htk", floor=1e-10),
    # musicnn.extractor: log10(10000 x + 1). Its nets were trained in 2019, when librosa's stft padded by reflection.
    "musicnn": FrontEnd(padding="reflect", log="log10_gain", floor=1e-4),
    # The same as its nets saw it: 187 frames cut out of a whole track's spectrogram, so that no frame holds padding. Frame t of a window is frame
    # t + 1 of the centred spectrogram from there on; clips shorter than a window were repeated in training (pad_short in their config.json).
    "musicnn_patch": FrontEnd(window_s=3.008, short="tile", padding="none", log="log10_gain", floor=1e-4),
    # PANNs, pytorch/models.py of audioset_tagging_cnn: torchlibrosa, 10 log10 max(x, 1e-10).
    "panns": FrontEnd(
        sample_rate_hz=32_000, n_fft=1024, hop_samples=320, padding="reflect", n_mels=64, f_min_hz=50, f_max_hz=14_000, floor=1e-10
    ),
    # YAMNet, params.py and features.py of tensorflow/models: 25 ms frames every 10 ms, magnitude, tf.signal's mel matrix, ln(x + .001).
    "yamnet": FrontEnd(
        window_s=0.975, n_fft=512, frame_samples=400, hop_samples=160, padding="none", power=1, n_mels=64, mel="htk_mel",
        f_min_hz=125, f_max_hz=7_500, log="ln_offset", floor=1e-3,
    ),
}  # fmt: skip


class Features(Settings):
    """What records of --payload features hold for each track: a sequence of vectors; `records.features` computes them."""

    kind: Literal["log_mel", "chroma", "fused", "beat_mel", "beat_chroma", "beat_fused", "embedding"] = Field(
        "beat_mel", description="fused: log-mel and chroma side by side. beat_*: their mean over each beat. embedding: of a trained run's windows."
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="Of the stored numbers.")
    n_fft: int = Field(2048, gt=1, description="FFT size in samples.")
    hop_samples: int = Field(512, gt=0, description="Samples between frames.")
    n_mels: int = Field(128, gt=0, description="Mel bands.")
    run: Path | None = Field(None, description="embedding: run directory of the tagger.")


class Layout(Settings):
    """Audio of the records."""

    sample_rate_hz: int = Field(16_000, gt=0, description="Rate the audio is resampled to.")
    chunk_s: float = Field(7.0, gt=0, description="Longest stretch of a training track in one record, in seconds.")
    stride_s: float = Field(3.0, gt=0, description="Greatest distance of two chunks; the widest window is chunk minus stride.")
    payload: Literal["pcm16", "flac", "features"] = Field(
        "pcm16", description="pcm16: samples. flac: the same samples in fewer bytes, decoded in the stream. features: sequences, no audio."
    )
    features: Features = Features()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Layout:
        if self.stride_s >= self.chunk_s:
            raise ValueError(f"stride_s must be below chunk_s = {self.chunk_s:g}, got {self.stride_s:g}")
        if self.payload != "features" and self.features != Features():
            raise ValueError(f"features are for --payload features, got them with {self.payload}")
        if self.payload == "features" and (self.features.kind == "embedding") != (self.features.run is not None):
            raise ValueError(f"features.run must be given for the kind embedding and for no other, got {self.features.run} for {self.features.kind}")
        return self

    @property
    def widest_window_samples(self) -> int:
        """The longest training window these records serve."""
        return round((self.chunk_s - self.stride_s) * self.sample_rate_hz)

    @property
    def stride_samples(self) -> int:
        return max(1, round(self.stride_s * self.sample_rate_hz))


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
    """

    probability: Probability = Field(0.0, description="Share of the examples that each change reaches, drawn change by change; 0: none of them.")
    gain_db: float = Field(6.0, ge=0, le=60, description="Greatest change of the level, up or down; samples never leave -1..1. 0: none.")
    noise_snr_db: tuple[float, float] | None = Field(
        (10.0, 40.0), description="Least and greatest ratio of the music to added noise; none: no noise."
    )
    noise: Literal["white", "pink"] = Field("white", description="pink: its power density falls by 10 dB for a tenfold frequency.")
    shift_s: float = Field(
        0.0, ge=0, description="Greatest shift, back or forth; what leaves at one end comes in at the other. It is for clips shorter than the "
        "window, which all begin at its start; longer ones begin anywhere without it. 0: none."
    )  # fmt: skip
    stretch: float = Field(0.0, ge=0, le=0.5, description="Greatest change of the tempo, .1: .9 to 1.1 times as fast; the pitch stays. 0: none.")
    pitch_semitones: float = Field(0.0, ge=0, le=12, description="Greatest change of the pitch, up or down; the tempo stays. 0: none.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> WaveformAugment:
        low_db, high_db = self.noise_snr_db or (0, 0)
        if not -60 <= low_db <= high_db <= 120:
            raise ValueError(f"noise_snr_db must be the least and the greatest, in -60..120 dB, got {low_db:g} and {high_db:g}")
        if self.probability and not (self.gain_db or self.noise_snr_db or self.shift_s or self.stretch or self.pitch_semitones):
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
    width: float = Field(1.0, gt=0, description="Factor on every layer's number of filters.")
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


def _check_read(name: str, settings: Settings, choice: str, read: set[str]) -> None:
    """Refuses a field that is set and not read."""
    for field, value in settings:
        if field not in read and value != type(settings).model_fields[field].default:
            raise ValueError(f"{name}.{field} does nothing for {choice} and must be left out, got {value}")


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
    ema: float = Field(0.0, ge=0, lt=1, description="Decay a step of averaged weights, which are validated and kept; 0: those of the last step.")
    clip_norm: float | None = Field(None, gt=0, description="Greatest norm of a step's whole gradient; none: any.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each label that goes to the average of all answers.")
    monitor: str = Field("val_map", description="Figure of every epoch's log that picks the best one, greater is better.")
    init_learning_rate: float | None = Field(None, ge=0, description="Step size of all layers but the heads, after --init; none: that of all.")
    patience: int = Field(10, gt=0, description="Epochs without a better monitor after which training stops; two_stage: from its last switch on.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the net in training; auto: bfloat16 where the processor computes in it. All else is float32."
    )
    xla: Literal["auto", "on", "off"] = Field("auto", description="Compilation of the step by XLA; auto: on accelerators, not if deterministic.")
    steps_per_execution: int = Field(1, gt=0, description="Steps that run at a time; an epoch leaves the rest of a division by it out.")
    seed: int = Field(0, ge=0, description="Seed of weights, order, crops and augmentation.")
    deterministic: bool = Field(False, description="Bit-for-bit repeatable on CPU; slower on some accelerators.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Fit:
        unread = set.union(*SCHEDULE_READS.values()) - SCHEDULE_READS[self.schedule]
        _check_read("fit", self, f"schedule {self.schedule}", {*Fit.model_fields} - unread)
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
        None, description="The net reads whole tracks from records of --payload features with these settings; none: windows of audio."
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
                _check_read(name, getattr(self, name), self.task, set())
        if self.targets and self.task not in TASKS_WITH_TARGETS:
            raise ValueError(
                f"targets are for {' and '.join(TASKS_WITH_TARGETS)} and must be left out for {self.task}, got {', '.join(self.targets)}"
            )
        if len({*self.targets}) < len(self.targets):
            raise ValueError(f"targets must be different ones, got {', '.join(self.targets)}")
        if self.task == "emotion":
            _check_read("loss", self.loss, "emotion", {"name"} | ({"targets_weight"} if len(self.loss.targets_weight) > 1 else set()))
            _check_read("data", self.data, "emotion", {*Data.model_fields} - {"oversample"})
        elif self.task != "multitask":
            _check_read("loss", self.loss, self.task, {*Loss.model_fields} - {"targets_weight"})
        self._check_inputs()
        if self.fit.label_smoothing and self.task in ("emotion", "similarity"):
            raise ValueError(f"fit.label_smoothing does nothing for {self.task} and must be left out, got {self.fit.label_smoothing:g}")
        if self.loss.name != "focal":
            _check_read("loss", self.loss, self.loss.name, {*Loss.model_fields} - {"focal_gamma", "focal_alpha"})
        if self.loss.class_weights:
            _check_read("loss", self.loss, "class_weights", {*Loss.model_fields} - {"focal_alpha"})
        if self.data.oversample:
            _check_read("data", self.data, "oversample", {*Data.model_fields} - {"shuffle_buffer"})
        if self.init is not None and self.net.weights is not None:
            raise ValueError(f"net.weights stand in place of --init {self.init}, which must be left out beside them, got {self.net.weights}")
        if self.init is None and not self.fit.epochs:
            raise ValueError("fit.epochs 0 evaluates what --init knows and must be greater without it, got 0")
        if self.init is None and self.net.weights is None:
            for name, value in (("freeze", self.freeze), ("fit.init_learning_rate", self.fit.init_learning_rate)):
                if value is not None:
                    raise ValueError(f"{name} is for layers that --init or net.weights bring and must be left out without them, got {value}")
        return self

    def _check_inputs(self) -> None:
        """What the net is fed fits it."""
        if self.net.name == "mlp" and self.frozen is None:
            raise ValueError("net.name mlp reads the vector of a frozen net: frozen must name one, got none")
        if self.net.name == "mlp":
            _check_read("frontend", self.frontend, "net.name mlp, which reads a vector", {"sample_rate_hz", "window_s", "short"})
        if self.sequences is not None:
            _check_read("frontend", self.frontend, "sequences, whose features are in the records", {"sample_rate_hz"})
        if self.net.name == "mlp" and self.augment.spec_augment.probability:
            raise ValueError(
                f"augment.spec_augment.probability does nothing for net.name mlp and must be 0, got {self.augment.spec_augment.probability:g}"
            )
        if self.task == "emotion" or self.sequences is not None:
            _check_read("evaluation", self.evaluation, "emotion and sequences", {*Evaluation.model_fields} - {"pool"})
        if self.sequences is None:
            return
        if self.net.name not in SEQUENCE_NETS:
            raise ValueError(f"net.name must be {' or '.join(SEQUENCE_NETS)} for sequences, got {self.net.name}")
        if self.frozen or self.init or self.task == "similarity":
            raise ValueError(
                f"sequences are read by the net itself: frozen and init must be left out and the task not be similarity, got {self.task}"
            )
        for name in ("augment", "data"):
            _check_read(name, getattr(self, name), "sequences", {"shuffle_buffer"})
        _check_read("fit", self.fit, "sequences", {*Fit.model_fields} - {"steps_per_execution"})  # whose batches differ in size

    def _check_similarity(self) -> None:
        batches, batch_size, loss = self.sampling.batches, self.fit.batch_size, self.similarity.loss
        if self.augment.mixup_alpha:
            raise ValueError(f"augment.mixup_alpha must be 0 for similarity, whose labels are shared or not, got {self.augment.mixup_alpha:g}")
        if self.triplets_given and loss != "triplet":
            raise ValueError(f"sampling.batches {batches} are for the loss triplet, got {loss}")
        _check_read("sampling", self.sampling, f"batches {batches}", {"batches"} | SAMPLING_READS[batches])
        read = SIMILARITY_READS[loss]
        if self.triplets_given:
            read = read - {"mining", "overlap", "positive_from"}
        elif batches == "crops" or self.sampling.positives == "group":
            read = read - {"overlap", "positive_from"}
        _check_read("similarity", self.similarity, f"{loss} on {batches}", {"loss", "tag_weight"} | read)
        if self.similarity.soft_margin and self.similarity.margin is not None:
            raise ValueError(f"similarity.soft_margin stands in place of margin, which must be left out beside it, got {self.similarity.margin:g}")
        if batches == "crops" and loss.startswith("proxy"):
            raise ValueError(f"sampling.batches crops have no labels that a loss {loss} could keep proxies of; take shuffled or balanced")
        if self.similarity.overlap == "idf" and loss == "triplet" and not self.similarity.positive_from:
            raise ValueError("similarity.overlap idf needs positive_from above 0 for triplets, which otherwise ask for any shared tag, got 0")
        if not self.similarity.tag_weight:
            _check_read("loss", self.loss, "similarity without tag_weight", set())
        _check_read("loss", self.loss, "similarity", {*Loss.model_fields} - {"class_weights"})
        _check_read("data", self.data, "similarity", {"crops_per_clip", "crop"})
        multiple = {"crops": 2, "balanced": self.sampling.clips_per_label}.get(batches, 3 if self.triplets_given else 1)
        if batch_size % multiple or batch_size < 2 * multiple:
            raise ValueError(
                f"fit.batch_size must be a multiple of {multiple} and at least {2 * multiple} for sampling.batches {batches}, got {batch_size}"
            )
        if "tagger" in SAMPLING_READS[batches] and self.sampling.tagger is None:
            raise ValueError(f"sampling.tagger must name the run of a tagger for sampling.batches {batches}, got none")
