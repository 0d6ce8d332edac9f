"""LogMel against librosa and tf.signal, against itself in every container it is shipped in, and at the edges.

librosa is run in float64: a difference is then ours alone, and not librosa's own float32 rounding, which is as large.
"""

import itertools
import json
import warnings

import keras
import librosa
import numpy as np
import pydantic
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tfmusic.config import PRESETS, FrontEnd
from tfmusic.frontend import LogMel, chroma, chroma_matrix, mel_matrix, mel_power, resizing_matrices

pytestmark = [pytest.mark.filterwarnings("ignore:.*mel bands hold no FFT bin"), pytest.mark.filterwarnings("ignore:Empty filters")]

SIZES = [  # n_fft, hop_samples, frame_samples; an odd frame is where the two ways of centring could part
    (512, 256, None),
    (512, 160, 401),
    (1024, 320, 800),
    (2048, 512, None),
]


def signals(sample_rate_hz, samples):
    """Tone, chirp, white noise, silence, hard-clipped tone `[shape=(5, samples)]`, float32."""
    t = np.arange(samples) / sample_rate_hz
    nyquist_hz = sample_rate_hz / 2
    tone = np.sin(2 * np.pi * 440 * t)
    chirp = 0.7 * np.sin(2 * np.pi * (50 * t + (nyquist_hz - 50) / (2 * t[-1]) * t**2))
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, samples)
    return np.stack([tone, chirp, noise, 0 * t, np.clip(10 * tone, -1, 1)]).astype(np.float32)


def librosa_mel_power(y, config):
    """`mel_power` written with librosa, float64 throughout."""
    y = y.astype(np.float64)
    frame_samples = config.frame_samples or config.n_fft
    if config.padding == "none":  # librosa centres the window in n_fft-long frames; ours starts at the frame's first sample
        before = (config.n_fft - frame_samples) // 2
        y = np.pad(y, [[0, 0], [before, config.n_fft - frame_samples - before]])
    if config.padding == "reflect":
        y = reflected(y, config.n_fft)
    spectrum = librosa.stft(y, n_fft=config.n_fft, hop_length=config.hop_samples, win_length=frame_samples, center=config.padding == "zero")
    return np.swapaxes(librosa_mel(config) @ np.abs(spectrum) ** config.power, 1, 2)


