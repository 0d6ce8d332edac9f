"""waveform: each change against numbers known beforehand, that it hangs on nothing but the seed, and that only training hears it."""

import json
import shutil

import librosa
import numpy as np
import pydantic
import pytest
import tensorflow as tf
from scipy import signal, stats

from tests.conftest import EXPERIMENT, tone
from tests.test_data import LENGTHS, ramps, take  # noqa: F401
from tfmusic import data, evaluate, schema, waveform
from tfmusic.config import Augment, InputError, SpecAugment, WaveformAugment

RATE_HZ = 8_000
OFF = {"gain_db": 0.0, "noise_snr_db": None}
CHANGES = {
    "gain": {"gain_db": 6.0},
    "white": {"noise_snr_db": (5.0, 20.0)},
    "pink": {"noise_snr_db": (5.0, 20.0), "noise": "pink"},
    "shift": {"shift_s": 0.4},
    "stretch": {"stretch": 0.2},
    "pitch": {"pitch_semitones": 3.0},
    "background": {"background_snr_db": (0.0, 20.0)},
}
ALL = {name: value for change in CHANGES.values() for name, value in change.items() if name != "background_snr_db"}  # what hangs on one example alone


def settings(probability=1.0, **changes):
    return WaveformAugment(probability=probability, **OFF | changes)


def seeds(count, key=7):
    return tf.stack([tf.fill([count], key), tf.range(count)], axis=1)


def sounds(batch, seconds=1.2, level=0.1):
    return np.random.default_rng(0).normal(0, level, (batch, round(seconds * RATE_HZ))).clip(-1, 1).astype("float32")


def augmented(waveforms, given, samples=RATE_HZ, keys=None):
    keys = seeds(len(waveforms)) if keys is None else keys
    return waveform.augment_waveforms(waveforms, keys, given, samples, RATE_HZ).numpy()


def frequency_hz(x, rate_hz=RATE_HZ):
    """Of the strongest sine, to .02 Hz."""
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 2**19))
    return spectrum.argmax() * rate_hz / 2**19


def test_roll_is_numpy_s():
    waveforms, shifts = sounds(4, 0.1), [0, 1, -3, 799]
    found = waveform.roll(waveforms, tf.constant(shifts)).numpy()
    np.testing.assert_array_equal(found, [np.roll(*row) for row in zip(waveforms, shifts, strict=True)])


def test_shifts_are_uniform_over_back_and_forth():
    """An impulse at 500 of 1,000 samples moves by at most .025 s = 200 samples; 300 shifts, Kolmogorov-Smirnov."""
    impulses = np.zeros((300, 1000), "float32")
    impulses[:, 500] = 1
    shifts = augmented(impulses, settings(shift_s=0.025), 1000).argmax(axis=1) - 500
    assert -200 <= shifts.min() < -190 and 190 < shifts.max() <= 200
    assert stats.kstest(shifts, "uniform", (-200, 400)).pvalue > 1e-3


@pytest.mark.parametrize("color", ["white", "pink"])
def test_noise_stands_at_the_drawn_ratio(color):
    """What was added, against what it was added to: 10 log10 of the powers is uniform in 5..20 dB; at one ratio it is that one within .01 dB."""
    music = sounds(400, 0.25)
    for low_db, high_db in ((5.0, 20.0), (12.0, 12.0)):
        added = augmented(music, settings(noise_snr_db=(low_db, high_db), noise=color), 2000) - music
        snr_db = 10 * np.log10((music**2).mean(axis=1) / (added**2).mean(axis=1))
        assert low_db - 0.01 < snr_db.min() and snr_db.max() < high_db + 0.01
        assert low_db == high_db or stats.kstest(snr_db, "uniform", (low_db, high_db - low_db)).pvalue > 1e-3


