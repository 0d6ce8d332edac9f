"""Offline features against librosa and a few lines of numpy, at the edges, and from several threads."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import pytest

from records import features as offline
from records.features import beat_edges, beat_frames, compute, dims, means
from tests.conftest import EXPERIMENT, RATE_HZ
from tfmusic import audio, evaluate, models
from tfmusic.config import PRESETS, Features, InputError, Net
from tfmusic.frontend import LogMel

pytestmark = pytest.mark.filterwarnings("ignore:.*mel bands hold no FFT bin")

HZ = 22_050  # of S4, with the default n_fft, hop and bands
FRAMES, BEATS = ["log_mel", "chroma", "fused"], ["beat_mel", "beat_chroma", "beat_fused"]


def clicks(seconds: float, bpm: float = 120, rate_hz: int = HZ) -> np.ndarray:
    """Decaying 1 kHz blips on every beat over a soft chord, int16."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    since_beat_s = time_s % (60 / bpm)
    chord = sum(np.sin(2 * np.pi * hz * time_s) for hz in (220, 277.18, 329.63))
    blips = np.exp(-since_beat_s / 0.02) * np.sin(2 * np.pi * 1000 * since_beat_s)
    noise = np.random.default_rng(0).normal(0, 1e-3, len(time_s))
    return np.rint(32_767 * (0.6 * blips + 0.05 * chord + noise)).astype(np.int16)


def as_float(waveform: np.ndarray) -> np.ndarray:
    return waveform.astype(np.float64) / 32_768


