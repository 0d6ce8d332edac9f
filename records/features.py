"""Offline features: a track's sequence of log-mel, chroma or embedding vectors, by frame, by beat or by window, for records without audio.

They come from the project's own STFT (`tfmusic.frontend`), beats from librosa's tracker on that log-mel, embeddings from a trained run.
Everything is computed in blocks: beside its samples and its features a track of any length needs some dozen MB, with beats up to .4 GB a
thread (ten minutes of librosa's tempogram). Five hours at 22,050 Hz are .8 GB of samples and 775,000 frames, .4 GB of log-mel in float32.

The same waveform gives the same bytes on every call, in any number of threads, and with TensorFlow on 1, 2 or 4 cores (measured). Another
processor or version of TensorFlow may round the last bits of a float32 otherwise, and a beat may then move.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import audio, evaluate, models, run
from tfmusic.config import Experiment, Features, FrontEnd, InputError
from tfmusic.frontend import CHROMA, LOGS, chroma, mel_power

KINDS = {  # kind -> what stands side by side in each vector, and whether vectors are beats
    "log_mel": (("log_mel",), False),
    "chroma": (("chroma",), False),
    "fused": (("log_mel", "chroma"), False),
    "beat_mel": (("log_mel",), True),
    "beat_chroma": (("chroma",), True),
    "beat_fused": (("log_mel", "chroma"), True),
}
PARTS = {  # (waveform (1, samples), settings) -> (1, frames, columns)
    "log_mel": lambda waveform, config: LOGS[config.log](mel_power(waveform, config), config.floor),
    "chroma": chroma,
}
BLOCK_FRAMES = 1024  # of the STFT at a time
STRETCH_S = 600.0  # beats are tracked in stretches of this length: the tracker holds some hundred floats a frame, and one tempo
DYNAMIC_DB = 80.0  # below a stretch's loudest band nothing is an onset; librosa's own limit
NO_BEAT_S = 0.5  # length of an interval where no beat is found: 120 a minute, where the tracker starts to look
FASTEST_BPM, BEAT_FRAMES = 320, 2  # the tracker's fastest tempo, and the frames that one of its beats must span
WINDOWS_TOGETHER = 8  # always so many: another number of rows sums in another order


def compute(waveform: np.ndarray, sample_rate_hz: int, features: Features) -> np.ndarray:
    """A track's features.

    * `log_mel`: 10 log10 of the mel power, floor -100 dB: the `librosa` preset with these n_fft, hop_samples and n_mels. Frame t is centred
      on sample t * hop_samples, there are 1 + samples // hop_samples.
    * `chroma`: twelve pitch classes from C, the greatest of each frame 1, silence 0; tuning is taken to be 440 Hz, where librosa estimates it.
    * `fused`: both side by side as they are, decibels first. Their scales differ a hundredfold: normalise each column in the net.
    * `beat_mel`, `beat_chroma`, `beat_fused`: their mean over the frames of every beat interval, see `beat_frames` and `means`.
    * `embedding`: what the `logits` layer of the run's net is fed, or the unit-length embedding of a net without one, for windows at the
      run's own evaluation hop, the last one ending where the track ends.

    Args:
        waveform: int16 `[shape=(samples,)]`.
        sample_rate_hz: its rate `int > 0`.
        features: kind, number type and settings.

    Returns:
        Finite numbers of `features.dtype` `[shape=(frames, dims(features))]`, one frame at least; beyond float16's range they are clipped.

    Raises:
        InputError: no run or one of another rate, too few frames a second for beats, or no librosa.
        ValueError: a waveform of another type or shape, or without samples.

    >>> compute(np.zeros(661_500, np.int16), 22_050, Features(kind="beat_fused")).shape
    (60, 140)
    """
    if waveform.dtype != np.int16 or waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"waveform must be int16 of shape (samples,) with a sample at least, got {waveform.dtype} {waveform.shape}")
    if features.kind == "embedding":
        values = _embeddings(waveform, sample_rate_hz, features)
    else:
        values = _frames_or_beats(waveform, sample_rate_hz, features)
    limit = np.finfo(features.dtype).max
    return np.clip(values, -limit, limit).astype(features.dtype)


def dims(features: Features) -> int:
    """Length of each of `compute`'s vectors.

    Raises:
        InputError: kind embedding, and its run cannot be used.
    """
    if features.kind == "embedding":
        return _embedder(_run_of(features)).outputs[0].shape[-1]
    parts, _ = KINDS[features.kind]
    return sum(features.n_mels if part == "log_mel" else CHROMA for part in parts)


def estimated_bytes(samples: int, sample_rate_hz: int, features: Features) -> int:
    """About how large `compute`'s result will be, to plan shards."""
    rates = {kind: 1 / NO_BEAT_S if by_beat else sample_rate_hz / features.hop_samples for kind, (_, by_beat) in KINDS.items()}
    vectors = 1 + samples / sample_rate_hz * rates.get(features.kind, 1.0)
    return round(vectors * dims(features) * np.dtype(features.dtype).itemsize)