@pytest.mark.parametrize(("color", "slope_db"), [("white", 0), ("pink", -10)])
@pytest.mark.parametrize("samples", [20_000, 19_683], ids=["even", "odd"])
def test_noise_has_its_color(color, slope_db, samples):
    """Welch's density of 64 noises, fitted on a straight line over log10 f from 40 Hz to 3.9 kHz: dB a decade. Mean square 1, normal amplitudes."""
    found = waveform.noise(seeds(64), samples, RATE_HZ, color).numpy()
    np.testing.assert_allclose((found**2).mean(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-4)
    hz, density = signal.welch(found, RATE_HZ, nperseg=4096)
    heard = (hz > 40) & (hz < 3900)
    slope, _ = np.polyfit(np.log10(hz[heard]), 10 * np.log10(density.mean(axis=0)[heard]), 1)
    assert slope == pytest.approx(slope_db, abs=0.3)
    assert stats.kurtosis(found.ravel()) == pytest.approx(0, abs=0.2)
    assert np.abs(np.corrcoef(found)[np.triu_indices(64, 1)]).max() < 0.2  # different ones


def test_pink_noise_has_nothing_below_hearing():
    power = np.abs(np.fft.rfft(waveform.noise(seeds(1), 8000, RATE_HZ, "pink").numpy()[0])) ** 2
    assert power[:20].sum() < 1e-8 * power.sum() < power[20]  # bins of 1 Hz


@pytest.mark.parametrize("hz", [220, 1000, 2900])
@pytest.mark.parametrize("semitones", [None, 0, 2, -3])
def test_a_sine_keeps_its_pitch_and_level_or_gets_the_one_asked_for(hz, semitones):
    """2^(semitones / 12) times the frequency whatever the tempo, to .05 %; the level within .25 dB."""
    speeds = tf.constant([0.8, 0.9, 1.0, 1.07, 1.25])
    time_s = np.arange(2.6 * RATE_HZ) / RATE_HZ
    sine = np.tile(0.5 * np.sin(2 * np.pi * hz * time_s), (5, 1)).astype("float32")
    factor = 2 ** ((semitones or 0) / 12)
    pitches = None if semitones is None else tf.fill([5], factor)
    found = waveform.stretch(sine, speeds, pitches, 2 * RATE_HZ, RATE_HZ).numpy()
    assert found.shape == (5, 2 * RATE_HZ)
    for row in found[:, 2000:-2000]:
        assert frequency_hz(row) == pytest.approx(hz * factor, rel=5e-4)
        assert 20 * np.log10(row.std() / 0.5 * np.sqrt(2)) == pytest.approx(0, abs=0.25)


@pytest.mark.parametrize("semitones", [None, 2, -2])
def test_a_sound_comes_at_its_time_over_the_speed(semitones):
    """A tone that grows fivefold at 1 s passes half of that at 1 s / speed, whatever the pitch, within .015 s."""
    speeds, time_s = [0.8, 1.0, 1.25], np.arange(2.6 * RATE_HZ) / RATE_HZ
    growing = np.where(time_s < 1, 0.1, 0.5) * np.sin(2 * np.pi * 600 * time_s)
    pitches = None if semitones is None else tf.fill([3], 2 ** (semitones / 12))
    found = waveform.stretch(np.tile(growing, (3, 1)).astype("float32"), tf.constant(speeds), pitches, 2 * RATE_HZ, RATE_HZ).numpy()
    for row, speed in zip(found, speeds, strict=True):
        level = np.convolve(np.abs(row), np.full(80, np.pi / 2 / 80), "same")
        assert (level[400:-400] > 0.3).argmax() + 400 == pytest.approx(RATE_HZ / speed, abs=0.015 * RATE_HZ)


@pytest.mark.parametrize(("pitches", "tolerance"), [(None, 1e-5), (tf.ones(2), 0.03)])
def test_stretching_by_1_gives_back_the_input(pitches, tolerance):
    """Resampled, white noise loses what is at half the sample rate."""
    music = sounds(2, 1.0)
    found = waveform.stretch(music, tf.ones(2), pitches, RATE_HZ, RATE_HZ).numpy()
    np.testing.assert_allclose(found, music, atol=tolerance)


@pytest.mark.parametrize("speed", [0.85, 1.2])
def test_stretched_noise_has_librosa_s_spectrum(speed):
    """A phase vocoder loses up to 3 dB of noise, whose bins it parts; librosa's the same, within .3 dB in each quarter of the spectrum."""
    music = sounds(1, 6.0)
    ours = waveform.stretch(music, tf.constant([speed]), None, 4 * RATE_HZ, RATE_HZ).numpy()[0]
    reference = librosa.effects.time_stretch(music[0], rate=speed, n_fft=512, hop_length=128)[: 4 * RATE_HZ]
    density = [signal.welch(one, RATE_HZ, nperseg=512)[1][1:].reshape(4, 64).mean(axis=1) for one in (ours, reference)]
    np.testing.assert_allclose(*(10 * np.log10(density)), atol=0.3)


def test_gain_is_uniform_in_decibels():
    music = sounds(2000, 0.01, level=0.05)
    gain_db = 20 * np.log10(augmented(music, settings(gain_db=6.0), 80)[:, 0] / music[:, 0])
    assert stats.kstest(gain_db, "uniform", (-6, 12)).pvalue > 1e-3


def test_what_would_leave_the_range_is_turned_down_whole():
    """A window of level 1 with +6 dB: peak 1, and the same but for a factor; one whose peak stays inside is not touched by that."""
    loud = np.stack([tone(440, 0.5, RATE_HZ, level=0.97)] * 64).clip(-1, 1).astype("float32")
    found = augmented(loud, settings(gain_db=20.0), 4000)
    assert np.abs(found).max() <= 1
    ratio = found / np.where(np.abs(loud) > 1e-3, loud, np.nan)
    np.testing.assert_allclose(np.nanmin(ratio, axis=1), np.nanmax(ratio, axis=1), rtol=1e-4)
    peaks = np.abs(found).max(axis=1)
    assert 0.3 < (peaks > 0.999).mean() < 0.7 and peaks.min() < 0.2
    assert np.abs(augmented(loud, settings(noise_snr_db=(0, 0)), 4000)).max() <= 1


@pytest.mark.parametrize("name", CHANGES)
def test_probability_is_the_share_of_changed_examples_and_the_others_are_bitwise_the_same(name):
    """3.5 deviations of a share of .3 in 400 are .08."""
    music, given = sounds(400, 0.15), settings(0.3, **CHANGES[name])
    changed = (augmented(music, given, 1000) != music[:, :1000]).any(axis=1)
    assert changed.mean() == pytest.approx(0.3, abs=0.08)
    untouched = augmented(music, given.model_copy(update={"probability": 0.0}), 1000)
    np.testing.assert_array_equal(untouched, music[:, :1000])


def test_changes_are_drawn_apart_from_each_other():
    """Two changes reach .5 x .5 of the examples together; 4 deviations in 4,000 are .03."""
    drawn = waveform._drawn(seeds(4000), settings(0.5, **ALL))
    reached = np.array([chosen.numpy() for chosen, _ in drawn.values()], float)
    together = reached @ reached.T / 4000
    np.testing.assert_allclose(together, np.where(np.eye(6), 0.5, 0.25), atol=0.03)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_silence_stays_silence_and_nothing_becomes_nan(rate_hz):
    """Nothing, full scale, one impulse, music after digital silence, and hardly anything."""
    samples = rate_hz // 2
    hard = np.zeros((5, round(1.2 * samples)), "float32")
    hard[1] = np.sign(np.sin(np.arange(hard.shape[1])))
    hard[2, 1000] = -1
    hard[3, samples // 2 :] = np.random.default_rng(0).normal(0, 0.1, hard.shape[1] - samples // 2)
    hard[4] = np.random.default_rng(0).integers(-1, 2, hard.shape[1]) / 32768
    for name, change in {**CHANGES, "all": ALL}.items():
        found = waveform.augment_waveforms(hard, seeds(5), settings(**change), samples, rate_hz).numpy()
        assert found.shape == (5, samples) and np.isfinite(found).all() and np.abs(found).max() <= 1, name
        assert (found[0] == 0).all() and (found[1:] != 0).any(axis=1).all(), name
    late = waveform.stretch(hard[3:4], tf.constant([1.1]), None, samples, rate_hz).numpy()[0, round(0.6 * samples) : round(0.9 * samples)]
    assert 0.06 < late.std() < 0.11  # bins that were silent are heard again


def test_an_example_s_changes_are_its_own():
    """A batch holds different ones; an example's are the same alone, in another order, with seeds of 64 bits and in a graph of unknown batch."""
    music, given = sounds(12, 0.36), settings(0.6, **ALL)
    found = augmented(music, given, 2400)
    again = np.tile(music[:1], (12, 1))
    assert len({row.tobytes() for row in augmented(again, given, 2400)}) >= 10  # .4^5 = 1 % stay as they are
    for few in ([5], [0, 7, 3], range(11, -1, -1)):
        rows = tf.cast(tf.gather(seeds(12), list(few)), tf.int64)
        np.testing.assert_allclose(augmented(music[list(few)], given, 2400, rows), found[list(few)], atol=3e-4)
    assert (augmented(music, given, 2400, seeds(12, key=8)) != found).any(axis=1).sum() >= 10

    @tf.function(input_signature=[tf.TensorSpec((None, None)), tf.TensorSpec((None, 2), tf.int32)])
    def graph(waveforms, keys):
        return waveform.augment_waveforms(waveforms, keys, given, 2400, RATE_HZ)

    np.testing.assert_allclose(graph(music, seeds(12)), found, atol=3e-4)
    assert graph(music[:0], seeds(0)).shape == (0, 2400)


def test_arguments_are_checked():
    for wrong in (np.zeros((2, 8800), "float64"), np.zeros(8800, "float32"), np.zeros((2, 8799), "float32")):
        with pytest.raises(ValueError, match="waveforms must be float32 .batch, 8800 samples or more"):
            augmented(wrong, settings(stretch=0.1), keys=seeds(2))
    with pytest.raises(ValueError, match="noises must be those of noises, got none"):
        augmented(sounds(2, 1.0), settings(noise_snr_db=(5.0, 20.0), noise_folder="noises"))
    with pytest.raises(ValueError, match="color must be white or pink, got 'brown'"):
        waveform.noise(seeds(2), 100, RATE_HZ, "brown")
    for changes, message in (
        ({"noise_snr_db": (20, 10)}, "noise_snr_db must be the least and the greatest"),
        ({"stretch": 0.6}, "less than or equal to 0.5"),
        ({}, "probability must be 0 where no change is set"),
        ({"background_snr_db": (20, 10)}, "background_snr_db must be the least and the greatest"),
        ({"noise_folder": "noises"}, "noise_folder needs noise_snr_db and stands in place of noise"),
        ({"noise_folder": "noises", "noise_snr_db": (5, 20), "noise": "pink"}, "which must be left out, got pink"),
    ):
        with pytest.raises(pydantic.ValidationError, match=message):
            settings(**changes)


# --- the stream ---------------------------------------------------------------------------------------------------------------------------


def experiment_with(given, window_s=0.4):
    frontend = EXPERIMENT.frontend.model_copy(update={"window_s": window_s})
    return EXPERIMENT.model_copy(update={"augment": Augment(waveform=given), "frontend": frontend})


def test_what_a_window_is_played_from_lies_in_its_track_and_its_start_is_uniform(ramps):  # noqa: F811
    """Tracks of ramps; .4 s = 3,200 samples, up to 1.25 times as fast: 4,000 are cut. A window read from n samples starts anywhere in length - n + 1:
    (start + .5) over that is uniform, which it would not be with room for the fastest kept free behind every window."""
    experiment = experiment_with(settings(stretch=0.25))
    begin, shares = np.cumsum([0, *LENGTHS[:-1]]) - 32_768, []
    stream = tf.data.Dataset.range(150).flat_map(lambda epoch: data.windows(*ramps, experiment, epoch))
    seeds_of = [tf.constant([EXPERIMENT.fit.seed, epoch], tf.int64) for epoch in range(150)]
    keys = tf.concat([data._seeds(seed, data.WAVEFORM, tf.range(10, dtype=tf.int64)) for seed in seeds_of], axis=0)
    needed = waveform.samples_read(keys, experiment.augment.waveform, 3200).numpy()
    assert 2400 <= needed.min() < 2500 and 3900 < needed.max() <= 4000
    for (window, truth, _), read in zip(take(stream), needed, strict=True):
        track = int(truth["labels"].argmax())
        if track in (3, 4):
            np.testing.assert_array_equal(window[:read], np.arange(window[0], window[0] + read))
            shares.append((window[0] - begin[track] + 0.5) / (LENGTHS[track] - read + 1))
            assert window.shape == (4000,) and 0 < shares[-1] < 1
    assert stats.kstest(shares, "uniform").pvalue > 1e-3 and len(shares) == 600


def test_batches_hang_on_the_seed_and_the_epoch_alone(records):
    manifest = schema.read_manifest(records)
    experiment = experiment_with(settings(0.6, **ALL | {"stretch": 0.25}))
    experiment = experiment.model_copy(update={"fit": experiment.fit.model_copy(update={"epochs": 2})})
    whole = take(data.train_batches(records, manifest, experiment), threads=1)
    tail = take(data.train_batches(records, manifest, experiment, first_epoch=1), threads=4)
    for (expected, _), (found, _) in zip(whole[8:], tail, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    plain = take(data.train_batches(records, manifest, experiment_with(WaveformAugment())).take(1))
    assert whole[0][0].shape == plain[0][0].shape and not np.array_equal(whole[0][0], plain[0][0])
    assert all(np.isfinite(features).all() for features, _ in whole)


def test_records_must_hold_the_window_at_its_fastest(records):
    """.4 s at 1.3 times the tempo are .52 s, of chunks of .8 every .3."""
    manifest = schema.read_manifest(records)
    data.check_records(manifest, experiment_with(settings(stretch=0.25)))
    with pytest.raises(InputError, match="windows of 0.4 s, 0.52 s where .*stretch plays them faster.*--chunk-s 0.82 --stride-s 0.3"):
        data.check_records(manifest, experiment_with(settings(stretch=0.3)))


def test_only_training_hears_it(trained, records, tmp_path, monkeypatch):
    """With functions that raise in place of the changes, SpecAugment and mixup an augmented run is scored, on test as before; its training stream,
    with any one of them, raises."""

    def refused(*_, **__):
        raise AssertionError("augmented")

    run = shutil.copytree(trained, tmp_path / "run")
    told = json.loads((run / "experiment.json").read_text("utf-8"))
    changes, masks = settings(gain_db=20.0, noise_snr_db=(0.0, 0.0)), SpecAugment(probability=1.0, time_frames=5, mel_bands=3)
    recorded = changes.model_copy(update={"noise_folder": tmp_path / "none", "background_snr_db": (0.0, 0.0)})
    told["experiment"]["augment"] = Augment(waveform=recorded, spec_augment=masks, mixup_alpha=0.4).model_dump(mode="json")
    (run / "experiment.json").write_text(json.dumps(told), "utf-8")
    monkeypatch.setattr(data, "augment_waveforms", refused)
    for name in ("augment_waveforms", "stretch", "roll", "noise", "cut", "add_noise"):
        monkeypatch.setattr(waveform, name, refused)
    for name in ("spec_augment", "mixup"):
        monkeypatch.setattr(data.augment, name, refused)
    evaluate.evaluate(run, split="valid")
    assert evaluate.evaluate(run, split="test") == evaluate.evaluate(trained, split="test")
    for one in (Augment(waveform=changes), Augment(spec_augment=masks), Augment(mixup_alpha=0.4)):
        with pytest.raises(AssertionError, match="augmented"):
            data.train_batches(records, schema.read_manifest(records), EXPERIMENT.model_copy(update={"augment": one}))