def reflected(y, n_fft):
    """What librosa.stft(center=True, pad_mode="reflect") stands for, to be framed with center=False.

    librosa 0.11 reflects from the tail it cuts off for the last frames, and mirrors one sample wrongly where that tail is as short as the
    padding (4,800 samples, n_fft 400, hop 200): 8e-6 of the last frame's maximum. librosa before 0.10 and torch reflect the whole signal.
    """
    return np.pad(y, [[0, 0]] * (y.ndim - 1) + [[n_fft // 2, n_fft // 2]], mode="reflect")


def librosa_mel(config):
    htk = config.mel == "htk"
    return librosa.filters.mel(
        sr=config.sample_rate_hz, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.f_min_hz, fmax=config.f_max_hz,
        htk=htk, norm=None if htk else "slaney", dtype=np.float64,
    )  # fmt: skip


# --- mel filters --------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mel", ["slaney", "htk"])
@pytest.mark.parametrize("limits_hz", [(0, None), (125, 7500)], ids=str)
@pytest.mark.parametrize("n_mels", [40, 96, 128])
def test_mel_matrix_is_librosas(mel, limits_hz, n_mels):
    config = FrontEnd(n_mels=n_mels, mel=mel, f_min_hz=limits_hz[0], f_max_hz=limits_hz[1])
    np.testing.assert_allclose(mel_matrix(config), librosa_mel(config).T, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("limits_hz", [(0.0, 8000.0), (125.0, 7500.0)], ids=str)
@pytest.mark.parametrize("n_mels", [40, 64, 96])
def test_htk_mel_is_tf_signals(limits_hz, n_mels):
    config = FrontEnd(n_mels=n_mels, mel="htk_mel", f_min_hz=limits_hz[0], f_max_hz=limits_hz[1])
    reference = tf.signal.linear_to_mel_weight_matrix(n_mels, 257, 16_000, *limits_hz, dtype=tf.float64)
    np.testing.assert_allclose(mel_matrix(config), reference, rtol=1e-6, atol=1e-7)


def test_an_empty_band_warns_with_the_count_and_the_remedy():
    config = FrontEnd(n_fft=400, n_mels=128, mel="htk")
    empty = int((librosa_mel(config).max(axis=1) == 0).sum())
    assert empty > 0
    with pytest.warns(UserWarning, match=f"^{empty} of 128 mel bands .* raise n_fft or lower n_mels"):
        mel_matrix(config)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "torchaudio"])  # whose own filters have empty bands
def test_presets_fill_every_band(preset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mel_matrix(PRESETS[preset])


# --- mel power ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("padding", ["zero", "reflect", "none"])
@pytest.mark.parametrize("mel", ["slaney", "htk"])
@pytest.mark.parametrize("n_mels", [40, 96, 128])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"fft{size[0]}-hop{size[1]}-frame{size[2] or size[0]}")
@pytest.mark.parametrize("sample_rate_hz", [8_000, 16_000, 22_050, 44_100])
def test_parity_with_librosa(sample_rate_hz, size, n_mels, mel, padding):
    n_fft, hop_samples, frame_samples = size
    config = FrontEnd(
        sample_rate_hz=sample_rate_hz, window_s=0.3, n_fft=n_fft, hop_samples=hop_samples, frame_samples=frame_samples,
        n_mels=n_mels, mel=mel, padding=padding, log="ln", floor=1e-10,
    )  # fmt: skip
    y = signals(sample_rate_hz, config.window_samples)
    assert_librosas(y, config, "fft")


@pytest.mark.parametrize(("frequency_hz", "limits_hz"), [(40, (300, 8000)), (7900, (0, 6000))], ids=str)
def test_energy_outside_the_bands_leaves_its_rounding_inside(frequency_hz, limits_hz):
    """float32 rounds relative to the SPECTRUM's maximum. Where that lies outside the bands, the mel's own maximum may be far below it, and
    the parity of the tests above, which is relative to the mel's, does not hold (librosa's transform is in float64)."""
    config = FrontEnd(window_s=0.3, n_mels=40, f_min_hz=limits_hz[0], f_max_hz=limits_hz[1])
    time_s = np.arange(config.window_samples) / config.sample_rate_hz
    y = (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)[None]
    spectrum = np.abs(librosa.stft(y.astype(np.float64), n_fft=512, hop_length=256, pad_mode="constant")) ** 2  # (batch, bins, frames)
    expected = np.einsum("mb,nbt->ntm", librosa_mel(config), spectrum)
    np.testing.assert_allclose(mel_power(y, config), expected, rtol=1e-5, atol=1e-10 * spectrum.max())


@pytest.mark.parametrize("size", [*SIZES, (400, 200, None)], ids=lambda size: f"fft{size[0]}-frame{size[2] or size[0]}")
def test_dft_is_librosas_too(size):
    """A sum of n_fft products rounds more than an FFT: measured 1.5e-6 of the frame's maximum, 1.2e-4 in the log."""
    n_fft, hop_samples, frame_samples = size
    config = FrontEnd(window_s=0.3, n_fft=n_fft, hop_samples=hop_samples, frame_samples=frame_samples, n_mels=40, log="ln", floor=1e-10)
    assert_librosas(signals(16_000, config.window_samples), config, "dft", tolerance=2e-6)


def assert_librosas(y, config, transform, tolerance=1e-6):
    """Power within 1e-6 of the frame's maximum (measured 5e-7); natural log within 1e-4 (3e-5) where power exceeds 1e-5 of it."""
    expected = librosa_mel_power(y, config)
    power = mel_power(y, config, transform).numpy()
    assert power.shape == expected.shape
    peak = expected.max(axis=-1, keepdims=True)
    assert np.all(np.abs(power - expected) <= tolerance * peak)
    audible = (expected > 1e-5 * peak) & (expected > config.floor)
    log_mel = LogMel(config, transform)(y).numpy()
    np.testing.assert_allclose(log_mel[audible], np.log(expected[audible]), rtol=0, atol=100 * tolerance)


@pytest.mark.parametrize("power, total", [(2, 3 * 512**2 / 32), (1, 512 / 2)])
@pytest.mark.parametrize("transform", ["fft", "dft"])
def test_total_of_a_tone_on_a_bin(power, total, transform):
    """A periodic Hann window of N samples turns a sine of amplitude 1 on bin k into magnitudes N/4 at k, N/8 at k - 1 and k + 1, else 0.

    HTK triangles overlap to 1 between the first and the last centre, so the bands add up to N^2/16 (1 + 1/4 + 1/4) in power, N/2 in
    magnitude. The symmetric window would leak into every bin.
    """
    config = FrontEnd(n_fft=512, mel="htk", n_mels=40, power=power, padding="none")
    tone = np.sin(2 * np.pi * 64 * np.arange(config.window_samples) / 512)[None]
    bands = mel_power(tone, config, transform).numpy()
    np.testing.assert_allclose(bands.sum(axis=-1), total, rtol=3e-6)


# --- chroma -------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("sample_rate_hz", "n_fft"), [(22_050, 2048), (16_000, 512), (44_100, 4096), (8_000, 401)])
def test_chroma_matrix_is_librosas(sample_rate_hz, n_fft):
    config = FrontEnd(sample_rate_hz=sample_rate_hz, n_fft=n_fft, window_s=1)
    np.testing.assert_allclose(chroma_matrix(config).T, librosa.filters.chroma(sr=sample_rate_hz, n_fft=n_fft, dtype=np.float64), atol=1e-7)


@pytest.mark.parametrize("transform", ["fft", "dft"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_chroma_is_librosas(size, transform):
    """Measured: at most 3e-6 apart, where a frame holds one tone and a class with next to nothing."""
    n_fft, hop_samples, frame_samples = size
    config = FrontEnd(sample_rate_hz=22_050, window_s=0.5, n_fft=n_fft, hop_samples=hop_samples, frame_samples=frame_samples)
    y = signals(22_050, config.window_samples)
    expected = librosa.feature.chroma_stft(
        y=y.astype(np.float64), sr=22_050, n_fft=n_fft, hop_length=hop_samples, win_length=frame_samples, tuning=0
    )  # fmt: skip
    found = chroma(y, config, transform).numpy()
    np.testing.assert_allclose(found, np.swapaxes(expected, 1, 2), rtol=0, atol=1e-5)
    assert (found[3] == 0).all()  # silence
    loud = np.delete(found, 3, axis=0)
    assert loud.min() >= 0 and (loud.max(axis=-1) == 1).all()


def test_notes_are_their_pitch_classes():
    """440 Hz is A, class 9 from C; 261.63 Hz is middle C, class 0; an octave up changes nothing."""
    config = FrontEnd(sample_rate_hz=22_050, window_s=0.5, n_fft=4096, hop_samples=1024)
    time_s = np.arange(config.window_samples) / 22_050
    notes = np.stack([np.sin(2 * np.pi * hz * time_s) for hz in (440, 880, 261.63, 523.25)])
    assert chroma(notes, config).numpy()[:, 3].argmax(axis=-1).tolist() == [9, 9, 0, 0]


# --- several resolutions ------------------------------------------------------------------------------------------------------------------
MULTICHANNEL = FrontEnd(resolutions_ms=(10, 20, 30), frames=101, n_mels=128, log="ln_offset", floor=1e-6)  # S1: (128, 101, 3)


def test_channels_are_the_single_log_mels_on_one_grid_of_times():
    """Hops of 5, 10 and 15 ms and 3 s give 601, 301 and 201 frames; 101 of them are 30 ms apart, every 6th, 3rd and 2nd. Each is the mean
    of the frames around it, weights falling linearly to 0 at the neighbour."""
    y = signals(16_000, 48_000)
    found = LogMel(MULTICHANNEL)(y).numpy()
    assert found.shape == (5, 101, 128, 3)
    for channel, (frame_samples, step) in enumerate([(160, 6), (320, 3), (480, 2)]):
        single = {"frame_samples": frame_samples, "hop_samples": frame_samples // 2}
        log_mel = LogMel(FrontEnd(n_mels=128, log="ln_offset", floor=1e-6, **single))(y).numpy()
        assert log_mel.shape[1] == 100 * step + 1
        for frame in (0, 50, 100):
            near = np.arange(max(frame * step - step, 0), min(frame * step + step, 100 * step) + 1)
            expected = np.average(log_mel[:, near], axis=1, weights=step - np.abs(near - frame * step))
            np.testing.assert_allclose(found[:, frame, :, channel], expected, rtol=0, atol=1e-5)


def test_the_reports_window_is_its_hop_and_keeps_its_frames():
    config = FrontEnd(resolutions_ms=(10, 20, 30), overlap=0, frames=101, n_mels=40)
    y = signals(16_000, 48_000)
    original = LogMel(FrontEnd(frame_samples=480, hop_samples=480, n_mels=40))(y)
    np.testing.assert_allclose(LogMel(config)(y)[..., 2], original, rtol=0, atol=1e-5)


def test_a_click_on_a_frame_edge_is_lost_with_the_reports_window_only():
    """Frames of 480 samples are centred on multiples of their hop. At hop 480 sample 24,240 is the first of one frame, where Hann is 0, and
    beyond the end of the other; at hop 240 it is the centre of a frame."""
    click = np.zeros((1, 48_000), np.float32)
    click[:, 24_240] = 1
    settings = dict(resolutions_ms=(30,), frames=101, n_mels=40, log="ln_offset", floor=1e-6)
    rise = [np.ptp(LogMel(FrontEnd(overlap=overlap, **settings))(click)) for overlap in (0, 0.5)]
    assert rise[0] < 1e-3 and rise[1] > 1


@pytest.mark.parametrize("padding", ["zero", "reflect", "none"])
@pytest.mark.parametrize("overlap", [0.5, 0.3])
def test_a_click_stands_at_one_time_in_all_channels(padding, overlap):
    """`none` grids run from 15 ms to 15 ms before the end, centred ones from end to end: the middle one of 101 frames is at 1.5 s in both."""
    click = np.zeros((1, 48_000), np.float32)
    click[:, 24_000] = 1
    log_mel = LogMel(FrontEnd(resolutions_ms=(10, 20, 30), frames=101, overlap=overlap, padding=padding, n_mels=40))(click).numpy()
    energy = log_mel[0].mean(axis=1) - log_mel[0].min()  # (frames, channels)
    centre = (energy * np.arange(101)[:, None]).sum(axis=0) / energy.sum(axis=0)
    np.testing.assert_allclose(centre, 50, atol=0.35)  # half a frame of the coarsest hop, 21 of 30 ms


@pytest.mark.parametrize("frames", [2, 40, 101, 1000])
@pytest.mark.parametrize("padding", ["zero", "none"])
@pytest.mark.parametrize("samples", [480, 4001, 48_000])
def test_resizing_keeps_what_is_constant(frames, padding, samples):
    config = FrontEnd(window_s=0.03, resolutions_ms=(10, 20, 27, 30), overlap=0, frames=frames, padding=padding)
    for matrix in resizing_matrices(config, samples):
        assert matrix.min() >= 0
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)


def test_resolutions_need_a_known_number_of_samples():
    layer = LogMel(MULTICHANNEL)
    assert layer.compute_output_shape((None, 48_000)) == (None, 101, 128, 3)
    assert layer(keras.Input((48_000,))).shape == (None, 101, 128, 3)
    with pytest.raises(ValueError, match="waveform must have a known number of samples"):
        layer(keras.Input((None,)))


def test_every_channel_is_normalised_by_itself():
    features = LogMel(MULTICHANNEL.model_copy(update={"normalise": "window"}))(signals(16_000, 48_000)).numpy()
    mean = features.mean(axis=(1, 2))
    np.testing.assert_allclose(np.delete(mean, 3, axis=0), np.zeros((4, 3)), atol=1e-4)
    np.testing.assert_allclose(mean[3], np.zeros(3), atol=0.05)  # silence: 1e-5 in the mean of -13.8, divided by the least deviation of .001
    np.testing.assert_allclose(features.std(axis=(1, 2)), np.outer([1, 1, 1, 0, 1], np.ones(3)), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"frames": None}, "frames must be set beside resolutions_ms, got none"),
        ({"resolutions_ms": ()}, "frames belongs to resolutions_ms and must be left out without it, got 101"),
        ({"resolutions_ms": (), "frames": None, "overlap": 0.2}, "overlap belongs to resolutions_ms .* got 0.2"),
        ({"hop_samples": 128}, "resolutions_ms stands in place of hop_samples, which must be left out beside it, got 128"),
        ({"frame_samples": 400}, "resolutions_ms stands in place of frame_samples, which must be left out beside it, got 400"),
        ({"resolutions_ms": (10, 40)}, "resolutions_ms must be frames of 2 to n_fft = 512 samples, got 40 ms = 640 samples at 16000 Hz"),
        ({"resolutions_ms": (0.05,)}, "got 0.05 ms = 1 samples"),
        ({"window_s": 0.02}, "window_s must hold one frame of 480 samples, got 0.02 s"),
        ({"resolutions_ms": (10, -1)}, "greater than 0"),
        ({"overlap": 1.0}, "less than 1"),
        ({"frames": 1}, "greater than 1"),
    ],
    ids=str,
)
def test_resolutions_that_cannot_be_are_refused(changes, complaint):
    with pytest.raises(pydantic.ValidationError, match=complaint):
        FrontEnd(**MULTICHANNEL.model_dump() | changes)


def test_resolutions_survive_json_and_older_settings_load():
    layer = LogMel(MULTICHANNEL, name="features")
    assert LogMel.from_config(json.loads(json.dumps(layer.get_config()))).frontend == MULTICHANNEL
    older = {name: value for name, value in FrontEnd().model_dump().items() if name not in ("resolutions_ms", "overlap", "frames")}
    assert LogMel(older).frontend == FrontEnd()


def test_an_empty_band_of_resolutions_warns():
    with pytest.warns(UserWarning, match="^13 of 128 mel bands"):
        LogMel(FrontEnd(resolutions_ms=(10,), frames=101, n_fft=256, n_mels=128))


# --- presets against their originals ------------------------------------------------------------------------------------------------------
def musicnn(y):
    """musicnn/extractor.py under the librosa of its day (0.7: reflection), without its float16."""
    mel = librosa.feature.melspectrogram(y=reflected(y, 512), sr=16_000, hop_length=256, n_fft=512, n_mels=96, center=False).T
    return np.log10(10_000 * mel + 1)


def musicnn_patch(y):
    """187 of the 189 centred frames: those without padding."""
    return musicnn(y)[1:-1]


def panns(y):
    """pytorch/models.py and inference.py of audioset_tagging_cnn, its torchlibrosa layers as the librosa calls that they reproduce."""
    mel = librosa.feature.melspectrogram(
        y=reflected(y, 1024), sr=32_000, n_fft=1024, hop_length=320, center=False, n_mels=64, fmin=50, fmax=14_000
    )  # fmt: skip
    return librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T


def yamnet(y):
    """research/audioset/yamnet/features.py of tensorflow/models, with the numbers of params.py."""
    magnitude = tf.abs(tf.signal.stft(y, frame_length=400, frame_step=160, fft_length=512))
    weights = tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000.0, 125.0, 7500.0, dtype=magnitude.dtype)
    return tf.math.log(tf.matmul(magnitude, weights) + 0.001).numpy()


