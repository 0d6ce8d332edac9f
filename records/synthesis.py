"""Sounds of the demo collection: textbook synthesis in numpy.

Each function takes a frequency, a number of samples and a random generator and gives samples; `brightness` in 0..1 opens the spectrum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import signal

from tfmusic.config import FrontEnd

RATE_HZ = FrontEnd().sample_rate_hz  # the default front end's, so that the demo is never resampled
TABLE_SAMPLES = 4096


def _seconds(n: int) -> np.ndarray:
    return np.arange(n) / RATE_HZ


def _harmonics(frequency_hz: float) -> np.ndarray:
    """Numbers 1, 2, ... of the harmonics that fit below 0.47 of the sample rate, 48 at most."""
    return np.arange(1, max(2, min(49, int(0.47 * RATE_HZ / frequency_hz) + 1)))


def _rolloff(k: np.ndarray, brightness: float) -> np.ndarray:
    """Harmonic amplitudes from `k^-2.5` (0, a hum) over `k^-1.5` to `k^-0.5` (1, a buzz)."""
    return k ** (2 * brightness - 2.5)


def _envelope(n: int, attack_s: float, release_s: float) -> np.ndarray:
    """Straight lines: up in `attack_s`, 1, down to 0 in `release_s`."""
    i = np.arange(n)
    return np.clip(np.minimum((i + 1) / (attack_s * RATE_HZ), (n - i) / (release_s * RATE_HZ)), 0, 1)


def _band(x: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Second-order Butterworth band-pass."""
    return signal.sosfilt(signal.butter(2, (low_hz, high_hz), "bandpass", fs=RATE_HZ, output="sos"), x)


def smooth(x: np.ndarray, pole: float) -> np.ndarray:
    """One-pole low-pass of gain 1 at 0 Hz."""
    return signal.lfilter([1 - pole], [1, -pole], x)


