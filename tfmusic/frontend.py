"""Waveform to log-mel spectrogram or chroma: the one STFT of the project, used in training, evaluation and every exported file alike.

`mel_matrix` and `chroma_matrix` build the filters, `spectrum` is the STFT, `mel_power` and `chroma` are what the filters make of it,
`LogMel` is the layer. A `tfmusic.config.FrontEnd` says everything about them; window and filters are rebuilt from it, so a saved model
holds settings and no data.
"""

from __future__ import annotations

import functools
import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from tfmusic.config import FrontEnd


# --- mel filters --------------------------------------------------------------------------------------------------------------------------
def _slaney_mel(hz):
    """Slaney's Auditory Toolbox (1998): 200/3 Hz a mel up to 1 kHz, then 27 mels for every factor of 6.4."""
    return np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def _slaney_hz(mel):
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def _htk_mel(hz):
    """The HTK Book (2006), section 5.4: 2595 log10(1 + f / 700)."""
    return 2595 * np.log10(1 + hz / 700)


def _htk_hz(mel):
    return 700 * (10 ** (mel / 2595) - 1)


MEL_SCALES = {"slaney": (_slaney_mel, _slaney_hz), "htk": (_htk_mel, _htk_hz), "htk_mel": (_htk_mel, _htk_hz)}


