"""Recorded noise: the audio files of a folder, decoded once, and windows cut out of them for training examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmusic import audio, files
from tfmusic.config import Experiment, InputError

HELD_BYTES = 128 * 2**20  # of int16 samples: 70 minutes at 16 kHz, 25 at 44.1 kHz
SILENCE = 2.0**-30  # mean square of one step of 16 bits; what has less is never made louder


@dataclasses.dataclass(frozen=True)
class Noises:
    """Files one behind the other."""

    samples: tf.Tensor  # int16 (samples,); a tensor, for a graph takes it in as it is, and a numpy array as a copy in its definition
    first: tf.Tensor  # int64 (files,): where each begins
    lengths: tf.Tensor  # int64 (files,)


def read(folder: Path, sample_rate_hz: int, window_samples: int, held_bytes: int = HELD_BYTES) -> Noises:
    """Decodes the audio files of a folder and of those inside it, as far as the memory goes.

    Each file has the same share of the memory, of a longer one its beginning is kept, but a window at least; where even that is too much, files that
    come last in a fixed random order are left out. One that cannot be read is named in a line and skipped.

    Args:
        folder: of the files.
        sample_rate_hz: to decode them at `int > 0`.
        window_samples: that will be cut `int > 0`.
        held_bytes: greatest size of all samples together, but for one file's.

    Raises:
        InputError: there is no file that can be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in files.AUDIO_SUFFIXES and path.is_file())
    share = max(window_samples, held_bytes // 2 // max(len(paths), 1))
    found: list[np.ndarray] = []
    room = held_bytes // 2
    for number in np.random.default_rng(0).permutation(len(paths)):
        if room <= 0:
            break
        try:
            found.append(audio.load(paths[number], sample_rate_hz, duration_s=share / sample_rate_hz))
            room -= len(found[-1])
        except audio.AudioError as error:
            print(f"noise skipped: {error}")
    if not found:
        raise InputError(f"--augment.waveform.noise-folder must hold audio files, got {len(paths)} in {folder}, none of which can be read")
    lengths = np.array([len(one) for one in found], np.int64)
    samples = np.concatenate(found)
    print(f"noise: {len(found)} of {len(paths)} files, {len(samples) / sample_rate_hz / 60:.1f} minutes, {samples.nbytes / 2**20:.1f} MiB of memory")
    with tf.device("CPU:0"):  # where the stream is
        return Noises(tf.constant(samples), tf.constant(np.cumsum(lengths) - lengths), tf.constant(lengths))


def of(experiment: Experiment) -> Noises | None:
    """Those of `augment.waveform.noise_folder`; none: there is no such folder, or nothing is changed.

    Raises:
        InputError: there is no audio in it.
    """
    settings, frontend = experiment.augment.waveform, experiment.frontend
    if not (settings.probability and settings.noise_folder):
        return None
    return read(settings.noise_folder, frontend.sample_rate_hz, frontend.window_samples)


def cut(noises: Noises, uniform, samples: int):
    """A window for each pair of numbers: of a file, each equally likely, from anywhere in it; shorter files are repeated.

    Args:
        noises: of `read`.
        uniform: `0 <= float < 1` `[shape=(batch, 2)]`.
        samples: of a window `int > 0`.

    Returns:
        Of mean square 1, or silent where the file is, float32 `[shape=(batch, samples)]`.

    >>> cut(read(Path("noises"), 16_000, 48_000), tf.random.uniform((8, 2)), 48_000)  # doctest: +SKIP
    """
    uniform = tf.cast(uniform, tf.float64)
    file = tf.cast(uniform[:, 0] * tf.cast(tf.size(noises.lengths), tf.float64), tf.int64)
    lengths = tf.gather(noises.lengths, file)
    starts = tf.where(lengths < samples, lengths, lengths - samples + 1)
    start = tf.cast(uniform[:, 1] * tf.cast(starts, tf.float64), tf.int64)
    places = (start[:, None] + tf.range(samples, dtype=tf.int64)) % lengths[:, None]
    found = tf.cast(tf.gather(noises.samples, tf.gather(noises.first, file)[:, None] + places), tf.float32) / 32768.0
    return of_mean_square_1(found)


def of_mean_square_1(waveforms):
    """Each example at the same power; a silent one stays silent. float32 `[shape=(batch, samples)]`."""
    power = tf.reduce_mean(tf.square(waveforms), axis=1, keepdims=True)
    return tf.where(power > SILENCE, waveforms * tf.math.rsqrt(tf.maximum(power, SILENCE)), 0.0)
