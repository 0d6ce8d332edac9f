"""What the audio of training examples goes through before the front end: stretch, pitch, shift, background, noise, gain.

Pure functions of (batch, seeds), as those of `augment`: an example's changes follow from its own seed alone, whatever the batch, but for the
background, another example of it. Tempo and
pitch change apart from each other, by one pass of a phase vocoder, and only the examples that are drawn for it pay for it: on one core of an
AMD EPYC 3.7 ms a window of 3 s at 16 kHz for tempo, 4.5 ms for pitch or both. The log-mel takes .35 ms, noise .45, shift .06, gain .05;
playing faster, which needs no vocoder, would take .8 ms and give both together, a change that is no other piece's tempo or key.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tfmusic.augment import hashed_uniform
from tfmusic.config import WaveformAugment
from tfmusic.frontend import hann
from tfmusic.noises import Noises, cut, of_mean_square_1

CHANGES = ("stretch", "pitch", "shift", "noise", "gain")  # numbers the draws of a seed; background draws from the next seed, as what is cut does
NEXT = (0, 1)  # from an example's seed to another stream of its own: `data.BACKGROUND`
FRAME_S = 0.064  # of the vocoder: long enough to part the partials of a low voice, short enough for a drum
AUDIBLE_HZ = 20.0  # pink noise begins here: as much of its power lies below, down to one period a window, as above
INAUDIBLE = 1e-8  # of a bin's magnitude: 16-bit audio has less in silence only
OVERSAMPLING = 2  # of what is resampled: a cubic through samples at twice the rate keeps 6 of 8 kHz within .3 dB


def augment_waveforms(waveforms, seeds, settings: WaveformAugment, samples: int, sample_rate_hz: int, noises: Noises | None = None):
    """Every change of `settings` to the examples drawn for it: `probability` of them, for each change by itself.

    Speed is uniform in 1 - stretch..1 + stretch, semitones, shift, signal-to-noise ratios and gain in their ranges. The background is another
    example of the batch as it was cut. Its labels are not learnt: it stands for noise, as in the usual mixing with a corpus of noise (Ko et al.,
    ICASSP 2017), and unlike mixup, which mixes labels in the share of the audio. Near 0 dB it is heard as well as what the labels say.

    An example whose samples leave -1..1 is turned down until they do not, as a recording is that must not clip: the ratio to the noise stays, gain
    is limited. Silence stays silence, and an example that no change was drawn for stays as it is, bit for bit.

    Args:
        waveforms: in -1..1, `settings.cut_samples(samples)` or more `[shape=(batch, cut samples)]`.
        seeds: one per example, int32 or int64 `[shape=(batch, 2)]`.
        settings: of the changes.
        samples: to return `int > 0`; the first ones of an example that is not stretched.
        sample_rate_hz: `int > 0`.
        noises: of `settings.noise_folder`, where there is one.

    Returns:
        float32 in -1..1 `[shape=(batch, samples)]`.

    Raises:
        ValueError: waveforms of another shape or type, or too short; a noise folder without its noises.

    >>> settings = WaveformAugment(probability=0.5, noise_snr_db=(10, 40), stretch=0.1)
    >>> augment_waveforms(tf.random.uniform((16, 8800), -1, 1), tf.ones((16, 2), tf.int32) * tf.range(16)[:, None], settings, 8000, 8000)
    """
    waveforms = tf.convert_to_tensor(waveforms)
    cut_samples = settings.cut_samples(samples)
    if waveforms.shape.rank != 2 or waveforms.dtype != tf.float32 or (waveforms.shape[1] or cut_samples) < cut_samples:
        raise ValueError(f"waveforms must be float32 (batch, {cut_samples} samples or more), got {waveforms.dtype.name} {waveforms.shape}")
    if settings.probability == 0:
        return waveforms[:, :samples]
    if settings.noise_folder and noises is None:
        raise ValueError(f"noises must be those of {settings.noise_folder}, got none")
    drawn, beside = _drawn(seeds, settings), hashed_uniform(seeds + tf.constant(NEXT, seeds.dtype), 5)
    result = tf.ensure_shape(waveforms[:, :samples], [None, samples])
    if settings.stretch or settings.pitch_semitones:
        chosen, speeds, pitches = _tempo_and_pitch(drawn, settings)

        def played(rows):
            factors = tf.gather(pitches, rows) if settings.pitch_semitones else None
            return stretch(tf.gather(waveforms, rows), tf.gather(speeds, rows), factors, samples, sample_rate_hz)

        result = _of_chosen(chosen, result, played)
    if settings.shift_s:
        chosen, share = drawn["shift"]
        shifts = tf.where(chosen, tf.round((2 * share - 1) * (settings.shift_s * sample_rate_hz)), 0.0)
        result = roll(result, tf.cast(shifts, tf.int32))
    if settings.background_snr_db:
        chosen, share = drawn["background"]
        count = tf.shape(waveforms)[0]
        away = 1 + tf.cast(beside[:, 2] * tf.cast(count - 1, tf.float32), tf.int32)  # any other, each equally likely
        partners, dry = (tf.range(count) + away) % tf.maximum(count, 1), waveforms[:, :samples]

        def behind(rows):
            return of_mean_square_1(tf.gather(dry, tf.gather(partners, rows)))

        result = _of_chosen(chosen & (count > 1), result, _adding(result, behind, share, settings.background_snr_db))
    if settings.noise_snr_db:
        chosen, share = drawn["noise"]

        def added(rows):
            if noises is not None:
                return cut(noises, tf.gather(beside[:, 3:], rows), samples)
            return noise(tf.gather(seeds, rows), samples, sample_rate_hz, settings.noise)

        result = _of_chosen(chosen, result, _adding(result, added, share, settings.noise_snr_db))
    if settings.gain_db:
        chosen, share = drawn["gain"]
        result *= tf.where(chosen, 10 ** ((2 * share - 1) * (settings.gain_db / 20)), 1.0)[:, None]
    return result / tf.maximum(tf.reduce_max(tf.abs(result), axis=1, keepdims=True), 1)


def samples_read(seeds, settings: WaveformAugment, samples: int):
    """How many samples of its track each example comes from: more than `samples` where it is played faster, fewer where slower.

    Args:
        seeds, settings, samples: as of `augment_waveforms`, which does with these seeds what is foretold here.

    Returns:
        int64, at most `settings.cut_samples(samples)` `[shape=(batch,)]`.
    """
    if not (settings.probability and settings.stretch):
        return tf.fill([tf.shape(seeds)[0]], tf.constant(samples, tf.int64))
    _, speeds, _ = _tempo_and_pitch(_drawn(seeds, settings), settings)
    return tf.minimum(tf.cast(tf.math.ceil(speeds * samples), tf.int64), settings.cut_samples(samples))


def changes(seeds, settings: WaveformAugment) -> dict[str, np.ndarray]:
    """Which examples each change of `settings` was drawn for, by its name, bool `[shape=(batch,)]`; arguments as of `augment_waveforms`.

    >>> [*changes(tf.constant([[1, 2]]), WaveformAugment(probability=1.0))]
    ['noise', 'gain']
    """
    strength = {
        "stretch": settings.stretch, "pitch": settings.pitch_semitones, "shift": settings.shift_s, "noise": settings.noise_snr_db is not None,
        "gain": settings.gain_db, "background": settings.background_snr_db is not None,
    }  # fmt: skip
    return {name: chosen.numpy() for name, (chosen, _) in _drawn(seeds, settings).items() if strength[name]}


def _drawn(seeds, settings: WaveformAugment) -> dict:
    """For each change: whether an example is drawn for it, and a uniform number for its strength, bool and float32 `[shape=(batch,)]`."""
    uniform = hashed_uniform(seeds, 2 * len(CHANGES))
    found = {name: (uniform[:, number] < settings.probability, uniform[:, number + len(CHANGES)]) for number, name in enumerate(CHANGES)}
    beside = hashed_uniform(seeds + tf.constant(NEXT, seeds.dtype), 2)
    return found | {"background": (beside[:, 0] < settings.probability, beside[:, 1])}


def _tempo_and_pitch(drawn: dict, settings: WaveformAugment):
    """Which examples pass the vocoder, with their speeds and factors on frequencies `[shape=(batch,)]`."""
    (stretched, speed), (shifted, pitch) = drawn["stretch"], drawn["pitch"]
    speeds = tf.where(stretched, 1 + settings.stretch * (2 * speed - 1), 1.0)
    pitches = tf.where(shifted, 2 ** (settings.pitch_semitones / 12 * (2 * pitch - 1)), 1.0)
    return (speeds != 1) | (pitches != 1), speeds, pitches


def _adding(waveforms, added, share, range_db: tuple[float, float]):
    """Numbers of rows to these rows with what `added` makes of the same numbers, at ratios in a range."""
    low_db, high_db = range_db
    snr_db = low_db + share * (high_db - low_db)
    return lambda rows: add_noise(tf.gather(waveforms, rows), added(rows), tf.gather(snr_db, rows))


def _of_chosen(chosen, waveforms, changed):
    """`waveforms` with the chosen rows replaced by what `changed` makes of their numbers; it is not called when there are none."""
    rows = tf.where(chosen)  # (n, 1)
    replaced = tf.cond(tf.size(rows) > 0, lambda: tf.tensor_scatter_nd_update(waveforms, rows, changed(rows[:, 0])), lambda: tf.identity(waveforms))
    return tf.ensure_shape(replaced, waveforms.shape)


def stretch(waveforms, speeds, pitches, samples: int, sample_rate_hz: int):
    """Plays each example at a tempo and a pitch of its own: a phase vocoder (Flanagan and Golden, 1966; Laroche and Dolson, 1999), resampled.

    The vocoder plays at speed / pitch: frame t of its spectrogram has the magnitudes at input frame `t speed / pitch`, between two frames on
    a straight line, and turns its phases on by what they turn between those two, `X[k + 1] conj(X[k]) / |X[k + 1] X[k]|`: with equal hops
    before and behind no phase has to be unwrapped. In the middle of the window the phases are those of the input, so that the bins of a sound
    agree; away from there they drift, and noise loses up to 3 dB, as in any vocoder that leaves each bin to itself. Reading every pitch-th
    sample of the result then makes tempo and pitch right. What would end above half the sample rate is left out.

    Args:
        waveforms: float32 `[shape=(batch, cut samples)]`; zeros are taken behind their end.
        speeds: factors on the tempo `[shape=(batch,)]`, `float > 0`.
        pitches: factors on all frequencies `[shape=(batch,)]`, `float > 0`; None: 1, without resampling.
        samples: to return `int > 0`.
        sample_rate_hz: `int > 0`.

    Returns:
        float32 `[shape=(batch, samples)]`: the first `speed * samples` of each.

    >>> stretch(tf.random.normal((2, 9600)), tf.constant([1.2, 1.0]), tf.constant([1.0, 2 ** (3 / 12)]), 8000, 8000)
    """
    frame = 2 ** round(math.log2(FRAME_S * sample_rate_hz))
    hop, window = frame // 4, hann(frame).astype(np.float32)
    padded = tf.pad(waveforms, [[0, 0], [frame // 2, frame // 2 + 2 * hop]])
    spectrum = tf.signal.rfft(tf.signal.frame(padded, frame, hop) * window)  # (batch, frames, bins)
    # A bin without a sound has no phase; with 0 in the place of its phase the product below would be 0 ever after.
    phases = _phases(spectrum + INAUDIBLE)
    power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))

    rates = speeds if pitches is None else speeds / pitches
    longest = samples if pitches is None else tf.maximum(tf.reduce_max(pitches), 1) * samples  # between stretching and resampling
    frames = tf.cast(tf.math.ceil(longest / hop), tf.int32) + 2
    places = tf.cast(tf.range(frames), tf.float32) * rates[:, None]
    below = tf.minimum(tf.cast(places, tf.int32), tf.shape(spectrum)[1] - 2)  # (batch, frames)
    share = tf.minimum(places - tf.cast(below, tf.float32), 1)[..., None]
    low, high = (tf.gather(tf.sqrt(power), below + step, batch_dims=1) for step in (0, 1))
    turns = tf.gather(phases[:, 1:] * tf.math.conj(phases[:, :-1]), below, batch_dims=1)
    angles = tf.math.cumprod(turns, axis=1, exclusive=True)
    middle = samples // hop // 2  # not that of the frames, whose number is that of the batch's highest pitch
    angles *= tf.gather(phases, below[:, middle], batch_dims=1)[:, None] * tf.math.conj(angles[:, middle, None])
    magnitudes = low + share * (high - low)
    if pitches is not None:  # what would fold back
        bins = tf.range(frame // 2 + 1, dtype=tf.float32)
        magnitudes *= tf.cast(bins * pitches[:, None] < frame / 2, tf.float32)[:, None]

    finer = 1 if pitches is None else OVERSAMPLING
    window, hop, frame = hann(finer * frame).astype(np.float32), finer * hop, finer * frame
    pieces = tf.signal.irfft(tf.complex(magnitudes * tf.math.real(angles), magnitudes * tf.math.imag(angles)), [frame])
    overlapped = tf.signal.overlap_and_add(pieces * (finer * window), hop)
    weights = tf.signal.overlap_and_add(tf.tile(tf.square(window)[None], [frames, 1]), hop)
    stretched = overlapped / tf.maximum(weights, 0.01)  # the first and last samples are below that, and cut away
    first = frame // 2
    return stretched[:, first : first + samples] if pitches is None else _read(stretched, first, pitches, samples)


def _phases(spectrum):
    """Numbers of length 1 in the direction of others."""
    power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
    return spectrum * tf.cast(tf.math.rsqrt(power + INAUDIBLE**3), tf.complex64)


def _read(waveforms, first: int, steps, samples: int):
    """Every step-th sample of the sample rate from `first > 0` on, between four finer ones by the cubic through them (Lagrange)."""
    # n step = n + n (step - 1): float32 keeps the fraction of the second, which is small
    numbers = tf.range(samples)
    beyond = OVERSAMPLING * tf.cast(numbers, tf.float32) * (steps - 1)[:, None]  # (batch, samples)
    whole = tf.floor(beyond)
    x, places = beyond - whole, first + OVERSAMPLING * numbers + tf.cast(whole, tf.int32)
    cubic = {-1: -x * (x - 1) * (x - 2) / 6, 0: (x + 1) * (x - 1) * (x - 2) / 2, 1: -(x + 1) * x * (x - 2) / 2, 2: (x + 1) * x * (x - 1) / 6}
    return sum(weight * tf.gather(waveforms, places + step, batch_dims=1) for step, weight in cubic.items())


def roll(waveforms, shifts):
    """Moves each example by its own number of samples, later for positive ones; what leaves at one end comes in at the other.

    Filled with zeros it would have an edge and a silence that no music has; turned round it loses nothing of a short sound.

    Args:
        waveforms: `[shape=(batch, samples)]`.
        shifts: int32 `[shape=(batch,)]`.

    Returns:
        As `waveforms`.

    >>> roll(tf.reshape(tf.range(8.0), (2, 4)), tf.constant([1, -1]))  # [[3, 0, 1, 2], [5, 6, 7, 4]]
    """
    waveforms = tf.convert_to_tensor(waveforms)
    spec = tf.TensorSpec(waveforms.shape[1:], waveforms.dtype)
    # a seventh of the time of a gather of every sample
    return tf.map_fn(lambda one: tf.roll(one[0], one[1], axis=0), (waveforms, shifts), fn_output_signature=spec)


def noise(seeds, samples: int, sample_rate_hz: int, color: str = "white"):
    """Noise of mean 0 and mean square 1: sines of every period that fits, their phases random, their powers 1 or 1 / frequency.

    Args:
        seeds: int32 or int64 `[shape=(batch, 2)]`.
        samples: `int > 2`.
        sample_rate_hz: `int > 0`.
        color: white, all frequencies as strong; or pink, 10 dB less power density for a tenfold frequency, from 20 Hz on.

    Returns:
        float32 `[shape=(batch, samples)]`.

    >>> noise(tf.constant([[1, 2], [1, 3]]), 8000, 8000, "pink")
    """
    if color not in POWERS:
        raise ValueError(f"color must be {' or '.join(POWERS)}, got {color!r}")
    sines = (samples - 1) // 2  # without 0 Hz and half the sample rate
    power = POWERS[color](np.arange(1, sines + 1) * sample_rate_hz / samples)
    magnitudes = (samples / np.sqrt(2 * power.sum()) * np.sqrt(power)).astype(np.float32)  # Parseval: the mean square is 1
    first = 2 * len(CHANGES)  # the draws before it decide about the changes
    angles = 2 * math.pi * hashed_uniform(seeds, first + sines)[:, first:]
    spectrum = tf.complex(magnitudes * tf.cos(angles), magnitudes * tf.sin(angles))
    return tf.signal.irfft(tf.pad(spectrum, [[0, 0], [1, samples // 2 - sines]]), [samples])


POWERS = {"white": np.ones_like, "pink": lambda hz: np.where(hz >= AUDIBLE_HZ, 1 / hz, 0)}  # density over frequency


def add_noise(waveforms, noise, snr_db):
    """Adds noise of mean square 1 at a signal-to-noise ratio of each example's own: `10 log10(mean x^2 / mean n^2)`, over the whole window.

    Args:
        waveforms: float32 `[shape=(batch, samples)]`; silence stays silence.
        noise: float32 `[shape=(batch, samples)]`.
        snr_db: `[shape=(batch,)]`.

    Returns:
        float32 `[shape=(batch, samples)]`.
    """
    level = tf.sqrt(tf.reduce_mean(tf.square(waveforms), axis=1)) * 10 ** (-snr_db / 20)
    return waveforms + level[:, None] * noise
