"""The bundle and its client: equal scores everywhere, builtins only, no TensorFlow in predict, and one line for what does not fit."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from ai_edge_litert import schema_py_generated as flatbuffer
from ai_edge_litert.interpreter import Interpreter

from export import bundle as bundling
from export.predict import Predictor
from tests.conftest import EXPERIMENT, RATE_HZ, ROOT, tone
from tfmusic import evaluate, models
from tfmusic.config import InputError, Net
from tfmusic.frontend import LogMel


@pytest.fixture(scope="module")
def bundled(trained, tmp_path_factory):
    """The run's bundle, and what its model was converted to."""
    contents, convert = {}, bundling._lite_files
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundling, "_lite_files", lambda subject: contents.update(convert(subject)) or contents)
        return bundling.bundle(trained, tmp_path_factory.mktemp("bundles") / "bundle"), contents


@pytest.fixture(scope="module")
def bundle(bundled):
    return bundled[0]


@pytest.fixture
def converted(bundled, monkeypatch):
    """The next bundles of the run have the same files, not converted again."""
    monkeypatch.setattr(bundling, "_lite_files", lambda subject: bundled[1])


@pytest.fixture
def song(tmp_path):
    soundfile.write(tmp_path / "song.wav", np.stack([tone(2000, 1.9, 44_100)] * 2, axis=1), 44_100)
    return tmp_path / "song.wav"


def predict(*arguments):
    return subprocess.run([sys.executable, "-m", "export", "predict", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


# --- the files ------------------------------------------------------------------------------------------------------------------------------
def test_every_file_scores_as_keras_does(bundle, trained):
    windows = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 4000)).astype("float32")
    expected = evaluate.scorer(evaluate.load_best(trained))(windows)
    assert {name: values.shape for name, values in expected.items()} == {"tags": (4, 4), "embedding": (4, 8)}
    saved = tf.saved_model.load(str(bundle / "saved_model"))
    for found, tolerance in (
        (saved.serve(windows), 1e-5),
        (Predictor(bundle).score(windows), 1e-4),
        (Predictor(bundle, "float16").score(windows), 5e-3),
    ):
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=tolerance)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_file_is_one_static_graph_of_builtins(bundle, precision):
    graph = flatbuffer.ModelT.InitFromPackedBuf((bundle / f"model_{precision}.tflite").read_bytes(), 0)
    assert len(graph.subgraphs) == 1 and not any(code.customCode for code in graph.operatorCodes)
    (index,) = graph.subgraphs[0].inputs
    tensor = graph.subgraphs[0].tensors[index]
    assert list(tensor.shape) == [1, 4000] and tensor.shapeSignature is None


def test_an_fft_size_that_tflite_lacks_is_exported_as_a_matrix_product(tmp_path):
    """400 is no power of two: the same front end's other transform loads, and scores as Keras does."""
    frontend = EXPERIMENT.frontend.model_copy(update={"n_fft": 400})
    model = models.deploy(LogMel(frontend), models.build(Net(name="cnn2d", width=0.125), (32, 16), 5), "sigmoid")
    interpreter = Interpreter(model_content=bundling.to_tflite(model))
    interpreter.allocate_tensors()
    window = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 4000)).astype("float32")
    found = interpreter.get_signature_runner("serving_default")(waveform=window)
    for name, values in evaluate.scorer(model)(window).items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


def test_the_embedding_of_nothing_is_zero_in_every_file():
    """A net whose last units are all silent, as ReLUs of a small net are on silence: LiteRT made nan of Keras' own normalisation."""
    net = models.build(Net(name="cnn2d", width=0.125), (32, 16), 5)
    for layer in net.layers:
        if layer.name.startswith("norm"):
            gamma, beta, *moving = layer.get_weights()
            layer.set_weights([0 * gamma, beta - 1, *moving])
    model = models.deploy(LogMel(EXPERIMENT.frontend), net, "sigmoid")
    interpreter = Interpreter(model_content=bundling.to_tflite(model))
    interpreter.allocate_tensors()
    window = np.zeros((1, 4000), "float32")
    assert not np.any(interpreter.get_signature_runner("serving_default")(waveform=window)["embedding"])
    assert not np.any(evaluate.scorer(model)(window)["embedding"])


