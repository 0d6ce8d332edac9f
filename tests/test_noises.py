"""noises: what a folder of noise becomes, levels against numbers known beforehand, and that the stream hangs on the seed alone."""

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from scipy import stats

from tests.conftest import EXPERIMENT, tone
from tests.test_waveform import RATE_HZ, experiment_with, frequency_hz, seeds, settings, sounds, take
from tfmusic import data, noises, schema, waveform
from tfmusic.config import InputError

TONES_HZ = (300, 700, 1500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three tones at other rates, formats and levels, one of them shorter than a window; a file that is no audio and one that only looks so."""
    directory = tmp_path_factory.mktemp("noise")
    (directory / "inside").mkdir()
    for hz, seconds, rate_hz, name in zip(TONES_HZ, (2.0, 1.0, 0.15), (8000, 16_000, 8000), ("a.wav", "inside/b.flac", "c.WAV"), strict=True):
        soundfile.write(directory / name, tone(hz, seconds, rate_hz, level=hz / 3000), rate_hz)
    (directory / "broken.mp3").write_bytes(b"no audio at all" * 99)
    (directory / "licence.txt").write_text("CC0")
    return directory


@pytest.fixture(scope="module")
def held(folder):
    return noises.read(folder, RATE_HZ, 2000)


def test_a_folder_is_decoded_once_and_what_is_broken_is_one_line(folder, capsys):
    """2 + 1 + .15 s at 8 kHz."""
    found = noises.read(folder, RATE_HZ, 2000)
    assert sorted(found.lengths.numpy()) == [1200, 8000, 16_000] and found.samples.dtype == tf.int16
    np.testing.assert_array_equal(found.first, [0, *np.cumsum(found.lengths)[:-1]])
    skipped, told = capsys.readouterr().out.splitlines()
    assert skipped.startswith("noise skipped: ") and "broken.mp3" in skipped
    assert told == "noise: 3 of 4 files, 0.1 minutes, 0.0 MiB of memory"


def test_memory_is_bounded(folder):
    """24,000 bytes are 3,000 samples for each of 4 files; 8 bytes are one file's window of 2,000, or the file where it is shorter."""
    assert sorted(noises.read(folder, RATE_HZ, 2000, held_bytes=24_000).lengths.numpy()) == [1200, 3000, 3000]
    (only,) = noises.read(folder, RATE_HZ, 2000, held_bytes=8).lengths.numpy()
    assert only in (1200, 2000)


def test_a_folder_without_audio_is_refused(tmp_path):
    for name, path in (("0 in", tmp_path), ("0 in", tmp_path / "none")):
        with pytest.raises(InputError, match=f"noise-folder must hold audio files, got {name}"):
            noises.read(path, RATE_HZ, 2000)
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(InputError, match="got 1 in .*, none of which can be read"):
        noises.read(tmp_path, RATE_HZ, 2000)


def test_every_file_and_place_is_as_likely_as_any_other(held):
    """400 windows: each tone a third of them, 4 deviations are .1; each is one piece of its file, of power 1; starts are uniform."""
    draws = np.random.default_rng(0).random((400, 2)).astype("float32")
    found = noises.cut(held, draws, 2000).numpy()
    np.testing.assert_allclose((found**2).mean(axis=1), 1, rtol=1e-4)
    heard = np.array([min(TONES_HZ, key=lambda hz, x=x: abs(hz - frequency_hz(x))) for x in found[:120]])
    assert all(abs((heard == hz).mean() - 1 / 3) < 0.18 for hz in TONES_HZ)
    whole = held.samples.numpy()
    for x, (one, place) in zip(found[:20], draws, strict=False):
        number = int(one * 3)
        first, length = int(held.first[number]), int(held.lengths[number])
        piece = np.roll(whole[first : first + length].astype(float), -int(np.float64(place) * (length if length < 2000 else length - 1999)))
        piece = np.resize(piece, 2000)
        np.testing.assert_allclose(x, piece / np.sqrt((piece**2).mean()), atol=1e-4)


def test_recorded_noise_stands_at_the_drawn_ratio(held):
    """What was added is one of the tones; its power against the music's is uniform in 5..20 dB, and at one ratio that one within .01 dB."""
    music = sounds(300, 0.25)
    for low_db, high_db in ((5.0, 20.0), (12.0, 12.0)):
        given = settings(noise_snr_db=(low_db, high_db), noise_folder="noises")
        added = waveform.augment_waveforms(music, seeds(300), given, 2000, RATE_HZ, held).numpy() - music
        snr_db = 10 * np.log10((music**2).mean(axis=1) / (added**2).mean(axis=1))
        assert low_db - 0.01 < snr_db.min() and snr_db.max() < high_db + 0.01
        assert low_db == high_db or stats.kstest(snr_db, "uniform", (low_db, high_db - low_db)).pvalue > 1e-3
    assert {min(TONES_HZ, key=lambda hz, x=x: abs(hz - frequency_hz(x))) for x in added[:20]} == {*TONES_HZ}


def test_the_background_is_another_example_at_the_drawn_ratio():
    """Noises that nothing else resembles: what was added to each correlates by 1 with exactly one other, each other of a batch equally likely."""
    music = sounds(60, 0.25)
    for low_db, high_db in ((0.0, 20.0), (9.0, 9.0)):
        partners = []
        for key in range(4):
            found = waveform.augment_waveforms(music, seeds(60, key), settings(background_snr_db=(low_db, high_db)), 2000, RATE_HZ).numpy()
            added = found - music * (found * music).sum(axis=1, keepdims=True) / (music**2).sum(axis=1, keepdims=True)  # turned down by peaks
            partner = np.abs(np.corrcoef(added, music)[:60, 60:]).argmax(axis=1)
            assert (partner != np.arange(60)).all()
            partners += [*(partner - np.arange(60)) % 60]
            parts = [np.linalg.lstsq(np.stack([x, music[other]], 1), y, rcond=None)[0] for x, y, other in zip(music, found, partner, strict=True)]
            own, behind = np.array(parts).T
            snr_db = 20 * np.log10(own * music.std(axis=1) / (behind * music[partner].std(axis=1)))
            assert low_db - 0.05 < snr_db.min() and snr_db.max() < high_db + 0.05
            assert low_db == high_db or stats.kstest(snr_db, "uniform", (low_db, high_db - low_db)).pvalue > 1e-3
        assert stats.kstest(partners, stats.randint(1, 60).cdf).pvalue > 1e-3
    silent = np.stack([music[0], np.zeros(2000, "float32")])
    found = waveform.augment_waveforms(silent, seeds(2), settings(background_snr_db=(0.0, 0.0)), 2000, RATE_HZ).numpy()
    np.testing.assert_array_equal(found, silent)  # nothing behind the one, nothing in front of the other
    np.testing.assert_array_equal(waveform.augment_waveforms(music[:1], seeds(1), settings(background_snr_db=(0.0, 0.0)), 2000, RATE_HZ), music[:1])


def test_the_stream_hangs_on_the_seed_and_the_epoch_alone_and_keeps_its_labels(records, folder):
    """A later start is the tail of an earlier one on any number of threads, which resuming exactly needs; another seed is another stream."""
    manifest = schema.read_manifest(records)
    given = settings(0.7, noise_snr_db=(0.0, 20.0), noise_folder=folder, background_snr_db=(0.0, 20.0))
    fit = EXPERIMENT.fit.model_copy(update={"epochs": 2})
    experiment = experiment_with(given).model_copy(update={"fit": fit})
    whole = take(data.train_batches(records, manifest, experiment), threads=1)
    tail = take(data.train_batches(records, manifest, experiment, first_epoch=1), threads=4)
    for (expected, truth), (found, again) in zip(whole[8:], tail, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_array_equal(again["labels"], truth["labels"])
    plain = take(data.train_batches(records, manifest, experiment_with(settings(0.0)).model_copy(update={"fit": fit})))
    for (noisy, truth), (clean, known) in zip(whole, plain, strict=True):
        np.testing.assert_array_equal(truth["labels"], known["labels"])
        assert not np.array_equal(noisy, clean)
    other = experiment.model_copy(update={"fit": fit.model_copy(update={"seed": 1})})
    assert not np.array_equal(take(data.train_batches(records, manifest, other).take(1))[0][0], whole[0][0])