def _wave(phase_cycles: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Wavetable oscillator: one cycle of sines with these harmonic amplitudes, read at a phase (Mathews, 1969)."""
    spectrum = np.zeros(TABLE_SAMPLES // 2 + 1, complex)
    spectrum[1 : len(amplitudes) + 1] = -0.5j * TABLE_SAMPLES * amplitudes
    table = np.fft.irfft(spectrum, TABLE_SAMPLES)
    return table[(phase_cycles * TABLE_SAMPLES).astype(np.int64) % TABLE_SAMPLES]


def _tone(frequency_hz, n, rng, spectra, players=1, spread_cents=0.0, vibrato_cents=0.0, vibrato_hz=5.5) -> np.ndarray:
    """Players in near unison, each with its own tuning and vibrato; `spectra` are pairs (harmonic amplitudes, envelope over time)."""
    t, total = _seconds(n), np.zeros(n)
    for _ in range(players):
        wobble = np.sin(2 * np.pi * (vibrato_hz * rng.uniform(0.9, 1.1) * t + rng.random())) * np.minimum(1, t / 0.3)
        cents = rng.normal(0, spread_cents) + vibrato_cents * wobble
        phase = rng.random() + np.cumsum(1 + cents * (np.log(2) / 1200)) * (frequency_hz / RATE_HZ)
        total += sum(_wave(phase, amplitudes) * envelope for amplitudes, envelope in spectra)
    return total / np.sqrt(players)


def pluck(frequency_hz, n, rng, brightness=0.5, decay_s=2.0, jawari=0.0) -> np.ndarray:
    """A plucked string: one period of coloured noise running round a lossy delay line (Karplus and Strong, CMJ 7(2), 1983).

    The loop averages two neighbours, which damps high partials first; linear interpolation tunes it. `decay_s` is the T60 of the lowest
    partials. `jawari` is the share of a sitar's flat bridge: a saturation that feeds the high partials while the string rings.
    """
    period = RATE_HZ / frequency_hz - 0.5  # the average itself delays by half a sample
    delay, fraction = int(period), period % 1
    k = np.arange(1, delay // 2 + 1)
    colour = _rolloff(k, brightness) * np.sin(np.pi * k / 5) * rng.uniform(0.7, 1.3, len(k))  # plucked at a fifth of the string
    noise = np.fft.irfft(np.concatenate([[0], colour * np.exp(2j * np.pi * rng.random(len(k)))]), delay)
    burst = np.zeros(n)
    burst[:delay] = (noise / np.abs(noise).max())[:n]
    loss = 10 ** (-3 / (frequency_hz * decay_s))
    loop = loss * np.convolve([0.5, 0.5], [1 - fraction, fraction])
    string = signal.lfilter([1], [1, *np.zeros(delay - 1), *-loop], burst)
    buzz = np.diff(np.tanh(12 * string), prepend=0)
    return ((1 - jawari) * string + jawari * buzz) * _envelope(n, 0.001, 0.03)


def bow(frequency_hz, n, rng, brightness=0.7, vibrato_cents=18.0, players=1) -> np.ndarray:
    """Bowed strings: Helmholtz's sawtooth through a rippled body response, slow attack, late vibrato, some rosin noise."""
    k = _harmonics(frequency_hz)
    body = 1 + 0.6 * np.cos(2 * np.pi * k * frequency_hz / 900)
    string = _tone(frequency_hz, n, rng, [(_rolloff(k, brightness) * body, 1.0)], players, 4.0 * players, vibrato_cents)
    return (string + 0.05 * rng.standard_normal(n)) * _envelope(n, 0.09, 0.08)


def blow(frequency_hz, n, rng, brightness=0.2, breath=0.3) -> np.ndarray:
    """A flute: few harmonics, breath noise that the air column modulates, and a tremolo rather than a vibrato."""
    air = rng.standard_normal(n)
    tube = _tone(frequency_hz, n, rng, [(_rolloff(_harmonics(frequency_hz), brightness), 1.0)], vibrato_cents=6)
    tremolo = 1 + 0.15 * np.sin(2 * np.pi * 5 * _seconds(n) + rng.uniform(0, 2 * np.pi))
    return (tube * (tremolo + breath * air) + 0.1 * breath * air) * _envelope(n, 0.05, 0.06)


STIFF_STRING = tuple((k * np.sqrt(1 + 4e-4 * k * k), k) for k in range(1, 13))  # stiff-string partials (Fletcher, JASA 36, 1964)
CHURCH_BELL = ((0.5, 1.5), (1.0, 1.0), (1.2, 1.2), (1.5, 2.0), (2.0, 1.3), (2.74, 2.2), (3.76, 3.0), (5.4, 4.0))  # hum, prime, tierce, ...


def strike(frequency_hz, n, rng, brightness=0.5, decay_s=2.0, partials=STIFF_STRING) -> np.ndarray:
    """A struck body: a sum of decaying modes (modal synthesis: Adrien, 1991) and the thump of the hammer.

    `partials` are pairs (frequency over the nominal one, softness); amplitude falls with softness and so does the decay time.
    """
    t = _seconds(n).astype(np.float32)
    total = np.zeros(n, np.float32)
    for ratio, softness in partials:
        if frequency_hz * ratio < 0.47 * RATE_HZ:
            rate = np.float32(2 * np.pi * frequency_hz * ratio)  # float32: numpy's fast sine
            amplitude = np.float32(_rolloff(np.float64(softness), brightness) * rng.uniform(0.6, 1.4))
            total += amplitude * np.sin(rate * t + np.float32(rng.uniform(0, 6))) * np.exp(t * np.float32(-6.9 * softness**0.7 / decay_s))
    thump = 0.15 * rng.standard_normal(n) * np.exp(-t / 0.008)
    return (total + thump) * _envelope(n, 0.002, 0.05)


VOWELS_HZ = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410), "u": (300, 870, 2240)}


def sing(frequency_hz, n, rng, brightness=0.6, size=1.0, players=1, ring=0.0, vibrato_cents=30.0) -> np.ndarray:
    """A voice: the harmonics of the glottis weighted by three formants, gliding from one vowel to another.

    Formants of men's vowels (Peterson and Barney, JASA 24, 1952), times `size` for shorter vocal tracts. `ring` is the singer's formant at
    2.9 kHz of trained voices (Sundberg, JASA 55, 1974).
    """
    k = _harmonics(frequency_hz)

    def spectrum(vowel: str) -> np.ndarray:
        first, second, third = (hz * size for hz in VOWELS_HZ[vowel])
        formants = ((first, 1.0), (second, 0.6), (third, 0.3), (2900, ring))
        peaks = (gain / (1 + ((k * frequency_hz - hz) / (50 + 0.04 * hz)) ** 2) for hz, gain in formants)
        return _rolloff(k, brightness) * (0.03 + sum(peaks))

    first, second = (spectrum(vowel) for vowel in rng.choice(list(VOWELS_HZ), 2))
    glide = np.linspace(0, 1, n)
    voice = _tone(frequency_hz, n, rng, [(first, 1 - glide), (second, glide)], players, 5.0 * players - 4, vibrato_cents)
    return (voice + 0.01 * rng.standard_normal(n)) * _envelope(n, 0.06, 0.09)


def saw(frequency_hz, n, rng, brightness=0.75, decay_s=0.3, attack_s=0.005, players=2) -> np.ndarray:
    """A subtractive synthesiser: detuned saws whose filter closes with `decay_s`, done by fading from a bright to a dull wavetable."""
    k = _harmonics(frequency_hz)
    bright = np.exp(-_seconds(n) / decay_s)
    spectra = [(_rolloff(k, brightness), bright), (_rolloff(k, 0.3), 1 - bright)]
    return _tone(frequency_hz, n, rng, spectra, players, spread_cents=9) * _envelope(n, attack_s, 0.04)