def test_float16_halves_a_net_but_leaves_the_front_end_in_float32(tmp_path):
    """On a net large enough that its weights dominate; the mel filters and the window stay what they were."""
    net = models.build(Net(name="cnn2d"), (32, 16), 5)
    model = models.deploy(LogMel(EXPERIMENT.frontend), net, "sigmoid")
    whole = bundling.to_tflite(model)
    half = bundling.to_float16(whole, model)
    assert len(half) < 0.6 * len(whole)
    assert mel_bytes(half) == mel_bytes(whole) > 0


def mel_bytes(content):
    """Size of the float32 constants with (bins, mels) = (129, 16) elements; a buffer lies inside the flatbuffer or behind it."""
    graph = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    tensors = [tensor for tensor in graph.subgraphs[0].tensors if tensor.type == flatbuffer.TensorType.FLOAT32]
    filters = [graph.buffers[tensor.buffer] for tensor in tensors if sorted(tensor.shape if tensor.shape is not None else []) == [16, 129]]
    return sum(len(buffer.data) if buffer.data is not None else buffer.size for buffer in filters)


def test_the_card_and_model_json_say_what_a_client_must_know(bundle):
    info = json.loads((bundle / "model.json").read_text())
    assert (info["sample_rate_hz"], info["window_samples"], info["hop_s"], info["short"]) == (RATE_HZ, 4000, 0.25, "pad")
    card = (bundle / "card.md").read_text()
    assert "model_float16.tflite" in card and "8000 Hz" in card
    assert (bundle / "labels.txt").read_text() == "high\nlow\nnoisy\nrare\n"


def spoilt(monkeypatch, precision, spoil, output="tags"):
    """Makes the file of one precision put out something else."""
    score, create = Predictor.score, Predictor.__init__

    def spoilt_score(self, windows):
        outputs = score(self, windows)
        return outputs | {output: spoil(outputs[output])} if self.which == precision else outputs

    monkeypatch.setattr(Predictor, "__init__", lambda self, bundle, which: setattr(self, "which", which) or create(self, bundle, which))
    monkeypatch.setattr(Predictor, "score", spoilt_score)


@pytest.mark.parametrize(
    ("precision", "output", "spoil"),
    [
        ("float32", "tags", lambda scores: scores * np.nan),
        ("float16", "tags", lambda scores: 1 - scores),
        ("float32", "embedding", lambda scores: scores + 0.01),
    ],
    ids=["nan", "reversed in float16", "embedding"],
)
def test_a_file_that_scores_otherwise_is_refused_and_leaves_nothing(trained, converted, tmp_path, monkeypatch, precision, output, spoil):
    spoilt(monkeypatch, precision, spoil, output)
    with pytest.raises(InputError, match=f"model_{precision}.tflite must score within"):
        bundling.bundle(trained, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_one_wrong_track_is_enough_to_refuse_and_a_last_digit_is_not(trained, converted, tmp_path, monkeypatch):
    """A batch of five is the probes; in any other only the first window goes wrong. 1e-7 may swap ranks and is nothing."""
    first = np.eye(1000, 1)
    with monkeypatch.context() as patched, pytest.raises(InputError, match="model_float32.tflite must score within"):
        spoilt(patched, "float32", lambda scores: scores + 0.1 * first[: len(scores)] * (len(scores) != 5))
        bundling.bundle(trained, tmp_path / "bundle")
    spoilt(monkeypatch, "float32", lambda scores: scores + np.random.default_rng(0).uniform(-1e-7, 1e-7, scores.shape))
    assert bundling.bundle(trained, tmp_path / "bundle").is_dir()


def test_a_float16_file_without_float16_is_refused(trained):
    """The converter's operator names carry the net's; were they to change, nothing would be cast."""
    model = evaluate.load_best(trained)
    content = bundling.to_tflite(model).replace(b"/cnn2d", b"/other")
    with pytest.raises(InputError, match="no weight of cnn2d was cast"):
        bundling.to_float16(content, model)


def test_bundle_refuses_a_directory_in_use_and_a_directory_that_is_no_run(bundle, trained, tmp_path):
    with pytest.raises(InputError, match="must not exist"):
        bundling.bundle(trained, bundle)
    with pytest.raises(InputError, match="must be a run directory"):
        bundling.bundle(tmp_path)


# --- predict --------------------------------------------------------------------------------------------------------------------------------
def test_predict_runs_without_tensorflow(bundle, song):
    code = (
        "import sys, runpy; sys.argv = ['export', 'predict', *sys.argv[1:]]; runpy.run_module('export', run_name='__main__')\n"
        "loaded = {'tensorflow', 'keras', 'librosa', 'matplotlib'} & set(sys.modules)\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle), str(song)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(song)) and "high" in done.stdout


def test_a_file_scores_as_its_record_does(bundle, trained, collection, records):
    """Prediction and evaluation decode, cut and average alike."""
    from tfmusic import data, schema

    manifest, score = schema.read_manifest(records), evaluate.scorer(evaluate.load_best(trained))
    scored = evaluate.score_tracks(score, data.tracks(records, manifest, "test"), EXPERIMENT.frontend, EXPERIMENT.evaluation)
    predictor = Predictor(bundle)
    for name, expected in zip(scored.ids, scored.outputs["tags"], strict=True):
        np.testing.assert_allclose(predictor.file(collection / name).scores.mean(axis=0), expected, atol=1e-4)


def test_json_is_one_document_highest_first(bundle, song):
    done = predict(bundle, song, song, "--json")
    document = json.loads(done.stdout)
    assert [entry["file"] for entry in document] == [str(song)] * 2
    assert document[0]["duration_s"] == 1.9
    scores = [tag["score"] for tag in document[0]["tags"]]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)


def test_over_time_has_a_row_for_every_window(bundle, song):
    """1.9 s, windows of .5 s every .25 s: starts 0, .25, ..., 1.25 and the last one at 1.4."""
    rows = list(csv.DictReader(io.StringIO(predict(bundle, song, "--over-time").stdout)))
    assert [float(row["start_s"]) for row in rows] == [0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.4]
    document = json.loads(predict(bundle, song, "--over-time", "--json").stdout)
    np.testing.assert_allclose([window["scores"]["high"] for window in document[0]["windows"]], [float(row["high"]) for row in rows])


def test_a_waveform_of_any_rate_and_type_scores_as_its_file(bundle, song):
    predictor = Predictor(bundle)
    waveform, rate_hz = soundfile.read(song)
    integers, _ = soundfile.read(song, dtype="int16")
    expected = predictor.file(song).ranked()
    for given in (waveform, waveform.astype("float32"), integers):
        found = predictor(given, rate_hz)
        assert list(found) == list(expected)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-4)


