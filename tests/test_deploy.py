"""Bundles of other models than a net on a log-mel that a run trained: sequences of features, frozen nets among the front ends, published weights."""

import importlib.util
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as flatbuffer
from ai_edge_litert.interpreter import Interpreter

from export import bundle as bundling
from export import similar
from export.predict import Predictor
from records.build import build
from records.datasets.clip import Source
from tests.conftest import EXPERIMENT, LAYOUT, ROOT, SEQUENCE_PARTS, tone
from tests.test_export import predict
from tfmusic import evaluate, models, pretrained, report, run, training
from tfmusic.config import Experiment, Features, InputError, Net

SETTINGS = Features(kind="log_mel", n_fft=256, hop_samples=128, n_mels=16)


def experiment(**changes):
    """The suite's small experiment with another front end or net, two epochs of it."""
    fit = EXPERIMENT.fit.model_dump() | {"epochs": 2}
    return Experiment.model_validate(EXPERIMENT.model_dump() | {"fit": fit} | changes)


# --- sequences of features ----------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def of_sequences(collection, tmp_path_factory):
    """A run of an LSTM on log-mel sequences, and its bundle."""
    directory = tmp_path_factory.mktemp("sequences")
    layout = LAYOUT.model_copy(update={"payload": "features", "features": SETTINGS})
    build(Source(dataset="csv", csv=collection / "clips.csv", audio=collection), directory / "records", layout)
    settings = experiment(sequences=SETTINGS.model_dump(), net={"name": "lstm", "width": 0.125}, **SEQUENCE_PARTS)
    out = training.fit(settings, directory / "records", directory / "run")
    return out, bundling.bundle(out)


def test_a_net_of_sequences_ships_features_in(of_sequences):
    """Sequences of 7 and 30 frames: padded to one batch or each alone, the SavedModel says what Keras says."""
    import tensorflow as tf

    directory, out = of_sequences
    assert not list(out.glob("*.tflite")) and (out / run.METRICS).is_file()
    saved, model = tf.saved_model.load(str(out / "saved_model")), evaluate.load_best(directory)
    short, long = (np.random.default_rng(0).normal(-40, 10, (1, frames, 16)).astype("float32") for frames in (7, 30))
    padded = np.concatenate([np.pad(short, [(0, 0), (0, 23), (0, 0)]), long])
    expected = model(padded)
    for name, values in saved.serve(padded).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)
        np.testing.assert_allclose(saved.serve(short)[name][0], values[0], atol=1e-5)


def test_the_card_and_model_json_of_sequences_say_so(of_sequences):
    _, out = of_sequences
    info = json.loads((out / "model.json").read_text())
    assert (info["features"], info["feature_dims"], info["window_samples"], info["files"]) == ("log_mel", 16, 0, {})
    card = (out / "card.md").read_text()
    assert "features of the kind log_mel" in card and "takes no audio" in card and "MediaPipe" not in card


def test_predict_and_similar_refuse_features_in_one_line(of_sequences, collection, tmp_path):
    _, out = of_sequences
    done = predict(out, collection / "test" / "47.flac")
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "reads features (log_mel)" in line
    with pytest.raises(InputError, match="reads features .log_mel."):
        similar.build(out, collection, tmp_path / "index")


def test_a_run_of_sequences_has_a_report(of_sequences):
    directory, _ = of_sequences
    assert "ROC-AUC" in report.write(directory)


# --- a frozen net among the front ends ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=[pytest.param("mlp", marks=pytest.mark.slow), "cnn2d"])
def on_frozen(request, trained, records, tmp_path_factory):
    """A run on a frozen tagger's vector alone, or beside the log-mel; and its bundle."""
    frontend = EXPERIMENT.frontend.model_dump(include={"sample_rate_hz", "window_s"} if request.param == "mlp" else None)
    settings = experiment(frozen=str(trained), frontend=frontend, net={"name": request.param, "width": 0.125})
    out = training.fit(settings, records, tmp_path_factory.mktemp("frozen") / "run")
    return out, bundling.bundle(out)


def test_a_frozen_net_ships_inside_the_files(on_frozen, trained):
    """One graph of builtins that takes a waveform; the frozen weights are still the tagger's."""
    directory, out = on_frozen
    windows = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 4000)).astype("float32")
    model = evaluate.load_best(directory)
    expected = evaluate.scorer(model)(windows)
    for precision, tolerance in (("float32", 1e-4), ("float16", 5e-3)):
        graph = flatbuffer.ModelT.InitFromPackedBuf((out / f"model_{precision}.tflite").read_bytes(), 0)
        assert len(graph.subgraphs) == 1 and not any(code.customCode for code in graph.operatorCodes)
        for name, values in Predictor(out, precision).score(windows).items():
            np.testing.assert_allclose(values, expected[name], atol=tolerance)
    vector = models.vector_of(evaluate.load_best(trained))(windows)
    frontend, _, _ = models.parts(model)
    found = frontend(windows)
    np.testing.assert_allclose(found["vector"] if isinstance(found, dict) else found, vector, atol=1e-5)


def test_a_frozen_net_that_was_trained_anew_is_not_the_one_that_the_run_began_with(on_frozen, trained, tmp_path):
    directory = shutil.copytree(on_frozen[0], tmp_path / "run")
    moved = shutil.copytree(trained, tmp_path / "frozen")
    path = directory / run.EXPERIMENT
    path.write_text(path.read_text().replace(str(trained), str(moved)))
    training.resume(directory)
    (moved / run.BEST).write_bytes((moved / run.BEST).read_bytes() + b"another")
    with pytest.raises(InputError, match=f"--frozen {moved} was trained anew and is not the net that .* began with"):
        training.resume(directory)


