"""What is heard: the front end, its presets, and how records keep the audio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from tfmusic.config.base import Settings

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