def torchaudio(y):
    """Defaults of torchaudio.transforms.MelSpectrogram, AmplitudeToDB: reflection, HTK without norm, top_db=None."""
    mel = librosa.feature.melspectrogram(
        y=reflected(y, 400), sr=16_000, n_fft=400, hop_length=200, center=False, n_mels=128, htk=True, norm=None
    )  # fmt: skip
    return librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T


def librosas_defaults(y):
    return librosa.power_to_db(librosa.feature.melspectrogram(y=y), top_db=None).T


ORIGINALS = {
    "librosa": librosas_defaults,
    "torchaudio": torchaudio,
    "musicnn": musicnn,
    "musicnn_patch": musicnn_patch,
    "panns": panns,
    "yamnet": yamnet,
}


def test_every_preset_has_its_original_here():
    assert ORIGINALS.keys() == PRESETS.keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_equals_its_original(preset):
    config = PRESETS[preset]
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, config.window_samples)
    y = noise * np.linspace(0, 1, config.window_samples) ** 4  # from silence to loud: the floor counts too
    expected = ORIGINALS[preset](y)
    np.testing.assert_allclose(LogMel(config)(y[None])[0], expected, rtol=0, atol=1e-4)


# --- one layer, every container -----------------------------------------------------------------------------------------------------------
CONTAINED = {
    "musicnn-fft": (PRESETS["musicnn"], "fft"),
    "yamnet-fft": (PRESETS["yamnet"], "fft"),
    "normalised-fft": (FrontEnd(window_s=1, n_fft=1024, frame_samples=800, hop_samples=320, n_mels=40, normalise="window"), "fft"),
    "400-dft": (FrontEnd(window_s=1, n_fft=400, hop_samples=200, n_mels=40), "dft"),
    "resolutions-fft": (FrontEnd(window_s=0.5, resolutions_ms=(10, 30), frames=17, n_mels=40, normalise="window"), "fft"),
    "resolutions-dft": (FrontEnd(window_s=0.5, resolutions_ms=(20, 30), frames=17, n_fft=500, n_mels=40, log="ln_offset"), "dft"),
    "chroma-fft": (FrontEnd(window_s=0.5, n_fft=2048, features=("chroma",)), "fft"),
    "tempogram-dft": (FrontEnd(window_s=2.1, n_fft=400, hop_samples=200, n_mels=40, features=("tempogram",)), "dft"),
    "all-fft": (FrontEnd(window_s=2.1, n_mels=40, features=("log_mel", "chroma", "onset", "tempogram"), normalise="window"), "fft"),
}