class Stroke(NamedTuple):
    """One sound of a drum kit: a tone that falls from one pitch to another, and a noise burst in a band."""

    start_hz: float = 0.0
    end_hz: float = 0.0
    tone_s: float = 0.1
    noise: float = 0.0
    noise_s: float = 0.1
    band_hz: tuple[float, float] = (500.0, 6000.0)
    level: float = 1.0


KIT = {
    "kick": Stroke(140, 52, 0.12, 0.1, 0.01),
    "snare": Stroke(230, 180, 0.06, 0.8, 0.12, (700, 7000), 0.8),
    "hat": Stroke(noise=1.0, tone_s=0.001, noise_s=0.05, band_hz=(5000, 7800), level=0.35),
    "crash": Stroke(noise=1.0, tone_s=0.001, noise_s=0.5, band_hz=(3000, 7800), level=0.5),
}
MACHINE = {
    "kick": Stroke(260, 45, 0.25, level=1.2),
    "snare": Stroke(noise=1.2, tone_s=0.001, noise_s=0.07, band_hz=(900, 2500), level=0.9),  # a clap
    "hat": Stroke(noise=1.0, tone_s=0.001, noise_s=0.025, band_hz=(6000, 7900), level=0.4),
    "crash": Stroke(800, 300, 0.1, level=0.5),
}
TABLA = {
    "kick": Stroke(75, 100, 0.3, 0.1, 0.01),  # the bass drum, its pitch pressed up by the hand
    "snare": Stroke(420, 400, 0.15, 0.3, 0.01, (1500, 5000), 0.8),
    "hat": Stroke(640, 630, 0.05, 0.4, 0.01, (1500, 5000), 0.5),
    "crash": Stroke(330, 320, 0.3, 0.1, 0.02),
}


def drum(stroke: Stroke, n: int, rng: np.random.Generator) -> np.ndarray:
    """A drum: the membrane's falling pitch, exponentially damped, plus damped noise for snares, metal and hands."""
    t = _seconds(n)
    hz = (stroke.end_hz + (stroke.start_hz - stroke.end_hz) * np.exp(-t / 0.03)) * rng.uniform(0.97, 1.03)
    sound = np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ) * np.exp(-t / stroke.tone_s)
    if stroke.noise:
        sound += stroke.noise * _band(rng.standard_normal(n), *stroke.band_hz) * np.exp(-t / stroke.noise_s)
    return stroke.level * sound * _envelope(n, 0.001, 0.01)


def rain(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rain: a hiss and some hundred drops a second, each a short click of random strength."""
    drops = (rng.random(n) < 300 / RATE_HZ) * rng.exponential(1.0, n)
    return 0.15 * _band(rng.standard_normal(n), 1500, 7000) + _band(drops, 2000, 7500)


def wind(n: int, rng: np.random.Generator) -> np.ndarray:
    """Wind: dark noise whose strength drifts over seconds."""
    knots_s = np.arange(0, n / RATE_HZ + 0.7, 0.7)
    gusts = np.interp(_seconds(n), knots_s, rng.uniform(0.1, 1, len(knots_s)))
    return _band(rng.standard_normal(n), 150, 700) * gusts**2


def water(n: int, rng: np.random.Generator) -> np.ndarray:
    """A stream: bubbles, each a short tone of rising pitch (van den Doel, ACM TAP 2(4), 2005), over a murmur."""
    stream = 0.25 * _band(rng.standard_normal(n), 300, 2500)
    t = _seconds(int(0.06 * RATE_HZ))
    for start in rng.integers(0, n - len(t), int(18 * n / RATE_HZ)):
        hz = rng.uniform(400, 1600)
        stream[start : start + len(t)] += rng.exponential(0.4) * np.sin(2 * np.pi * hz * t * (1 + 4 * t)) * np.exp(-t / 0.015)
    return stream


def birds(n: int, rng: np.random.Generator) -> np.ndarray:
    """Birds: phrases of frequency-modulated chirps between 2 and 6 kHz."""
    song = 0.01 * rng.standard_normal(n)
    t = _seconds(int(0.12 * RATE_HZ))
    for phrase in rng.uniform(0, n / RATE_HZ - 1, int(1.2 * n / RATE_HZ)):
        hz, sweep, level = rng.uniform(2200, 5000), rng.uniform(-2, 2), rng.uniform(0.2, 1)
        for chirp in range(rng.integers(2, 6)):
            start = int((phrase + 0.15 * chirp) * RATE_HZ)
            song[start : start + len(t)] += level * np.sin(2 * np.pi * hz * t * (1 + sweep * t)) * np.hanning(len(t))
    return song