# --- frames -------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")  # librosa's, of the shortest
@pytest.mark.parametrize("samples", [1, 511, 2205, 30 * HZ + 7])
def test_log_mel_is_the_librosa_preset_of_the_whole_track(samples):
    """30 s are 1,292 frames, in two blocks whose border must not show. Power as in test_frontend, within 1e-6 of the frame's maximum, and
    4e-6 for the way through float32 decibels: logarithms near -20 have steps of 2e-6."""
    waveform = clicks(31)[:samples]
    found = compute(waveform, HZ, Features(kind="log_mel", dtype="float32"))
    assert found.shape == (1 + samples // 512, 128)
    np.testing.assert_allclose(found, LogMel(PRESETS["librosa"])(as_float(waveform)[None])[0], rtol=0, atol=2e-2)
    expected = np.maximum(librosa.feature.melspectrogram(y=as_float(waveform), sr=HZ).T, 1e-10)
    assert (np.abs(10 ** (found.astype(np.float64) / 10) - expected) <= 5e-6 * expected.max(axis=1, keepdims=True)).all()


def test_chroma_is_librosas_across_blocks():
    waveform = clicks(30)
    found = compute(waveform, HZ, Features(kind="chroma", dtype="float32"))
    expected = librosa.feature.chroma_stft(y=as_float(waveform), sr=HZ, tuning=0).T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_fused_is_both_side_by_side():
    waveform = clicks(2)
    log_mel, chroma, fused = (compute(waveform, HZ, Features(kind=kind)) for kind in FRAMES)
    np.testing.assert_array_equal(fused, np.concatenate([log_mel, chroma], axis=1))


@pytest.mark.parametrize("settings", [{"n_fft": 1023, "hop_samples": 300}, {"n_fft": 256, "hop_samples": 700}], ids=str)
def test_odd_windows_and_hops_beyond_them(settings):
    waveform = clicks(1)
    found = compute(waveform, HZ, Features(kind="log_mel", dtype="float32", n_mels=20, **settings))
    power = librosa.feature.melspectrogram(y=as_float(waveform), sr=HZ, n_fft=settings["n_fft"], hop_length=settings["hop_samples"], n_mels=20)
    np.testing.assert_allclose(found, librosa.power_to_db(power, top_db=None).T, rtol=0, atol=1e-2)


# --- beats --------------------------------------------------------------------------------------------------------------------------------
def test_means_of_given_beats():
    values = np.random.default_rng(1).normal(size=(40, 3)).astype("float32")
    edges = np.array([0, 7, 8, 25, 40])
    expected = []
    for start, end in itertools.pairwise(edges.tolist()):
        total = np.zeros(3)
        for frame in range(start, end):
            total += values[frame]
        expected.append(total / (end - start))
    np.testing.assert_allclose(means(values, edges), expected, rtol=1e-6)


def test_beat_features_are_means_over_librosas_beats():
    waveform = clicks(12, bpm=100)
    _, beats = librosa.beat.beat_track(y=as_float(waveform), sr=HZ)
    edges = [0, *beats, 1 + len(waveform) // 512]
    for kind, of_frames in zip(BEATS, FRAMES, strict=True):
        frames = compute(waveform, HZ, Features(kind=of_frames, dtype="float32"))
        expected = [frames[start:end].mean(axis=0) for start, end in itertools.pairwise(edges) if end > start]
        found = compute(waveform, HZ, Features(kind=kind, dtype="float32"))
        assert found.shape == (len(expected), dims(Features(kind=kind)))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bpm", [90, 120])
def test_a_click_track_has_its_beats(bpm):
    """20 s at 120 a minute: 40 intervals, each half a second; the ends may add or lose two."""
    waveform = clicks(20, bpm)
    found = compute(waveform, HZ, Features(kind="beat_mel"))
    assert abs(len(found) - 20 * bpm / 60) <= 2
    log_mel = compute(waveform, HZ, Features(kind="log_mel", dtype="float32"))
    beats = beat_frames(log_mel, HZ, 2048, 512)
    np.testing.assert_allclose(np.diff(beats) * 512 / HZ, 60 / bpm, atol=2 * 512 / HZ)


@pytest.mark.parametrize("seconds", [0.2, 3.0])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", [*FRAMES, *BEATS])
def test_silence_and_blinks_are_finite(kind, dtype, seconds):
    """Silence has no beat: intervals of half a second, so 6 in 3 s, and 1 in .2 s."""
    silence = np.zeros(round(seconds * HZ), np.int16)
    square = np.where(np.arange(len(silence)) // 25 % 2, -32_768, 32_767).astype(np.int16)
    noise = np.random.default_rng(2).integers(-2000, 2000, len(silence)).astype(np.int16)
    settings = Features(kind=kind, dtype=dtype)
    for waveform in (silence, square, noise):
        found = compute(waveform, HZ, settings)
        assert found.dtype == dtype and found.shape[1] == dims(settings) and len(found) >= 1
        assert np.isfinite(found).all()
    if kind in BEATS:
        assert len(compute(silence, HZ, settings)) == np.ceil(seconds / 0.5)
    columns = {"mel": [-100], "chroma": [0]}.get(kind.removeprefix("beat_").removeprefix("log_"), [-100, 0])
    assert np.unique(compute(silence, HZ, settings)).tolist() == columns


def test_a_long_track_is_tracked_in_stretches(monkeypatch):
    """Two of 10 s: the tempo of each is found, and frames stay in order across the border."""
    monkeypatch.setattr(offline, "STRETCH_S", 10.0)
    waveform = np.concatenate([clicks(10, bpm=90), clicks(10, bpm=150)])
    log_mel = compute(waveform, HZ, Features(kind="log_mel", dtype="float32"))
    edges = beat_edges(log_mel, HZ, 2048, 512)
    assert edges[0] == 0 and edges[-1] == len(log_mel) and (np.diff(edges) > 0).all()
    for stretch, bpm in ((edges[edges < 420], 90), (edges[(edges > 440) & (edges < 850)], 150)):
        assert np.median(np.diff(stretch)) * 512 / HZ == pytest.approx(60 / bpm, abs=512 / HZ)


def test_beats_need_frames_enough():
    """The fastest tempo is 320 a minute, two frames of it 60 / 320 / 2 s = 2,067 samples at 22,050 Hz."""
    with pytest.raises(InputError, match="^features.hop_samples must be at most 2067 for beats at 22050 Hz, got 2068$"):
        compute(clicks(1), HZ, Features(hop_samples=2068))
    assert np.isfinite(compute(clicks(5), HZ, Features(hop_samples=2067))).all()


# --- embeddings ---------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("samples", [RATE_HZ // 5, 4000, 4001, RATE_HZ * 4])
def test_embeddings_are_what_the_logits_are_computed_from(trained, samples):
    """Windows of .5 s every .25 s. The run's own last layer and sigmoid make its scores of them."""
    waveform = clicks(4, rate_hz=RATE_HZ)[:samples]
    settings = Features(kind="embedding", run=trained, dtype="float32")
    found = compute(waveform, RATE_HZ, settings)
    windows = audio.windows(waveform, EXPERIMENT.frontend.window_samples, 2000, EXPERIMENT.frontend.short)
    assert found.shape == (len(windows), dims(settings))
    deployed = evaluate.load_best(trained)
    _, net, _ = models.parts(deployed)
    kernel, bias = net.get_layer("logits").get_weights()
    np.testing.assert_allclose(1 / (1 + np.exp(-(found @ kernel + bias))), deployed(windows)["tags"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(compute(waveform, RATE_HZ, settings.model_copy(update={"dtype": "float16"})), found.astype("float16"))


def test_a_run_without_tags_gives_its_embedding(monkeypatch):
    """Unit length is only the embedding's own: the vector before the heads has any."""
    net = models.build(Net(name="cnn2d", width=0.125, embedding=6), (32, 16), 0)
    deployed = models.deploy(LogMel(EXPERIMENT.frontend), net, "sigmoid")
    monkeypatch.setattr(evaluate, "load_best", lambda directory: deployed)
    offline._embedder.forget()
    found = offline._embedder(Path("run"))
    offline._embedder.forget()
    windows = np.random.default_rng(0).uniform(-1, 1, (3, EXPERIMENT.frontend.window_samples)).astype("float32")
    assert found.output_shape == (None, 6)
    np.testing.assert_array_equal(found(windows), deployed(windows)["embedding"])


def test_embeddings_that_cannot_be(trained, tmp_path):
    with pytest.raises(InputError, match=f"^--sample-rate-hz must be that of .*, {RATE_HZ}, got 22050$"):
        compute(clicks(1), HZ, Features(kind="embedding", run=trained))
    for use in (dims, lambda settings: compute(clicks(1), RATE_HZ, settings)):
        with pytest.raises(InputError, match="features.run must be the directory of a trained run .*, got none"):
            use(Features(kind="embedding"))
        with pytest.raises(InputError, match=str(tmp_path)):
            use(Features(kind="embedding", run=tmp_path))


# --- all ----------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["beat_fused", "embedding"])
def test_bytes_do_not_depend_on_threads(kind, trained):
    """The first use too: graphs, librosa and the run are loaded by whichever thread comes first."""
    for cached in (offline._graph, offline._librosa, offline._embed, offline._embedder):
        cached.forget()
    settings = Features(kind=kind, run=trained, dtype="float32", n_fft=512, hop_samples=128, n_mels=40)
    tracks = [clicks(seconds, bpm, RATE_HZ) for seconds in (0.3, 1.0, 4.0) for bpm in (80, 130)] * 2
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda track: compute(track, RATE_HZ, settings).tobytes(), tracks))
    assert together == [compute(track, RATE_HZ, settings).tobytes() for track in tracks]


def test_float16_is_float32_rounded_and_clipped(monkeypatch):
    wide = {"float32": compute(clicks(2), HZ, Features(kind="fused", dtype="float32"))}
    np.testing.assert_array_equal(compute(clicks(2), HZ, Features(kind="fused")), wide["float32"].astype("float16"))
    monkeypatch.setattr(offline, "_frames_or_beats", lambda *_: np.array([[1e6, -1e6]], np.float32))
    assert compute(clicks(1), HZ, Features()).tolist() == [[65_504, -65_504]]


@pytest.mark.parametrize("waveform", [np.zeros(0, np.int16), np.zeros((2, 9), np.int16), np.zeros(9, np.float32)], ids=["empty", "stereo", "float"])
def test_other_waveforms_are_refused(waveform):
    with pytest.raises(ValueError, match="waveform must be int16 of shape"):
        compute(waveform, HZ, Features())


def test_every_kind_of_the_settings_is_known():
    assert {*offline.KINDS, "embedding"} == set(Features.model_fields["kind"].annotation.__args__)
