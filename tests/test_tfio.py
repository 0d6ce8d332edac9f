"""FLAC records: which decoder reads them, and, slow, records and training in an environment made of requirements/tfio.txt."""

import importlib.machinery
import json
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import EXPERIMENT, LAYOUT, ROOT, new_environment
from tfmusic import audio, data, run, schema

PYTHONS = ((3, 11), (3, 12))  # of tensorflow-io 0.37.1's wheels


@pytest.fixture
def install(monkeypatch):
    """Puts a module in the place of tensorflow-io, and lets `schema.flac_window` choose anew."""

    def put(decode_flac):
        module = types.ModuleType("tensorflow_io")
        module.__spec__ = importlib.machinery.ModuleSpec("tensorflow_io", None)
        module.audio = types.SimpleNamespace(decode_flac=decode_flac)
        monkeypatch.setitem(sys.modules, "tensorflow_io", module)
        schema.flac_window.cache_clear()

    yield put
    schema.flac_window.cache_clear()


def decode_flac(stream, dtype):
    """What tensorflow-io's operator gives: all samples of a stream `[shape=(samples, channels)]`."""
    samples = tf.numpy_function(lambda streams: audio.decode_flac(streams[0])[:, None], [stream[None]], dtype, stateful=False)
    return tf.ensure_shape(samples, [None, None])


def failing(error):
    def decode_flac(stream, dtype):
        raise error

    return decode_flac


# --- which decoder --------------------------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(tf.__version__.startswith(("2.16.", "2.17.")), reason="tensorflow-io's operators load beside this TensorFlow")
def test_beside_this_tensorflow_soundfile_decodes_whether_tensorflow_io_is_there_or_not():
    assert schema.flac_window.__wrapped__() is schema._flac_window_soundfile


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("unable to open file: libtensorflow_io.so"),
        AttributeError("no attribute 'io_audio_decode_flac'"),
        tf.errors.NotFoundError(None, None, "Op type not registered"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_operators_that_do_not_load_leave_it_to_soundfile(install, error):
    """tensorflow-io imports beside any TensorFlow and fails when an operator is called."""
    install(failing(error))
    assert schema.flac_window() is schema._flac_window_soundfile


def test_a_tensorflow_io_that_cannot_be_imported_leaves_it_to_soundfile(monkeypatch, tmp_path):
    (tmp_path / "tensorflow_io.py").write_text("import warnings\nwarnings.warn('plugins are not loaded')\nraise ImportError('undefined symbol')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow_io", raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert schema.flac_window.__wrapped__() is schema._flac_window_soundfile
    assert not caught  # a user who never asked for it need not read of it


@pytest.mark.parametrize(
    ("operator", "expected"),
    [(decode_flac, schema._flac_window_tensorflow_io), (lambda stream, dtype: tf.audio.decode_wav(stream), schema._flac_window_soundfile)],
    ids=["works", "fails when it runs"],
)
def test_the_choice_is_made_by_running_even_when_a_dataset_asks(install, operator, expected):
    """A function that is traced adds operators to its graph, whatever they would do."""
    install(operator)
    chosen = []
    tf.data.Dataset.range(1).map(lambda number: (chosen.append(schema.flac_window()), number)[1])
    assert chosen == [expected]


@pytest.mark.parametrize("short", ["pad", "tile"])
def test_both_decoders_cut_the_same_windows(install, short):
    """At the start, inside, over the end, at the end, and out of a stream that is shorter than the window."""
    streams = [np.arange(1, length + 1, dtype=np.int16) for length in (9_000, 9_000, 9_000, 9_000, 100)]
    payload, first = tf.constant([audio.encode_flac(stream, 8_000) for stream in streams]), tf.constant([0, 4_500, 8_500, 8_999, 3])
    pcm = schema.decode_window(tf.constant([stream.tobytes() for stream in streams]), first, 1_000, short)
    for decode in (decode_flac, failing(NotImplementedError())):
        install(decode)
        np.testing.assert_array_equal(schema.decode_window(payload, first, 1_000, short, "flac"), pcm)


# --- the pinned set -------------------------------------------------------------------------------------------------------------------------
SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from records.build import build
from records.datasets.clip import Source
from tfmusic import data, schema, training
from tfmusic.config import Experiment, Layout

collection, out = Path(sys.argv[1]), Path(sys.argv[2])
experiment, layout = Experiment.model_validate_json(sys.argv[3]), Layout.model_validate_json(sys.argv[4])


def records(payload):
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",))
    manifest = build(source, out / payload, layout.model_copy(update={"payload": payload}))
    return out / payload, manifest, experiment


def windows(where):
    epochs = tf.data.Dataset.range(2).flat_map(lambda epoch: data.windows(*where, epoch))
    return np.stack([window for window, _, _ in epochs.as_numpy_iterator()])


pcm16, flac = records("pcm16"), records("flac")
found = {"pcm16": windows(pcm16), "chosen": windows(flac), "decoder": schema.flac_window().__name__}
for function in (schema._flac_window_tensorflow_io, schema._flac_window_soundfile):
    schema.flac_window = lambda function=function: function
    found[function.__name__] = windows(flac)
schema.flac_window = lambda: schema._flac_window_tensorflow_io
found["features"] = np.stack([features for features, _ in data.train_batches(*flac).take(8).as_numpy_iterator()])
np.savez(out / "found.npz", **found)
training.fit(experiment, flac[0], out / "run")
"""


@pytest.fixture
def python(tmp_path):
    """The interpreter of a new environment of requirements/tfio.txt: 2.6 GB, so it does not outlive the test."""
    if sys.version_info[:2] not in PYTHONS:
        pytest.skip(f"tensorflow-io has wheels for Python 3.11 and 3.12 only, this is {sys.version_info[0]}.{sys.version_info[1]}")
    with new_environment("tfio.txt", tmp_path) as interpreter:
        yield interpreter


@pytest.mark.slow
def test_the_pinned_set_builds_and_trains_from_flac_with_tensorflow_io(python, collection, records, tmp_path):
    """Windows of two epochs out of FLAC are those out of samples, through either decoder, and those that this environment draws."""
    arguments = [collection, tmp_path, EXPERIMENT.model_dump_json(), LAYOUT.model_dump_json()]
    finished = subprocess.run([python, "-c", SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert not finished.returncode, finished.stderr
    found = np.load(tmp_path / "found.npz")
    assert found["decoder"] == "_flac_window_tensorflow_io"
    assert found["pcm16"].shape == (2 * 64, 4_000) and found["pcm16"].dtype == np.int16  # 32 tracks x 2 crops an epoch
    for name in ("chosen", "_flac_window_tensorflow_io", "_flac_window_soundfile"):
        np.testing.assert_array_equal(found[name], found["pcm16"])
    assert found["features"].shape == (8, 8, 32, 16) and np.isfinite(found["features"]).all() and found["features"].std() > 0

    epochs = tf.data.Dataset.range(2).flat_map(lambda epoch: data.windows(records, schema.read_manifest(records), EXPERIMENT, epoch))
    np.testing.assert_array_equal(found["pcm16"], [window for window, _, _ in epochs.as_numpy_iterator()])
    assert run.read(tmp_path / "run").versions["tensorflow"] == "2.17.1"
    assert json.loads((tmp_path / "run" / run.METRICS).read_text())["test"]["roc_auc"] > 0.9