@pytest.mark.parametrize("name", CONTAINED)
def test_the_same_features_everywhere(name, tmp_path):
    """Eager, tf.data, .keras, SavedModel and a TFLite file of builtins in one subgraph.

    Measured on white noise: at most 5e-7 apart up to the SavedModel, 9e-6 dB in TFLite.
    """
    config, transform = CONTAINED[name]
    samples = config.window_samples
    y = np.random.default_rng(2).uniform(-0.5, 0.5, (2, samples)).astype(np.float32)  # tones would leave bins of rounding errors alone
    layer = LogMel(config, transform)
    expected = layer(y).numpy()
    waveform = keras.Input((samples,))
    model = keras.Model(waveform, layer(waveform))
    agree = dict(rtol=0, atol=2e-5)

    mapped = tf.data.Dataset.from_tensor_slices(y).batch(2).map(layer)
    assert mapped.element_spec.shape[1:] == expected.shape[1:]
    np.testing.assert_allclose(next(iter(mapped)), expected, **agree)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.weights
    np.testing.assert_allclose(loaded(y), expected, **agree)

    model.export(tmp_path / "saved_model", input_signature=[tf.TensorSpec((1, samples), tf.float32)], verbose=False)
    served = tf.saved_model.load(tmp_path / "saved_model").serve
    file = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved_model")).convert()
    parsed = schema.Model.GetRootAsModel(file, 0)
    assert parsed.SubgraphsLength() == 1
    operators = {parsed.OperatorCodes(i).BuiltinCode() for i in range(parsed.OperatorCodesLength())}
    assert schema.BuiltinOperator.CUSTOM not in operators  # Flex operators are custom ones too
    interpreter = Interpreter(model_content=bytes(file))
    interpreter.allocate_tensors()
    for row, features in zip(y, expected, strict=True):
        np.testing.assert_allclose(served(row[None])[0], features, **agree)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        lite = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(lite[0], features, **agree)