def once(make: Callable) -> Callable:
    """`functools.lru_cache` that calls `make` once even where threads ask for the same thing at the same time."""
    cached, lock = functools.lru_cache(maxsize=8)(make), threading.Lock()

    @functools.wraps(make)
    def locked(*arguments):
        with lock:
            return cached(*arguments)

    locked.forget = cached.cache_clear
    return locked


# --- frames -------------------------------------------------------------------------------------------------------------------------------
def _frames_or_beats(waveform: np.ndarray, sample_rate_hz: int, features: Features) -> np.ndarray:
    parts, by_beat = KINDS[features.kind]
    if not by_beat:
        return frames_of(waveform, sample_rate_hz, features, parts)
    if sample_rate_hz * 60 < BEAT_FRAMES * FASTEST_BPM * features.hop_samples:
        greatest = sample_rate_hz * 60 // (BEAT_FRAMES * FASTEST_BPM)
        raise InputError(f"features.hop_samples must be at most {greatest} for beats at {sample_rate_hz} Hz, got {features.hop_samples}")
    values = frames_of(waveform, sample_rate_hz, features, tuple(dict.fromkeys(("log_mel", *parts))))  # onsets are those of the log-mel
    edges = beat_edges(values[:, : features.n_mels], sample_rate_hz, features.n_fft, features.hop_samples)
    return means(values[:, -dims(features) :], edges)


def frames_of(waveform: np.ndarray, sample_rate_hz: int, features: Features, parts: tuple[str, ...]) -> np.ndarray:
    """Log-mel and chroma of whole tracks.

    Args:
        waveform: int16 `[shape=(samples,)]`.
        sample_rate_hz: its rate `int > 0`.
        features: STFT settings.
        parts: keys of `PARTS`, in the order of the columns.

    Returns:
        float32 `[shape=(1 + samples // hop_samples, columns)]`.
    """
    graph = _graph(sample_rate_hz, features.n_fft, features.hop_samples, features.n_mels, parts)
    hop, before, frames = features.hop_samples, features.n_fft // 2, 1 + len(waveform) // features.hop_samples
    blocks = []
    for first in range(0, frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, frames - first)
        start = first * hop - before  # the graph pads nothing: what lies beyond the track's ends is zero here
        end = start + (count - 1) * hop + features.n_fft
        inside = waveform[max(start, 0) : end]
        block = np.pad(inside, (max(-start, 0), max(end - len(waveform), 0)))
        blocks.append(graph(np.multiply(block, 1 / 32_768, dtype=np.float32)).numpy())
    return np.concatenate(blocks)


@once
def _graph(sample_rate_hz: int, n_fft: int, hop_samples: int, n_mels: int, parts: tuple[str, ...]) -> Callable:
    """Samples `[shape=(samples,)]` to `[shape=(frames, columns)]`; one trace serves every length. TensorFlow merges the equal STFTs of parts."""
    config = FrontEnd(
        sample_rate_hz=sample_rate_hz, window_s=1 + n_fft / sample_rate_hz, n_fft=n_fft, hop_samples=hop_samples, n_mels=n_mels,
        padding="none", floor=1e-10,
    )  # fmt: skip

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def graph(samples):
        return tf.concat([PARTS[part](samples[None], config)[0] for part in parts], axis=-1)

    graph.get_concrete_function()  # traced here, by one thread
    return graph


