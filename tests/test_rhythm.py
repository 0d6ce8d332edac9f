"""Onset strength, tempogram and features side by side: against librosa, with tempi one knows, in every container.

librosa is run in float64, as in test_frontend.
"""

import json
import tempfile

import keras
import librosa
import numpy as np
import pydantic
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from export.bundle import bundle, probes
from tests.conftest import EXPERIMENT
from tests.test_frontend import signals
from tfmusic import models, run, training
from tfmusic.config import FEATURE_READS, PRESETS, Augment, FrontEnd, Net, SpecAugment
from tfmusic.frontend import (
    LEAST_ONSET,
    PARTS,
    LogMel,
    chroma,
    hann,
    local_autocorrelation,
    normalise_window,
    onset_strength,
    tempi_bpm,
    tempo_matrix,
    tempogram,
)

ALL = ("log_mel", "chroma", "onset", "tempogram")
KINDS = {  # columns -> settings, of windows of 2.1 s: the slowest tempo is 30 beats a minute
    12: FrontEnd(window_s=2.1, features=("chroma",)),
    1: FrontEnd(window_s=2.1, features=("onset",), n_mels=40),
    48: FrontEnd(window_s=2.1, features=("tempogram",), n_mels=40),
    101: FrontEnd(window_s=2.1, features=ALL, n_mels=40, normalise="window"),
    19: FrontEnd(window_s=2.1, features=("tempogram", "chroma"), tempo_bins=7, tempogram_frames=150, hop_samples=320, normalise="window"),
}
every_kind = pytest.mark.parametrize("columns", KINDS)