def test_an_embedding_of_a_waveform_is_that_of_its_file_and_as_long_as_one(bundle, song):
    predictor = Predictor(bundle)
    waveform, rate_hz = soundfile.read(song)
    vector = predictor.embedding(song)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-6)
    np.testing.assert_allclose(predictor.embed(waveform, rate_hz), vector, atol=1e-4)


def test_silence_and_a_short_file_have_finite_scores(bundle, tmp_path):
    for seconds in (3.0, 0.2):
        soundfile.write(tmp_path / "silence.wav", np.zeros(round(seconds * RATE_HZ)), RATE_HZ)
        assert np.isfinite(Predictor(bundle).file(tmp_path / "silence.wav").scores).all()


def test_a_broken_file_costs_one_line_and_the_exit_code_and_the_rest_is_scored(bundle, song, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "junk.mp3").write_bytes(np.random.default_rng(0).bytes(3000))  # libmpg123 has a lot to say about it
    done = predict(bundle, tmp_path / "text.wav", song, tmp_path / "gone.mp3", tmp_path / "junk.mp3")
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error"] * 3
    assert "song.wav" in done.stdout


def test_a_name_that_is_not_utf8_is_scored_and_printed(bundle, song, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    shutil.copy(song, odd)
    done = predict(bundle, os.fsdecode(odd), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)[0]["file"].endswith(r"caf\xe9.wav")


def test_top_is_a_count(bundle, song):
    assert predict(bundle, song, "--top", "0").stderr == "error: --top must be > 0, got 0\n"
    assert len(predict(bundle, song, "--top", "2").stdout.splitlines()) == 3


def test_no_files_is_an_error(bundle):
    done = predict(bundle)
    assert done.returncode == 1 and done.stderr == "error: predict needs at least one audio file after the bundle\n"


def spoil(name):
    def damage(directory):
        (directory / name).unlink()

    return damage


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (spoil("labels.txt"), "labels.txt must be a text file"),
        (spoil("model.json"), "must be a bundle with model.json"),
        (spoil("model_float32.tflite"), "must be a readable .tflite"),
        (lambda directory: (directory / "labels.txt").write_text("other\n"), "labels.txt must have the sha1"),
        (lambda directory: (directory / "model_float32.tflite").write_bytes(b"no model"), "must be a readable .tflite"),
    ],
)
def test_a_spoilt_bundle_is_one_line(bundle, song, tmp_path, damage, complaint):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    damage(copy)
    done = predict(copy, song)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and complaint in line
