"""Waveform to log-mel spectrogram: the one STFT of the project, used in training, evaluation and every exported file alike.

`mel_matrix` builds the filters, `mel_power` is the spectrogram before the log, `LogMel` is the layer. A `tfmusic.config.FrontEnd` says
everything about them; window and filters are rebuilt from it, so a saved model holds settings and no data.
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


# --- waveform to mel power ----------------------------------------------------------------------------------------------------------------
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
def _constants(config: FrontEnd, transform: str):
    """What `mel_power` needs of a configuration, computed once: the transform with its window, and the filters."""
    return TRANSFORMS[transform](config), mel_matrix(config)


def mel_power(waveform, config: FrontEnd, transform: str = "fft"):
    """Mel spectrogram: power, or magnitude with `config.power == 1`, before the log.

    Args:
        waveform: samples in -1..1 `[shape=(batch, samples)]`.
        config: the front end.
        transform: `fft`, or `dft`: the same Fourier transform as a matrix product. It is slower here, and there for TFLite, whose FFT
            takes powers of two only and runs on no delegate.

    Returns:
        float32 `[shape=(batch, frames, n_mels)]`.
    """
    to_spectrum, weights = _constants(config, transform)
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
    return tf.tensordot(power if config.power == 2 else tf.sqrt(power), weights, 1)


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

    Args:
        frontend: the settings, a `FrontEnd` or its dict.
        transform: `fft` or `dft`, see `mel_power`; equal to float32 rounding, so an export may choose.

    Input: waveform in -1..1 `[shape=(batch, samples)]`.
    Output: `[shape=(batch, frames, n_mels)]`, float32; frames = 1 + samples // hop_samples where frames are centred.

    Raises:
        ValueError: an unknown transform.

    >>> LogMel(FrontEnd())(np.zeros((1, 48_000))).shape
    TensorShape([1, 188, 96])
    """

    def __init__(self, frontend: FrontEnd | dict, transform: str = "fft", **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if transform not in TRANSFORMS:
            raise ValueError(f"transform must be one of {list(TRANSFORMS)}, got {transform!r}")
        self.frontend = FrontEnd.model_validate(frontend)
        self.transform = transform
        _constants(self.frontend, transform)  # an empty band warns here, not in the first step

    def call(self, waveform):
        log_mel = LOGS[self.frontend.log](mel_power(waveform, self.frontend, self.transform), self.frontend.floor)
        return normalise_window(log_mel) if self.frontend.normalise == "window" else log_mel

    def compute_output_shape(self, input_shape):
        batch, samples = input_shape
        if samples is None:
            return batch, None, self.frontend.n_mels
        frame_samples = self.frontend.frame_samples or self.frontend.n_fft
        padding = 0 if self.frontend.padding == "none" else frame_samples
        return batch, 1 + (samples + padding - frame_samples) // self.frontend.hop_samples, self.frontend.n_mels

    def get_config(self):
        return {**super().get_config(), "frontend": self.frontend.model_dump(mode="json"), "transform": self.transform}