def clicks(bpm, config, seconds):
    """A click of 5 ms every beat, in a little noise `[shape=(1, samples)]`."""
    noise = np.random.default_rng(0).normal(0, 1e-3, round(seconds * config.sample_rate_hz))
    for beat_s in np.arange(0.1, seconds - 0.1, 60 / bpm):
        start = round(beat_s * config.sample_rate_hz)
        noise[start : start + config.sample_rate_hz // 200] += 0.5
    return noise[None].astype(np.float32)


# --- onset strength -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("log", ["db", "ln", "ln_offset", "log10_gain"])
def test_onset_strength_is_librosas_on_the_same_log_mel(log):
    """librosa's default, center=True, delays it by n_fft // (2 hop) = 1 frame on top."""
    config = FrontEnd(n_mels=40, log=log)
    log_mel = LogMel(config)(signals(16_000, 48_000)).numpy()
    found = onset_strength(log_mel).numpy()[..., 0]
    spectrogram = np.swapaxes(log_mel, 1, 2).astype(np.float64)
    np.testing.assert_allclose(found, librosa.onset.onset_strength(S=spectrogram, center=False), rtol=0, atol=1e-5)
    delayed = librosa.onset.onset_strength(S=spectrogram, n_fft=512, hop_length=256)
    np.testing.assert_allclose(found[:, :-1], delayed[:, 1:], rtol=0, atol=1e-5)


def test_librosas_own_onsets_differ_by_its_80_db_alone():
    """From the waveform: librosa cuts 80 dB below the clip's loudest band, ours at the floor of -100 dB. Cut likewise they are equal, 2,048 /
    (2 * 512) = 2 frames apart; uncut they are not, where noise of -80 dB begins."""
    config = PRESETS["librosa"]
    y = np.random.default_rng(0).normal(0, 0.3, config.window_samples) * np.repeat([1e-4, 1, 0, 1e-4], [16_537, 16_538, 16_537, 16_538])
    expected = librosa.onset.onset_strength(y=y, sr=22_050)
    log_mel = LogMel(config)(y[None].astype(np.float32)).numpy()
    cut = onset_strength(np.maximum(log_mel, log_mel.max() - 80)).numpy()[0, :, 0]
    np.testing.assert_allclose(cut[:-2], expected[2:], rtol=0, atol=1e-3)
    assert np.abs(onset_strength(log_mel)[0, :-2, 0] - expected[2:]).max() > 5


def test_onset_strength_of_two_bands_and_of_one_frame():
    """Bands rise by 3 and fall by 5: (3 + 0) / 2. The first frame has none before it."""
    np.testing.assert_array_equal(onset_strength(np.array([[[1.0, 0.0], [4.0, -5.0], [4.0, -5.0]]]))[0, :, 0], [0, 1.5, 0])
    np.testing.assert_array_equal(onset_strength(np.ones((1, 1, 7))), [[[0]]])


# --- tempogram ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("transform", ["fft", "dft"])
@pytest.mark.parametrize(("steps", "frames"), [(188, 384), (188, 50), (60, 33), (10, 2)])
def test_local_autocorrelation_is_librosas_tempogram(steps, frames, transform):
    """All its lags, within float32 (measured 7e-7)."""
    onsets = 0.1 + np.random.default_rng(0).exponential(size=(2, steps)) ** 2
    onsets[:, [0, -1]] = 0  # where librosa pads as we do; the first is always
    found = local_autocorrelation(onsets[..., None].astype(np.float32), frames, frames, transform).numpy()
    expected = librosa.feature.tempogram(onset_envelope=onsets, win_length=frames, norm=np.inf)
    np.testing.assert_allclose(found, np.swapaxes(expected, 1, 2), rtol=0, atol=2e-6)


def test_librosas_padding_differs_after_an_onset_in_the_last_frame():
    """Zeros follow here, librosa's envelope fades out; with zeros and center=False it is ours again."""
    onsets = np.random.default_rng(1).exponential(size=(1, 90))
    onsets[:, 0] = 0
    found = local_autocorrelation(onsets[..., None].astype(np.float32), 40, 40).numpy()[0].T
    zeros = librosa.feature.tempogram(onset_envelope=np.pad(onsets[0], (20, 19)), win_length=40, center=False)
    np.testing.assert_allclose(found, zeros, rtol=0, atol=2e-6)
    faded = librosa.feature.tempogram(onset_envelope=onsets[0], win_length=40)
    np.testing.assert_allclose(found[:, :70], faded[:, :70], rtol=0, atol=2e-6)
    assert np.abs(found - faded)[:, 80:].max() > 0.05


def test_tempo_matrix_by_hand():
    """10 frames a second: 60, 120 and 240 beats a minute are lags of 10, 5 and 2.5. To 20, 10 and 5 it is 10, 5 and 2.5 frames: lag 7 counts
    1 - 3/10 of the slowest, 1 - 2/5 of the middle one; their sums are 1 + .9 + ... + .1 = 5.5 up to lag 10, and 1 + 2 (.8 + ... + .2) = 5."""
    config = FrontEnd(sample_rate_hz=16_000, hop_samples=1600, n_fft=2048, features=("tempogram",), tempo_bins=3, tempo_min_bpm=60, tempo_max_bpm=240)
    matrix = tempo_matrix(config)
    np.testing.assert_allclose(tempi_bpm(config), [60, 120, 240])
    assert matrix.shape == (11, 3)
    np.testing.assert_allclose(matrix[7], [0.7 / 5.5, 0.6 / 5, 0], rtol=1e-6)
    np.testing.assert_allclose(matrix[:, 2], np.maximum(0, 1 - np.abs(np.arange(11) - 2.5) / 2.5) / 2.4, rtol=1e-6)


@pytest.mark.parametrize("bins", [2, 12, 48, 300])
@pytest.mark.parametrize("hop_samples", [100, 256, 512])
def test_no_lag_between_the_tempi_is_lost(bins, hop_samples):
    """Every lag from the fastest to the slowest tempo counts somewhere, and weights sum to 1."""
    config = FrontEnd(hop_samples=hop_samples, tempogram_frames=1000, features=("tempogram",), tempo_bins=bins)
    matrix = tempo_matrix(config)
    np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-5)
    fastest = int(np.ceil(60 * config.frames_per_s / 240))
    assert (matrix.max(axis=1)[fastest:] > 0)[:-1].all()


@pytest.mark.parametrize("hop_samples", [160, 256, 441])
@pytest.mark.parametrize("bpm", [70, 97, 120, 200])
def test_clicks_show_at_their_tempo_whatever_the_hop(bpm, hop_samples):
    """8 s of clicks in noise: the strongest column is b or a whole part of it; faster ones hold the noise's onsets alone."""
    config = FrontEnd(window_s=8, hop_samples=hop_samples, n_mels=40, features=("tempogram",))
    columns = LogMel(config)(clicks(bpm, config, 8)).numpy()[0].mean(axis=0)
    tempi = tempi_bpm(config)
    multiples = bpm / tempi[columns.argmax()]
    assert round(multiples) >= 1 and abs(multiples / round(multiples) - 1) < 0.05
    own = columns[np.abs(np.log2(tempi / bpm)) < 0.07].max()
    assert own > 0.4 * columns.max()
    assert columns[tempi > 1.15 * bpm].max(initial=0) < 0.6 * own


def test_silence_and_steady_sounds_have_no_rhythm():
    """A constant and a tone whose period divides the hop give equal frames but at the ends, where zeros are; rounding counts as nothing."""
    config = KINDS[48]
    samples = config.window_samples
    y = np.stack([np.zeros(samples), np.ones(samples), np.sin(2 * np.pi * np.arange(samples) / 16)]).astype(np.float32)
    onsets = LogMel(FrontEnd(window_s=2.1, n_mels=40, features=("onset",)))(y).numpy()
    assert np.abs(onsets[:, 3:-3]).max() < 1e-3
    found = tempogram(onsets, config).numpy()
    assert found.min() >= -1e-6 and found.max() <= 1
    assert (found[0] == 0).all()
    rounding = np.random.default_rng(0).uniform(0, LEAST_ONSET / 10, (1, 188, 1)).astype(np.float32)
    assert tempogram(rounding, config).numpy().max() < 0.01