def test_config_round_trip_through_json():
    layer = LogMel(FrontEnd(n_mels=40, log="ln", normalise="window"), transform="dft", name="features")
    config = json.loads(json.dumps(layer.get_config()))
    copy = LogMel.from_config(config)
    assert copy.get_config() == layer.get_config()
    assert (copy.frontend, copy.transform, copy.name) == (layer.frontend, "dft", "features")
    y = signals(16_000, 48_000)
    np.testing.assert_array_equal(copy(y), layer(y))


def test_unknown_transform():
    with pytest.raises(ValueError, match="transform must be one of .*, got 'dct'"):
        LogMel(FrontEnd(), transform="dct")


# --- shapes -------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("samples", [47_999, 48_000, 48_128])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("padding", ["zero", "reflect", "none"])
def test_shapes_before_and_after(samples, size, padding):
    """Centred: 1 + samples // hop frames. Otherwise as many as fit: 1 + (samples - frame) // hop."""
    n_fft, hop_samples, frame_samples = size
    layer = LogMel(FrontEnd(n_fft=n_fft, hop_samples=hop_samples, frame_samples=frame_samples, padding=padding))
    frames = 1 + (samples - (0 if padding != "none" else frame_samples or n_fft)) // hop_samples
    assert layer(keras.Input((samples,))).shape == (None, frames, 96)
    assert layer(np.zeros((2, samples), np.float32)).shape == (2, frames, 96)