# --- beats --------------------------------------------------------------------------------------------------------------------------------
def means(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the frames of each interval; of decibels too, which is the geometric mean of the power, so that one loud frame is not all.

    Args:
        values: `[shape=(frames, columns)]`.
        edges: first frame of each interval, and the number of frames, strictly increasing `[shape=(intervals + 1,)]`.

    Returns:
        float32 `[shape=(intervals, columns)]`.
    """
    return np.stack([values[start:end].mean(axis=0, dtype=np.float64) for start, end in itertools.pairwise(edges)]).astype(np.float32)


def beat_edges(log_mel: np.ndarray, sample_rate_hz: int, n_fft: int, hop_samples: int) -> np.ndarray:
    """Where the beat intervals of a track begin, and where the last one ends.

    The first interval begins at frame 0 and the last ends with the track, whatever stands before the first beat and behind the last. A
    track without any beat (silence, a drone, a blink) is cut into equal intervals of about half a second, so that its sequence is as long as
    others'.

    Args:
        log_mel: decibels `[shape=(frames, mels)]`.
        sample_rate_hz, n_fft, hop_samples: of its STFT.

    Returns:
        int64, from 0 to the number of frames, strictly increasing `[shape=(intervals + 1,)]`.
    """
    frames = len(log_mel)
    stretch = round(STRETCH_S * sample_rate_hz / hop_samples)
    beats = [first + beat_frames(log_mel[first : first + stretch], sample_rate_hz, n_fft, hop_samples) for first in range(0, frames, stretch)]
    inner = np.concatenate(beats)
    if not len(inner):
        intervals = max(1, round(frames * hop_samples / sample_rate_hz / NO_BEAT_S))
        inner = np.linspace(0, frames, intervals + 1).round().astype(np.int64)
    return np.unique(np.concatenate([[0], inner, [frames]]))


def beat_frames(log_mel: np.ndarray, sample_rate_hz: int, n_fft: int, hop_samples: int) -> np.ndarray:
    """Beats of a log-mel: `librosa.beat.beat_track` (Ellis, 2007) with its own onset strength, the median over the bands.

    Args:
        log_mel: decibels `[shape=(frames, mels)]`.
        sample_rate_hz, n_fft, hop_samples: of its STFT.

    Returns:
        Frames, increasing int64 `[shape=(beats,)]`; none for less than two frames or without an onset.

    Raises:
        InputError: librosa is not installed.
    """
    onset_strength, beat_track = _librosa()
    if len(log_mel) < 2:
        return np.zeros(0, np.int64)
    decibels = np.maximum(log_mel, log_mel.max() - DYNAMIC_DB).T  # (mels, frames)
    onsets = onset_strength(S=decibels, sr=sample_rate_hz, n_fft=n_fft, hop_length=hop_samples, aggregate=np.median)
    return beat_track(onset_envelope=onsets, sr=sample_rate_hz, hop_length=hop_samples)[1].astype(np.int64)


@once
def _librosa() -> tuple[Callable, Callable]:
    """librosa's onset strength and beat tracker, imported and warmed up by one thread: it loads its parts at their first use."""
    try:
        from librosa.beat import beat_track
        from librosa.onset import onset_strength
    except ImportError as error:
        raise InputError(f"features over beats need librosa ~= 0.11 (pip install librosa): {error}") from error
    clicks = np.full((4, 200), -80, np.float32)
    clicks[:, ::20] = 0
    beat_track(onset_envelope=onset_strength(S=clicks, aggregate=np.median))
    return onset_strength, beat_track


# --- embeddings ---------------------------------------------------------------------------------------------------------------------------
def _embeddings(waveform: np.ndarray, sample_rate_hz: int, features: Features) -> np.ndarray:
    """One vector a window, float32 `[shape=(windows, dim)]`."""
    directory = _run_of(features)
    experiment = _experiment(directory)
    frontend = experiment.frontend
    if frontend.sample_rate_hz != sample_rate_hz:
        raise InputError(f"--sample-rate-hz must be that of {directory}, {frontend.sample_rate_hz}, got {sample_rate_hz}")
    hop_samples = max(1, round(experiment.evaluation.hop_s * sample_rate_hz))
    starts = audio.window_starts(len(waveform), frontend.window_samples, hop_samples)
    padded = audio.fit_length(waveform, frontend.window_samples, frontend.short)
    embed = _embed(directory)
    vectors = []
    for first in range(0, len(starts), WINDOWS_TOGETHER):
        chosen = starts[first : first + WINDOWS_TOGETHER]
        windows = np.zeros((WINDOWS_TOGETHER, frontend.window_samples), np.float32)
        for row, start in enumerate(chosen):
            np.multiply(padded[start : start + frontend.window_samples], 1 / 32_768, out=windows[row], dtype=np.float32)
        vectors.append(embed(windows).numpy()[: len(chosen)])
    return np.concatenate(vectors)


def _run_of(features: Features) -> Path:
    if features.run is None:
        raise InputError("features.run must be the directory of a trained run for features.kind embedding, got none")
    return features.run


@once
def _experiment(directory: Path) -> Experiment:
    return run.read(directory).experiment


@once
def _embedder(directory: Path) -> keras.Model:
    """Waveforms `[shape=(batch, samples)]` to what the run's `logits` layer is fed, or, without one, to its embedding `[shape=(batch, dim)]`.

    Raises:
        InputError: the run has no model.
    """
    return models.vector_of(evaluate.load_best(directory))


@once
def _embed(directory: Path) -> Callable:
    """`_embedder` as a graph of `WINDOWS_TOGETHER` windows."""
    model = _embedder(directory)
    signature = [tf.TensorSpec((WINDOWS_TOGETHER, model.inputs[0].shape[1]), tf.float32)]
    graph = tf.function(lambda windows: model(windows, training=False), input_signature=signature)
    graph.get_concrete_function()
    return graph