# --- features side by side ----------------------------------------------------------------------------------------------------------------
def test_every_feature_has_its_part_and_what_it_reads():
    assert PARTS.keys() == FEATURE_READS.keys() == set(ALL)


def test_parts_stand_in_the_order_given_each_normalised_by_itself():
    config = FrontEnd(window_s=2.1, features=("onset", "tempogram", "log_mel", "chroma"), n_mels=40, normalise="window")
    y = signals(16_000, config.window_samples)
    log_mel = LogMel(FrontEnd(window_s=2.1, n_mels=40))(y)
    onsets = onset_strength(log_mel)
    parts = [onsets, tempogram(onsets, config), log_mel, chroma(y, config)]
    expected = np.concatenate([normalise_window(part) for part in parts], axis=-1)
    np.testing.assert_allclose(LogMel(config)(y), expected, rtol=0, atol=2e-5)
    for start, end in ((0, 1), (1, 49), (49, 89), (89, 101)):
        one = expected[[1, 2], :, start:end]
        np.testing.assert_allclose(one.mean(axis=(1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(one.std(axis=(1, 2)), 1, atol=1e-3)


@every_kind
def test_one_stft_serves_all_parts(columns):
    """And the tempogram's own transform of the onsets."""
    config = KINDS[columns]
    graph = tf.function(LogMel(config)).get_concrete_function(tf.TensorSpec((None, config.window_samples)))
    assert sum(operation.type == "RFFT" for operation in graph.graph.get_operations()) == 1 + ("tempogram" in config.features)


@every_kind
@pytest.mark.parametrize("padding", ["zero", "reflect", "none"])
def test_shapes(columns, padding):
    config = KINDS[columns].model_copy(update={"padding": padding})
    layer, samples = LogMel(config), config.window_samples
    shape = layer.compute_output_shape((None, samples))
    assert shape[2] == columns
    assert layer(keras.Input((samples,))).shape == shape
    assert layer(np.zeros((2, samples), np.float32)).shape == (2, *shape[1:])
    waveform = keras.Input((None,))
    unknown = keras.Model(waveform, layer(waveform))
    assert unknown.output_shape == layer.compute_output_shape((None, None)) == (None, None, columns)
    y = signals(16_000, samples)[1:3]
    np.testing.assert_allclose(unknown(y), layer(y), rtol=0, atol=2e-5)


@every_kind
@pytest.mark.parametrize(
    "name", [name if name in ("cnn1d", "cnn2d", "crnn", "musicnn") else pytest.param(name, marks=pytest.mark.slow) for name in models.MODELS]
)
def test_every_network_takes_them(name, columns):
    layer = LogMel(KINDS[columns].model_copy(update={"window_s": 3.0}))
    net = models.build(Net(name=name, width=0.125), layer.compute_output_shape((None, 48_000))[1:], 5)
    assert models.deploy(layer, net, "sigmoid").output["tags"].shape == (None, 5)
    for one in net.layers:  # oneDNN's bfloat16 gradient of a kernel striding over a width of 1 is garbage
        if isinstance(one, keras.layers.Conv2D):
            assert all(stride == 1 or size > 1 for stride, size in zip(one.strides, one.input.shape[1:3], strict=True)), one.name


@every_kind
def test_an_example_does_not_depend_on_its_neighbours(columns):
    layer = LogMel(KINDS[columns])
    y = signals(16_000, KINDS[columns].window_samples)
    quiet, loud = 0.05 * y[2:3], np.repeat(y[4:5], 5, axis=0)
    np.testing.assert_allclose(layer(np.concatenate([quiet, loud]))[:1], layer(quiet), rtol=0, atol=5e-5)


@every_kind
def test_float32_and_finite_under_mixed_float16(columns):
    """On silence, full scale, a constant, loud and faint noise."""
    layer, before = LogMel(KINDS[columns]), keras.config.dtype_policy()
    y = probes(KINDS[columns].window_samples)
    expected = layer(y)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        found = LogMel(KINDS[columns])(y)
    finally:
        keras.config.set_dtype_policy(before)
    assert found.dtype == tf.float32 and np.isfinite(found).all()
    np.testing.assert_array_equal(found, expected)


@every_kind
def test_settings_survive_json_and_older_ones_load(columns):
    layer = LogMel(KINDS[columns], name="features")
    assert LogMel.from_config(json.loads(json.dumps(layer.get_config()))).frontend == KINDS[columns]
    newer = {"features", "tempo_bins", "tempo_min_bpm", "tempo_max_bpm", "tempogram_frames"}
    older = {name: value for name, value in FrontEnd().model_dump().items() if name not in newer}
    assert LogMel(older).frontend == FrontEnd()


def test_probes_give_the_same_in_a_tflite_file_of_builtins():
    """Silence, full scale, a constant, loud and faint noise through chroma, onset strength and tempogram; measured at most 4e-5 apart."""
    samples = KINDS[1].window_samples
    waveform = keras.Input((samples,), name="waveform")
    layers = {KINDS[columns].features[0]: LogMel(KINDS[columns]) for columns in (12, 1, 48)}
    model = keras.Model(waveform, {name: layer(waveform) for name, layer in layers.items()})
    with tempfile.TemporaryDirectory() as directory:
        model.export(directory, input_signature=[tf.TensorSpec((1, samples), tf.float32, name="waveform")], verbose=False)
        content = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=["serving_default"]).convert()
    graph = schema.ModelT.InitFromPackedBuf(content, 0)
    assert len(graph.subgraphs) == 1 and not any(code.customCode for code in graph.operatorCodes)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    lite = interpreter.get_signature_runner("serving_default")
    for probe in probes(samples):
        found = lite(waveform=probe[None])
        for name, layer in layers.items():
            np.testing.assert_allclose(found[name], layer(probe[None]), rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"features": ()}, "at least 1 item"),
        ({"features": ("chroma", "chroma"), "normalise": "window"}, "features must name each one once, got chroma chroma"),
        ({"features": ("log_mel", "chroma")}, "normalise must be window for several features, .* got none for log_mel chroma"),
        ({"features": ("onset",), "resolutions_ms": (10, 20), "frames": 50}, "resolutions_ms are for the features log_mel alone, got onset"),
        ({"features": ("chroma",), "n_mels": 40}, "n_mels does nothing for the features chroma and must be left at 96, got 40"),
        ({"features": ("chroma",), "log": "ln"}, "log does nothing for the features chroma and must be left at db, got ln"),
        ({"tempo_bins": 24}, "tempo_bins does nothing for the features log_mel and must be left at 48, got 24"),
        ({"features": ("onset",), "tempogram_frames": 100}, "tempogram_frames does nothing for the features onset and must be left at 384, got 100"),
        ({"features": ("tempogram",), "tempo_min_bpm": 240.0}, "tempo_min_bpm < tempo_max_bpm <= 3750 .* got 240 and 240"),
        ({"features": ("tempogram",), "tempo_max_bpm": 4000.0}, "tempo_max_bpm <= 3750 .* must hold, got 30 and 4000"),
        ({"features": ("tempogram",), "window_s": 1.0}, "tempo_min_bpm must be above 60, .* window_s .* got 30"),
        ({"features": ("tempogram",), "tempogram_frames": 125}, "tempo_min_bpm must be above 30, .* tempogram_frames, got 30"),
    ],
    ids=str,
)
def test_features_that_cannot_be_are_refused(changes, complaint):
    with pytest.raises(pydantic.ValidationError, match=complaint):
        FrontEnd(**changes)