def mel_matrix(config: FrontEnd) -> np.ndarray:
    """Triangular mel filters, computed in float64.

    Band `m` rises from edge `e_m` to 1 at `e_(m+1)` and falls to 0 at `e_(m+2)`, the edges equally spaced in mel from f_min_hz to f_max_hz.

    * `slaney`: Slaney's scale, each triangle of area 1 in Hz; `librosa.filters.mel(...)`.
    * `htk`: HTK's scale, each triangle of height 1; `librosa.filters.mel(..., htk=True, norm=None)`, torchaudio.
    * `htk_mel`: as htk, but straight lines over mel instead of Hz; `tf.signal.linear_to_mel_weight_matrix`, YAMNet.

    Args:
        config: the front end; n_fft, n_mels, mel, sample_rate_hz and the band edges are read.

    Returns:
        Weights `[shape=(n_fft // 2 + 1, n_mels)]`, float32. A band between two FFT bins is empty: that warns.

    >>> mel_matrix(FrontEnd(n_fft=512, n_mels=96)).shape
    (257, 96)
    """
    to_mel, to_hz = MEL_SCALES[config.mel]
    bins = np.arange(config.n_fft // 2 + 1)[:, None] * (config.sample_rate_hz / config.n_fft)  # Hz
    limits_hz = np.array([config.f_min_hz, config.f_max_hz or config.sample_rate_hz / 2])
    edges = np.linspace(*to_mel(limits_hz), config.n_mels + 2)
    if config.mel == "htk_mel":
        bins = to_mel(bins)
    else:
        edges = to_hz(edges)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    if config.mel == "slaney":
        weights *= 2 / (upper - lower)
    if empty := int((weights.max(axis=0) == 0).sum()):
        warnings.warn(f"{empty} of {config.n_mels} mel bands hold no FFT bin and stay constant: raise n_fft or lower n_mels", stacklevel=2)
    return weights.astype(np.float32)


# --- chroma filters -----------------------------------------------------------------------------------------------------------------------
CHROMA = 12  # pitch classes C, C sharp, ... B
LOWEST_A_HZ, CENTRE_OCTAVES, WIDTH_OCTAVES = 27.5, 5, 2  # octaves are counted from the piano's lowest A


def chroma_matrix(config: FrontEnd) -> np.ndarray:
    """Filters that fold FFT bins onto the twelve pitch classes of 440 Hz tuning, computed in float64.

    A bin at `s` semitones above the lowest A gives class `c` the share `exp(-2 (d / w)^2)`, d their distance around the circle of 12 and w
    the distance to the next bin, at least a semitone. The shares of a bin have norm 1 times `exp(-((s / 12 - 5) / 2)^2 / 2)`: middle octaves
    count most (Ellis, 2007). Equal to `librosa.filters.chroma(...)`, tuning 0.

    Args:
        config: the front end; n_fft and sample_rate_hz are read. Below n_fft = 2048 at 22,050 Hz low notes share their bins.

    Returns:
        Weights `[shape=(n_fft // 2 + 1, 12)]`, float32, from C upwards.
    """
    bins_hz = np.arange(1, config.n_fft // 2 + 2) * (config.sample_rate_hz / config.n_fft)
    semitones = 12 * np.log2(bins_hz / LOWEST_A_HZ)
    semitones = np.concatenate([semitones[:1] - 18, semitones])  # 0 Hz has no pitch: so far below that it spreads over all classes
    width = np.maximum(np.diff(semitones), 1)[:, None]
    semitones = semitones[:-1, None]
    distance = np.remainder(semitones - (np.arange(CHROMA) - 9) + 6, 12) - 6  # C lies 9 semitones below A
    weights = np.exp(-2 * (distance / width) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    weights *= np.exp(-0.5 * ((semitones / 12 - CENTRE_OCTAVES) / WIDTH_OCTAVES) ** 2)
    return weights.astype(np.float32)


# --- waveform to spectrum, mel power and chroma -------------------------------------------------------------------------------------------
def hann(samples: int) -> np.ndarray:
    """Periodic Hann window `[shape=(samples,)]`, float64: one period of `(1 - cos) / 2`, without the closing zero of the symmetric one."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(samples) / samples)


def _fft(config: FrontEnd):
    window = hann(config.frame_samples or config.n_fft).astype(np.float32)

    def transform(frames):
        spectrum = tf.signal.rfft(frames * window, [config.n_fft])  # zeros at the end; where they stand changes phases only
        return tf.math.real(spectrum), tf.math.imag(spectrum)

    return transform


def _dft(config: FrontEnd):
    window = hann(config.frame_samples or config.n_fft)[:, None]
    cycles = np.outer(np.arange(len(window)), np.arange(config.n_fft // 2 + 1)) % config.n_fft / config.n_fft  # (samples, bins)
    cosine = (window * np.cos(2 * np.pi * cycles)).astype(np.float32)
    sine = (window * np.sin(2 * np.pi * cycles)).astype(np.float32)
    return lambda frames: (tf.tensordot(frames, cosine, 1), tf.tensordot(frames, sine, 1))


TRANSFORMS = {"fft": _fft, "dft": _dft}  # config -> (frames -> real part, imaginary part)


@functools.lru_cache(maxsize=32)
def _transform(config: FrontEnd, transform: str):
    return TRANSFORMS[transform](config)


@functools.lru_cache(maxsize=32)
def _mel_filters(config: FrontEnd):
    return mel_matrix(config)


@functools.lru_cache(maxsize=32)
def _chroma_filters(config: FrontEnd):
    return chroma_matrix(config)


def spectrum(waveform, config: FrontEnd, transform: str = "fft"):
    """Squared magnitudes of the STFT, or magnitudes with `config.power == 1`.

    Args:
        waveform: samples in -1..1 `[shape=(batch, samples)]`.
        config: the front end; window, hop and padding are read.
        transform: `fft`, or `dft`: the same Fourier transform as a matrix product. It is slower here, and there for TFLite, whose FFT
            takes powers of two only and runs on no delegate.

    Returns:
        float32 `[shape=(batch, frames, n_fft // 2 + 1)]`.
    """
    to_spectrum = _transform(config, transform)
    frame_samples = config.frame_samples or config.n_fft
    waveform = tf.cast(waveform, tf.float32)
    if config.padding != "none":
        # librosa pads n_fft // 2 and lays the window (n_fft - frame_samples) // 2 into each n_fft-long frame; the samples around it are
        # multiplied by 0. So frame t weighs samples from t * hop - before on, and short frames cut there give the same magnitudes.
        before = config.n_fft // 2 - (config.n_fft - frame_samples) // 2
        mode = "REFLECT" if config.padding == "reflect" else "CONSTANT"
        waveform = tf.pad(waveform, [[0, 0], [before, frame_samples - before]], mode)
    frames = tf.signal.frame(waveform, frame_samples, config.hop_samples)  # (batch, frames, samples)
    real, imaginary = to_spectrum(frames)  # (batch, frames, bins)
    power = tf.square(real) + tf.square(imaginary)  # tf.abs slows the whole layer by a third
    return power if config.power == 2 else tf.sqrt(power)


def mel_power(waveform, config: FrontEnd, transform: str = "fft"):
    """Mel spectrogram: power, or magnitude with `config.power == 1`, before the log.

    Args:
        waveform: samples in -1..1 `[shape=(batch, samples)]`.
        config: the front end.
        transform: as in `spectrum`.

    Returns:
        float32 `[shape=(batch, frames, n_mels)]`.
    """
    return tf.tensordot(spectrum(waveform, config, transform), _mel_filters(config), 1)


def chroma(waveform, config: FrontEnd, transform: str = "fft"):
    """Share of every pitch class, each frame scaled to a maximum of 1: `librosa.feature.chroma_stft(..., tuning=0)`.

    Silence stays 0. Frames of next to nothing, such as dither, are scaled up like all others, as librosa does.

    Args:
        waveform: samples in -1..1 `[shape=(batch, samples)]`.
        config: the front end; what concerns mel bands and the log is not read.
        transform: as in `spectrum`.

    Returns:
        float32 in 0..1 `[shape=(batch, frames, 12)]`, from C upwards.
    """
    raw = tf.tensordot(spectrum(waveform, config, transform), _chroma_filters(config), 1)
    peak = tf.reduce_max(raw, axis=-1, keepdims=True)
    return raw / tf.where(peak < np.finfo(np.float32).tiny, 1.0, peak)


# --- several resolutions to one number of frames ------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=32)
def resizing_matrices(config: FrontEnd, samples: int) -> tuple[np.ndarray, ...]:
    """For each resolution the weights that turn its frames into `config.frames` of them.

    Output frame `j` stands at the same time in every channel: the times are equally spaced from the first to the last frame. An input
    frame counts `1 - distance / width`, where positive, the width being a step of the coarser of both grids, so that shrinking averages over
    all frames between; an image resize without antialiasing looks at two of them and skips the rest.

    Args:
        config: the front end.
        samples: length of the waveform `int > 0`.

    Returns:
        float32 `[shape=(config.frames, frames of the resolution)]` for each; rows sum to 1.
    """
    times = []  # of the frames' centres, in samples
    for one in config.channels:
        first = one.frame_samples / 2 if config.padding == "none" else 0
        times.append(first + one.hop_samples * np.arange(_count_frames(one, samples)))
    resized = np.linspace(max(time[0] for time in times), min(time[-1] for time in times), config.frames)[:, None]
    matrices = []
    for one, time in zip(config.channels, times, strict=True):
        width = max(one.hop_samples, resized[1, 0] - resized[0, 0])
        weights = np.maximum(0, 1 - np.abs(resized - time) / width)
        matrices.append((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
    return tuple(matrices)


def _count_frames(config: FrontEnd, samples: int) -> int:
    frame_samples = config.frame_samples or config.n_fft
    padding = 0 if config.padding == "none" else frame_samples
    return 1 + (samples + padding - frame_samples) // config.hop_samples


# --- the layer ----------------------------------------------------------------------------------------------------------------------------
LOGS = {  # config.log -> f(mel power, floor)
    "db": lambda x, floor: tf.math.log(tf.maximum(x, floor)) * (10 / math.log(10)),
    "ln": lambda x, floor: tf.math.log(tf.maximum(x, floor)),
    "ln_offset": lambda x, floor: tf.math.log(x + floor),
    "log10_gain": lambda x, floor: tf.math.log(1 + x * (1 / floor)) * (1 / math.log(10)),
}


def normalise_window(x):
    """Each example of `[shape=(batch, frames, mels)]` to zero mean and unit deviation; a deviation below .001 (silence) counts as .001."""
    mean, variance = tf.nn.moments(x, axes=[1, 2], keepdims=True)
    return (x - mean) / tf.maximum(tf.sqrt(variance), 1e-3)


@keras.saving.register_keras_serializable("tfmusic")
class LogMel(keras.layers.Layer):
    """Log-mel spectrogram, in float32 under every dtype policy: float16 turns a floor of 1e-10 into 0.

    `hann window -> |STFT|^power -> mel filters -> log`, with the original of every preset as reference (tests/test_frontend.py). The same
    object serves tf.data, training, SavedModel and TFLite; it has no weights. An example's features depend on that example only.

    With `resolutions_ms` that is done for each length of window: the log-mels are brought to the same frames (`resizing_matrices`), each is
    normalised by itself if at all, and they are stacked. Half of every window overlaps the next unless `overlap` says otherwise; at 0 the window
    is the hop, as in a report, and what lies between two frames is faded out of both. All share n_fft, to which short frames are padded with
    zeros: that adds no detail, but bins. Of 128 Slaney bands at 16 kHz n_fft 512 leaves none empty, 256 leaves 13, and the 160 samples of a
    10 ms frame would leave 32.

    Args:
        frontend: the settings, a `FrontEnd` or its dict.
        transform: `fft` or `dft`, see `mel_power`; equal to float32 rounding, so an export may choose.

    Input: waveform in -1..1 `[shape=(batch, samples)]`.
    Output: `[shape=(batch, frames, n_mels)]`, float32; frames = 1 + samples // hop_samples where frames are centred. With `resolutions_ms`
        `[shape=(batch, frames, n_mels, resolutions)]`, frames as set.

    Raises:
        ValueError: an unknown transform; resolutions of a waveform whose number of samples the graph does not know.

    >>> LogMel(FrontEnd())(np.zeros((1, 48_000))).shape
    TensorShape([1, 188, 96])
    >>> LogMel(FrontEnd(resolutions_ms=(10, 20, 30), frames=101))(np.zeros((1, 48_000))).shape
    TensorShape([1, 101, 96, 3])
    """

    def __init__(self, frontend: FrontEnd | dict, transform: str = "fft", **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if transform not in TRANSFORMS:
            raise ValueError(f"transform must be one of {list(TRANSFORMS)}, got {transform!r}")
        self.frontend = FrontEnd.model_validate(frontend)
        self.transform = transform
        _mel_filters(self.frontend.channels[0])  # an empty band warns here, not in the first step; all channels have the same

    def call(self, waveform):
        log_mels = [LOGS[one.log](mel_power(waveform, one, self.transform), one.floor) for one in self.frontend.channels]
        if self.frontend.resolutions_ms:
            matrices = resizing_matrices(self.frontend, self._known(waveform.shape[-1]))
            log_mels = [tf.matmul(matrix, log_mel) for matrix, log_mel in zip(matrices, log_mels, strict=True)]
        if self.frontend.normalise == "window":  # before they are stacked: across channels TensorFlow's mean rounds a hundred times worse
            log_mels = [normalise_window(log_mel) for log_mel in log_mels]
        return tf.stack(log_mels, axis=-1) if self.frontend.resolutions_ms else log_mels[0]

    def compute_output_shape(self, input_shape):
        batch, samples = input_shape
        if self.frontend.resolutions_ms:
            self._known(samples)
            return batch, self.frontend.frames, self.frontend.n_mels, len(self.frontend.resolutions_ms)
        return batch, None if samples is None else _count_frames(self.frontend, samples), self.frontend.n_mels

    def _known(self, samples: int | None) -> int:
        if samples is None:
            raise ValueError("waveform must have a known number of samples for resolutions_ms, got (batch, None)")
        return samples

    def get_config(self):
        return {**super().get_config(), "frontend": self.frontend.model_dump(mode="json"), "transform": self.transform}
