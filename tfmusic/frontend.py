"""Waveform to log-mel, chroma, onset strength, tempogram: the one STFT of the project, used in training, evaluation and every exported file alike.

`mel_matrix` and `chroma_matrix` build the filters, `spectrum` is the STFT, `mel_power` and `chroma` are what the filters make of it,
`onset_strength` and `tempogram` what the log-mel tells of rhythm, `LogMel` is the layer. A `tfmusic.config.FrontEnd` says everything about
them; windows and filters are rebuilt from it, so a saved model holds settings and no data.
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


def _fft(length: int, n_fft: int):
    window = hann(length).astype(np.float32)

    def transform(frames):
        spectrum = tf.signal.rfft(frames * window, [n_fft])  # zeros at the end; where they stand changes phases only
        return tf.math.real(spectrum), tf.math.imag(spectrum)

    return transform


def _dft(length: int, n_fft: int):
    window = hann(length)[:, None]
    cycles = np.outer(np.arange(length), np.arange(n_fft // 2 + 1)) % n_fft / n_fft  # (samples, bins)
    cosine = (window * np.cos(2 * np.pi * cycles)).astype(np.float32)
    sine = (window * np.sin(2 * np.pi * cycles)).astype(np.float32)
    return lambda frames: (tf.tensordot(frames, cosine, 1), tf.tensordot(frames, sine, 1))


TRANSFORMS = {"fft": _fft, "dft": _dft}  # length of a frame, n_fft -> (frames -> real part, imaginary part)


@functools.lru_cache(maxsize=32)
def _transform(length: int, n_fft: int, transform: str):
    return TRANSFORMS[transform](length, n_fft)


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
    frame_samples = config.frame_samples or config.n_fft
    to_spectrum = _transform(frame_samples, config.n_fft, transform)
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
    return _chroma(spectrum(waveform, config, transform), config)


def _chroma(power, config: FrontEnd):
    raw = tf.tensordot(power, _chroma_filters(config), 1)
    peak = tf.reduce_max(raw, axis=-1, keepdims=True)
    return raw / tf.where(peak < np.finfo(np.float32).tiny, 1.0, peak)


LOGS = {  # config.log -> f(mel power, floor)
    "db": lambda x, floor: tf.math.log(tf.maximum(x, floor)) * (10 / math.log(10)),
    "ln": lambda x, floor: tf.math.log(tf.maximum(x, floor)),
    "ln_offset": lambda x, floor: tf.math.log(x + floor),
    "log10_gain": lambda x, floor: tf.math.log(1 + x * (1 / floor)) * (1 / math.log(10)),
}


# --- log-mel to onset strength and tempogram ----------------------------------------------------------------------------------------------
LEAST_ONSET = 1e-3  # in the log-mel's unit: what lies below is rounding, which no rhythm is to be read from


def onset_strength(log_mel):
    """How much louder than the frame before each frame is, mean over the bands: spectral flux.

    `o_t = mean_m max(0, S_(t, m) - S_(t-1, m))`, `o_0 = 0`: `librosa.onset.onset_strength(S=log_mel, center=False)`. Frame t is that of the
    log-mel; librosa's default delays it by n_fft // (2 hop_samples) frames more, and cuts a spectrogram that it makes itself 80 dB below the
    clip's loudest band. Here `floor` is the limit, so that no loud moment changes what is heard elsewhere.

    Args:
        log_mel: `[shape=(batch, frames, n_mels)]`.

    Returns:
        `float >= 0` in the unit of the log-mel `[shape=(batch, frames, 1)]`.

    >>> onset_strength(np.array([[[0.0, 0.0], [4.0, -9.0]]]))[0, :, 0].numpy()
    array([0., 2.])
    """
    rise = tf.reduce_mean(tf.nn.relu(log_mel[:, 1:] - log_mel[:, :-1]), axis=-1, keepdims=True)
    return tf.pad(rise, [[0, 0], [1, 0], [0, 0]])


@functools.lru_cache(maxsize=32)
def _lag_matrix(n_fft: int, lags: int) -> np.ndarray:
    """The inverse Fourier transform of a power spectrum at lags 0, 1, ... `[shape=(n_fft // 2 + 1, lags)]`."""
    bins = np.arange(n_fft // 2 + 1)
    twice = np.where((bins == 0) | (bins == n_fft // 2), 1, 2)[:, None]  # all but 0 and Nyquist stand for their negative frequency too
    return (twice * np.cos(2 * np.pi * (np.outer(bins, np.arange(lags)) % n_fft) / n_fft) / n_fft).astype(np.float32)


def _windows(x, frames: int):
    """Every stretch of so many steps, `[shape=(batch, steps)]` to `[shape=(batch, steps - frames + 1, frames)]`.

    The row written again and again and cut one step longer than it is begins a step later each time. tf.signal.frame collects single numbers
    at hop 1: it takes twice as long as all else in the tempogram, and puts .3 MB of places into a TFLite file.
    """
    length = x.shape[1] or tf.shape(x)[1]
    count = length - frames + 1
    again = tf.tile(x, [1, count + 1])[:, : count * (length + 1)]
    return tf.reshape(again, [-1, count, length + 1])[:, :, :frames]


def local_autocorrelation(onsets, frames: int, lags: int, transform: str = "fft"):
    """Autocorrelation of the onsets around every frame, that of lag 0 being 1: `librosa.feature.tempogram`.

    `r_t(l) = sum_k x_t(k) x_t(k + l) / sum_k x_t(k)^2`, x_t a Hann window of `frames` centred on frame t times the onsets (Grosche, Mueller and
    Kurth, ICASSP 2010), as the inverse transform of their power spectrum. What lies beyond the waveform's ends has no onsets; librosa lets
    the last frame fade out over half a window instead, which is the same where that frame has none. Onsets below `LEAST_ONSET` in the
    window's root mean square count as that much: silence stays 0, and rounding is not turned into a rhythm.

    Args:
        onsets: `[shape=(batch, steps, 1)]`.
        frames: length of the window `int > 1`.
        lags: how many of them, from 0 on, in frames `int > 0`.
        transform: as in `spectrum`; the FFT's size is a power of two, which TFLite takes.

    Returns:
        float32 in 0..1 `[shape=(batch, steps, lags)]`.
    """
    n_fft = 1 << (frames + lags - 2).bit_length()  # at least frames + lags - 1: no lag meets another one that wraps around
    padded = tf.pad(onsets[:, :, 0], [[0, 0], [frames // 2, frames - frames // 2 - 1]])
    real, imaginary = _transform(frames, n_fft, transform)(_windows(padded, frames))  # (batch, steps, bins)
    correlation = tf.tensordot(tf.square(real) + tf.square(imaginary), _lag_matrix(n_fft, lags), 1)
    least = LEAST_ONSET**2 * np.sum(hann(frames) ** 2)
    return correlation / tf.maximum(correlation[..., :1], least)


def tempi_bpm(config: FrontEnd) -> np.ndarray:
    """Beats a minute of the tempogram's columns, equally spaced in octaves `[shape=(tempo_bins,)]`; what a plot's axis needs."""
    return np.geomspace(config.tempo_min_bpm, config.tempo_max_bpm, config.tempo_bins)


@functools.lru_cache(maxsize=32)
def tempo_matrix(config: FrontEnd) -> np.ndarray:
    """Weights that read tempi off the lags of an autocorrelation, computed in float64.

    A tempo of b beats a minute repeats every `60 / b` seconds. A lag counts `1 - distance / width` of it, where positive, the width being the
    distance to the next slower tempo's lag, and a frame at least: slow tempi lie several frames apart, and a beat between them is not lost.
    Of the slowest one lags beyond its own do not count.

    Args:
        config: the front end; the rate of the frames and the tempi are read.

    Returns:
        float32 `[shape=(lags from 0 to the slowest tempo's, tempo_bins)]`; columns sum to 1.
    """
    centres = 60 * config.frames_per_s / tempi_bpm(config)  # falling
    step = (config.tempo_max_bpm / config.tempo_min_bpm) ** (1 / (config.tempo_bins - 1))
    widths = np.maximum(1, centres * (step - 1))
    lags = np.arange(math.ceil(centres[0]) + 1)[:, None]
    weights = np.maximum(0, 1 - np.abs(lags - centres) / widths)
    return (weights / weights.sum(axis=0)).astype(np.float32)


def tempogram(onsets, config: FrontEnd, transform: str = "fft"):
    """How strongly the onsets around every frame repeat at each tempo, and at whole multiples of it in time.

    `local_autocorrelation` over `tempogram_frames`, read at tempi instead of lags: a faster piece is the same pattern some columns on, which a
    convolution knows again, and a column means the same at every hop. Clicks at b beats a minute show at b, b / 2, b / 3, ...

    Args:
        onsets: `onset_strength` `[shape=(batch, frames, 1)]`.
        config: the front end; the rate of the frames, the tempi and tempogram_frames are read.
        transform: as in `spectrum`.

    Returns:
        float32 in 0..1 `[shape=(batch, frames, tempo_bins)]`, from slow to fast, see `tempi_bpm`.
    """
    weights = tempo_matrix(config)
    return tf.tensordot(local_autocorrelation(onsets, config.tempogram_frames, len(weights), transform), weights, 1)


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
PARTS = {  # name -> made of which other, f(it, config, transform), columns
    "log_mel": ("spectrum", lambda power, config, transform: _log_mel(power, config), lambda config: config.n_mels),
    "chroma": ("spectrum", lambda power, config, transform: _chroma(power, config), lambda config: CHROMA),
    "onset": ("log_mel", lambda log_mel, config, transform: onset_strength(log_mel), lambda config: 1),
    "tempogram": ("onset", tempogram, lambda config: config.tempo_bins),
}


def _parts(waveform, config: FrontEnd, transform: str) -> list:
    """`config.features`, each `[shape=(batch, frames, columns)]`; what several are made of is made once."""
    made = {"spectrum": spectrum(waveform, config, transform)}

    def part(name):
        if name not in made:
            source, make, _ = PARTS[name]
            made[name] = make(part(source), config, transform)
        return made[name]

    return [part(name) for name in config.features]


def _log_mel(power, config: FrontEnd):
    return LOGS[config.log](tf.tensordot(power, _mel_filters(config), 1), config.floor)


def normalise_window(x):
    """Each example of `[shape=(batch, frames, columns)]` to zero mean and unit deviation; a deviation below .001 (silence) counts as .001."""
    mean, variance = tf.nn.moments(x, axes=[1, 2], keepdims=True)
    return (x - mean) / tf.maximum(tf.sqrt(variance), 1e-3)


@keras.saving.register_keras_serializable("tfmusic")
class LogMel(keras.layers.Layer):
    """Log-mel spectrogram, in float32 under every dtype policy: float16 turns a floor of 1e-10 into 0.

    `hann window -> |STFT|^power -> mel filters -> log`, with the original of every preset as reference (tests/test_frontend.py). The same
    object serves tf.data, training, SavedModel and TFLite; it has no weights. An example's features depend on that example only.

    `features` puts chroma, onset strength and tempogram (the functions of these names) beside the log-mel or in its place, in the order given,
    each normalised by itself: several of them need that, decibels and shares of 1 being a hundredfold apart. Chroma wants a longer FFT than a
    log-mel: at 16 kHz the bins of n_fft 512 are 31 Hz wide, where semitones part above 500 Hz only.

    With `resolutions_ms` that is done for each length of window: the log-mels are brought to the same frames (`resizing_matrices`), each is
    normalised by itself if at all, and they are stacked. Half of every window overlaps the next unless `overlap` says otherwise; at 0 the window
    is the hop, as in a report, and what lies between two frames is faded out of both. All share n_fft, to which short frames are padded with
    zeros: that adds no detail, but bins. Of 128 Slaney bands at 16 kHz n_fft 512 leaves none empty, 256 leaves 13, and the 160 samples of a
    10 ms frame would leave 32.

    Args:
        frontend: the settings, a `FrontEnd` or its dict.
        transform: `fft` or `dft`, see `spectrum`; equal to float32 rounding, so an export may choose.

    Input: waveform in -1..1 `[shape=(batch, samples)]`.
    Output: `[shape=(batch, frames, n_mels)]`, float32; frames = 1 + samples // hop_samples where frames are centred. With `resolutions_ms`
        `[shape=(batch, frames, n_mels, resolutions)]`, frames as set. With other `features` their columns in place of n_mels: chroma 12,
        onset 1, tempogram tempo_bins.

    Raises:
        ValueError: an unknown transform; resolutions of a waveform whose number of samples the graph does not know.

    >>> LogMel(FrontEnd())(np.zeros((1, 48_000))).shape
    TensorShape([1, 188, 96])
    >>> LogMel(FrontEnd(resolutions_ms=(10, 20, 30), frames=101))(np.zeros((1, 48_000))).shape
    TensorShape([1, 101, 96, 3])
    >>> LogMel(FrontEnd(features=("log_mel", "chroma", "onset", "tempogram"), normalise="window"))(np.zeros((1, 48_000))).shape
    TensorShape([1, 188, 157])
    """

    def __init__(self, frontend: FrontEnd | dict, transform: str = "fft", **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if transform not in TRANSFORMS:
            raise ValueError(f"transform must be one of {list(TRANSFORMS)}, got {transform!r}")
        self.frontend = FrontEnd.model_validate(frontend)
        self.transform = transform
        if self.frontend.features != ("chroma",):  # which alone has no bands
            _mel_filters(self.frontend.channels[0])  # an empty band warns here, not in the first step; all channels have the same

    def call(self, waveform):
        parts = [part for one in self.frontend.channels for part in _parts(waveform, one, self.transform)]  # of several, one has one alone
        if self.frontend.resolutions_ms:
            matrices = resizing_matrices(self.frontend, self._known(waveform.shape[-1]))
            parts = [tf.matmul(matrix, log_mel) for matrix, log_mel in zip(matrices, parts, strict=True)]
        if self.frontend.normalise == "window":  # before they are joined: across channels TensorFlow's mean rounds a hundred times worse
            parts = [normalise_window(part) for part in parts]
        if self.frontend.resolutions_ms:
            return tf.stack(parts, axis=-1)
        return tf.concat(parts, axis=-1) if len(parts) > 1 else parts[0]

    def compute_output_shape(self, input_shape):
        batch, samples = input_shape
        if self.frontend.resolutions_ms:
            self._known(samples)
            return batch, self.frontend.frames, self.frontend.n_mels, len(self.frontend.resolutions_ms)
        columns = sum(PARTS[name][2](self.frontend) for name in self.frontend.features)
        return batch, None if samples is None else _count_frames(self.frontend, samples), columns

    def _known(self, samples: int | None) -> int:
        if samples is None:
            raise ValueError("waveform must have a known number of samples for resolutions_ms, got (batch, None)")
        return samples

    def get_config(self):
        return {**super().get_config(), "frontend": self.frontend.model_dump(mode="json"), "transform": self.transform}