def test_a_window_as_long_as_its_frame():
    """One frame: no onset, no rhythm, but a shape; `hann` of the tempogram's two frames is (0, 1)."""
    config = FrontEnd(window_s=1.1, n_fft=16_384, hop_samples=16_384, padding="none", features=("tempogram",), tempo_min_bpm=57, tempo_max_bpm=58)
    np.testing.assert_array_equal(hann(2), [0, 1])
    found = LogMel(config)(np.random.default_rng(0).uniform(-1, 1, (2, config.window_samples)).astype(np.float32)).numpy()
    assert found.shape == (2, 1, 48) and (found == 0).all()


@pytest.mark.slow
def test_a_net_learns_from_them_and_is_bundled(records, tmp_path):
    """High against low tones by all four, through SpecAugment and the bundle's own check of its files; guessing is .5."""
    changes = {"features": ALL, "normalise": "window", "tempo_bins": 6, "tempo_min_bpm": 150.0, "tempogram_frames": 62}
    frontend = FrontEnd(**EXPERIMENT.frontend.model_dump() | changes)
    augmented = Augment(spec_augment=SpecAugment(probability=1.0, time_frames=5, mel_bands=3))
    run_directory = training.fit(EXPERIMENT.model_copy(update={"frontend": frontend, "augment": augmented}), records, tmp_path / "run")
    assert json.loads((run_directory / run.METRICS).read_text())["test"]["roc_auc"] > 0.8
    bundle(run_directory, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "model_float16.tflite").exists()