def test_a_frozen_nets_weights_are_halved_too(on_frozen):
    """Every convolution and dense layer of both nets reads float16: as many such constants as float32 kernels were."""
    _, out = on_frozen
    graph = flatbuffer.ModelT.InitFromPackedBuf((out / "model_float16.tflite").read_bytes(), 0).subgraphs[0]
    halves = [tensor.name.decode() for tensor in graph.tensors if tensor.type == flatbuffer.TensorType.FLOAT16]
    assert any("/frozen" in name for name in halves) and any("/frozen" not in name for name in halves)


@pytest.mark.parametrize("alone", [True, False])
def test_an_fft_size_that_tflite_lacks_is_replaced_inside_the_frozen_net_too(alone):
    """400 in both front ends: RFFT2D is in none of the operators, and the model that Keras has still uses it afterwards."""
    frontend = EXPERIMENT.frontend.model_copy(update={"n_fft": 400})
    frozen = models.vector_of(models.deploy(models.LogMel(frontend), models.build(Net(name="cnn2d", width=0.125), (32, 16), 5), "sigmoid"))
    before = models.front_end(frontend, frozen, alone=alone)
    shape = keras.tree.map_structure(lambda tensor: tensor.shape[1:], before.output)
    model = models.deploy(before, models.build(Net(name="mlp" if alone else "cnn2d", width=0.125), shape, 4), "sigmoid")
    content = bundling.to_tflite(model)
    codes = {code.builtinCode for code in flatbuffer.ModelT.InitFromPackedBuf(content, 0).operatorCodes}
    assert flatbuffer.BuiltinOperator.RFFT2D not in codes
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    window = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 4000)).astype("float32")
    found = interpreter.get_signature_runner("serving_default")(waveform=window)
    for name, values in evaluate.scorer(model)(window).items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)
    assert {layer.transform for layer in models.leaves(model) if isinstance(layer, models.LogMel)} == {"fft"}


# --- published weights --------------------------------------------------------------------------------------------------------------------
def export(*arguments):
    return subprocess.run([sys.executable, "-m", "export", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run", "--pretrained", "mtt_vgg"), "bundle takes either a run or --pretrained, got both"),
        ((), "bundle takes either a run or --pretrained, got neither"),
        (("run", "--weights", "folder"), "--weights are for --pretrained, got folder without it"),
    ],
)
def test_a_bundle_is_of_a_run_or_of_published_weights(arguments, complaint):
    done = export("bundle", *arguments)
    assert done.returncode == 1 and done.stderr == f"error: {complaint}\n"


def test_weights_that_are_not_there_are_one_line_and_leave_nothing(tmp_path):
    with pytest.raises(InputError, match="must hold a checkpoint of musicnn 0.1.0"):
        bundling.bundle_pretrained("mtt_vgg", tmp_path / "none", tmp_path / "bundle")
    with pytest.raises(InputError, match="name must be one of mtt_musicnn, .*, got mtt"):
        bundling.bundle_pretrained("mtt", None, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_the_bundle_of_published_weights_says_whose_they_are_and_claims_no_score(tmp_path, monkeypatch):
    """A small net in the place of theirs, their front end and labels. Linear: what fresh convolutions make of faint noise is next to 0 and mostly
    rounding, which an embedding of unit length makes large."""
    published = pretrained.PRETRAINED["msd_vgg"]
    keras.utils.set_random_seed(0)
    net = models.build(Net(name="linear"), (187, 96), 50)
    monkeypatch.setattr(pretrained, "deployed", lambda name, weights: models.deploy(models.LogMel(published.frontend), net, "sigmoid"))
    out = bundling.bundle_pretrained("msd_vgg", None, tmp_path / "bundle")
    card, info = (out / "card.md").read_text(), json.loads((out / "model.json").read_text())
    assert (
        "Jordi Pons" in card
        and "ISC" in card
        and published.published in card
        and "Nothing of that was measured here" in card
        and "| test " not in card
    )
    assert (info["hop_s"], info["pool"], info["short"], info["window_samples"]) == (2.992, "mean", "tile", 48_128)
    assert not (out / run.METRICS).exists() and not (out / run.EXPERIMENT).exists()
    scores = Predictor(out)(tone(440, 7.0, 44_100), 44_100)
    assert {*scores} == {*published.labels}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("musicnn") is None, reason=f"the package musicnn is missing: {pretrained.INSTALL}")
@pytest.mark.parametrize("name", list(pretrained.PRETRAINED))
def test_the_published_taggers_ship(name, tmp_path):
    out = bundling.bundle_pretrained(name, None, tmp_path / "bundle")
    windows = bundling.chords(48_128, 16_000)
    expected = pretrained.deployed(name)(windows)
    for output, values in Predictor(out).score(windows).items():
        np.testing.assert_allclose(values, expected[output], atol=1e-4)


def test_chords_are_within_full_scale_and_differ():
    waves = bundling.chords(8000, 16_000)
    assert waves.shape == (10, 8000) and 0.3 < np.abs(waves).max(axis=1).min() and np.abs(waves).max() <= 0.8 + 1e-6
    assert np.abs(np.corrcoef(waves) - np.eye(10)).max() < 0.9