def test_unknown_sample_count():
    layer = LogMel(FrontEnd())
    waveform = keras.Input((None,))
    model = keras.Model(waveform, layer(waveform))
    assert model.output_shape == (None, None, 96)
    for samples in (48_000, 16_000):
        y = signals(16_000, samples)
        np.testing.assert_allclose(model.predict(y, verbose=0), layer(y), rtol=0, atol=2e-5)


# --- edges --------------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("log, normalise", list(itertools.product(["db", "ln", "ln_offset", "log10_gain"], ["none", "window"])))
def test_float32_under_mixed_float16(mixed_float16, log, normalise):
    """Silence, a full-scale square and DC: a floor of 1e-10 is 0 in float16, and the square's power of up to 2e4 times 1e10 infinite."""
    config = FrontEnd(window_s=0.5, log=log, floor=1e-10, normalise=normalise)
    samples = config.window_samples
    square = np.where(np.arange(samples) // 20 % 2, -1.0, 1.0)
    y = np.stack([np.zeros(samples), square, np.ones(samples)]).astype(np.float32)
    layer = LogMel(config)
    features = layer(y)
    assert layer.compute_dtype == "float32" and features.dtype == tf.float32
    assert layer(keras.Input((samples,))).dtype == "float32"
    assert np.isfinite(features).all()
    keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(features, LogMel(config)(y))


@pytest.mark.parametrize("log, silence", [("db", -70), ("ln", np.log(1e-7)), ("ln_offset", np.log(1e-7)), ("log10_gain", 0)])
def test_silence_is_the_floor(log, silence):
    """10 log10 1e-7 = -70 dB, ln 1e-7 = -16.1, and log10(1 + 0) = 0."""
    features = LogMel(FrontEnd(log=log))(np.zeros((1, 48_000), np.float32))
    np.testing.assert_allclose(features, np.full((1, 188, 96), silence), rtol=1e-6)


def test_window_normalisation():
    """Mean 0 and deviation 1 of each example, silence 0, whatever the gain: a factor of 1/10 shifts every decibel by 20."""
    layer = LogMel(FrontEnd(normalise="window", floor=1e-10))
    noise = signals(16_000, 48_000)[2]
    features = layer(np.stack([noise, noise / 10, 0 * noise])).numpy()
    np.testing.assert_allclose(features.mean(axis=(1, 2)), [0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(features.std(axis=(1, 2)), [1, 1, 0], atol=1e-4)
    np.testing.assert_allclose(features[0], features[1], atol=1e-4)


@pytest.mark.parametrize("normalise", ["none", "window"])
def test_an_example_does_not_depend_on_its_neighbours(normalise):
    layer = LogMel(FrontEnd(normalise=normalise))
    quiet = 1e-3 * signals(16_000, 48_000)[2:3]
    loud = np.repeat(signals(16_000, 48_000)[4:5], 7, axis=0)
    np.testing.assert_allclose(layer(np.concatenate([quiet, loud]))[:1], layer(quiet), rtol=0, atol=2e-5)
