"""Metadata of .tflite files: read back field by field without the writer, and by MediaPipe itself (slow); the model is what it was."""

import io
import json
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import soundfile
from ai_edge_litert import schema_py_generated as flatbuffer
from ai_edge_litert.interpreter import Interpreter

from export import bundle as bundling
from export import metadata
from export.predict import Predictor
from tests.conftest import EXPERIMENT, RATE_HZ, ROOT, new_environment, tone
from tfmusic.config import InputError

ABOUT = metadata.About("mine", "What it is.", "1.2", 16_000, {"tags": "scores", "embedding": "vector"}, author="Somebody", licence="ISC")
LABELS = "high\nlow\nnoisy\nrare\n"
WINDOW = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 4000)).astype("float32")


@pytest.fixture(scope="module")
def bundled(trained, tmp_path_factory):
    """The run's bundle, and its files as they were before metadata, in their order."""
    before, add = [], metadata.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "add", lambda content, *arguments: before.append(content) or add(content, *arguments))
        return bundling.bundle(trained, tmp_path_factory.mktemp("bundles") / "bundle"), before


@pytest.fixture(scope="module")
def bundle(bundled):
    return bundled[0]


@pytest.fixture(scope="module")
def contents(bundled):
    """The run's float32 and float16 files before metadata."""
    return dict(zip(("float32", "float16"), bundled[1], strict=False))  # the third is MediaPipe's


# --- an independent reader ------------------------------------------------------------------------------------------------------------------
class Walked:
    """A flatbuffer table by the rules of its format alone: a table begins with the distance to its vtable, which holds a place for every slot."""

    def __init__(self, data, at=None):
        self.data = data
        self.at = self.u32(0) if at is None else at

    def u32(self, at):
        return struct.unpack_from("<I", self.data, at)[0]

    def place(self, slot):
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        size = struct.unpack_from("<H", self.data, vtable)[0]
        distance = struct.unpack_from("<H", self.data, vtable + 4 + 2 * slot)[0] if 4 + 2 * slot < size else 0
        return self.at + distance if distance else None

    def table(self, slot):
        return Walked(self.data, self.place(slot) + self.u32(self.place(slot)))

    def text(self, slot):
        if self.place(slot) is None:
            return None
        start = self.place(slot) + self.u32(self.place(slot))
        return self.data[start + 4 : start + 4 + self.u32(start)].decode()

    def tables(self, slot):
        if self.place(slot) is None:
            return []
        start = self.place(slot) + self.u32(self.place(slot))
        places = [start + 4 + 4 * number for number in range(self.u32(start))]
        return [Walked(self.data, place + self.u32(place)) for place in places]

    def byte(self, slot):
        return self.data[self.place(slot)]

    def number(self, slot):
        return self.u32(self.place(slot))


def kept(content):
    """The bytes of the buffer TFLITE_METADATA."""
    model = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    return bytes(model.buffers[entry.buffer].data)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_was_written_is_read_slot_by_slot(contents, precision):
    """Slots by metadata_schema.fbs: ModelMetadata 0 name, 3 subgraphs, 4 author, 5 licence, 7 parser; TensorMetadata 3 content, 6 files."""
    data = kept(metadata.add(contents[precision], ABOUT, LABELS))
    assert data[4:8] == b"M001"
    root = Walked(data)
    assert [root.text(slot) for slot in (0, 1, 2, 4, 5, 7)] == ["mine", "What it is.", "1.2", "Somebody", "ISC", "1.3.0"]
    (graph,) = root.tables(3)
    (heard,) = graph.tables(2)
    assert heard.text(0) == "waveform" and heard.table(3).byte(0) == 4  # AudioProperties
    properties = heard.table(3).table(1)
    assert (properties.number(0), properties.number(1)) == (16_000, 1)
    tags, embedding = graph.tables(3)
    assert (tags.text(0), tags.text(1), embedding.text(0)) == ("tags", "scores", "embedding") and not embedding.tables(6)
    assert tags.table(3).byte(0) == 1  # FeatureProperties
    (file,) = tags.tables(6)
    assert file.text(0) == "labels.txt" and file.byte(2) == 2  # TENSOR_AXIS_LABELS


def test_labels_are_in_the_archive_behind_the_model(contents):
    content = metadata.add(contents["float32"], ABOUT, LABELS)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["labels.txt"] and archive.read("labels.txt").decode() == LABELS
    assert content == metadata.add(contents["float32"], ABOUT, LABELS)  # no clock in it


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_model_is_what_it_was(contents, precision):
    """Bit for bit the same scores, tags first among the outputs, constants at multiples of 16 bytes as the schema asks."""
    content = metadata.add(contents[precision], ABOUT, LABELS)
    before, after = (run(one) for one in (contents[precision], content))
    assert before.keys() == after.keys() == {"tags", "embedding"}
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    graph = flatbuffer.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    assert [graph.tensors[index].shape.tolist() for index in graph.outputs] == [[1, 4], [1, 8]]
    model = flatbuffer.Model.GetRootAsModel(content, 0)
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    places = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if not buffer.DataIsNone()]
    assert len(places) > 5 and not any(place % 16 for place in places)


def run(content):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner("serving_default")(waveform=WINDOW)


@pytest.mark.parametrize("output", ["tags", "embedding"])
def test_one_output_alone_is_what_it_was_without_the_operators_of_the_other(contents, output):
    content = metadata.only(contents["float32"], output)
    (values,) = run(content).values()
    np.testing.assert_array_equal(values, run(contents["float32"])[output])
    before, after = (len(flatbuffer.ModelT.InitFromPackedBuf(one, 0).subgraphs[0].operators) for one in (contents["float32"], content))
    assert after < before


def test_what_does_not_fit_is_refused(contents):
    with pytest.raises(InputError, match="output tags with 2 scores, got 1 and .4."):
        metadata.add(contents["float32"], ABOUT, "one\ntwo\n")
    with pytest.raises(InputError, match="output tags with 4 scores, got 1 and .."):
        metadata.add(metadata.only(contents["float32"], "embedding"), ABOUT, LABELS)
    with pytest.raises(InputError, match="output must be one of .*, got loudness"):
        metadata.only(contents["float32"], "loudness")


def test_every_file_of_a_bundle_has_the_rate_and_the_labels(bundle):
    for name in ("model_float32.tflite", "model_float16.tflite", "model_mediapipe.tflite"):
        with zipfile.ZipFile(bundle / name) as archive:
            assert archive.read("labels.txt") == (bundle / "labels.txt").read_bytes()
        (graph,) = Walked(kept((bundle / name).read_bytes())).tables(3)
        assert graph.tables(2)[0].table(3).table(1).number(0) == RATE_HZ
        assert len(graph.tables(3)) == (1 if "mediapipe" in name else 2)
    assert json.loads((bundle / "model.json").read_text())["mediapipe"] == "model_mediapipe.tflite"


# --- MediaPipe itself -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_audio_classifier_scores_as_we_do(bundle, tmp_path):
    """Its windows lie side by side. At the model's own rate it scores what we score; of 44.1 kHz stereo it resamples and mixes by itself."""
    soundfile.write(tmp_path / "own.wav", tone(2000, 2.0), RATE_HZ)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(2000, 2.0, 44_100)] * 2, axis=1), 44_100)
    windows = soundfile.read(tmp_path / "own.wav", dtype="float32")[0].reshape(4, EXPERIMENT.frontend.window_samples)
    predictor = Predictor(bundle)
    labels, expected = predictor.labels.names, predictor.score(windows)["tags"]
    with new_environment("mediapipe.txt", tmp_path) as python:

        def classify(model, file, *allowed):
            command = [python, ROOT / "tests" / "golden" / "audio_classifier.py", bundle / model, tmp_path / file, *allowed]
            return subprocess.run(command, capture_output=True, text=True)

        for model, file, tolerance in (
            ("model_float32.tflite", "own.wav", 1e-4),
            ("model_mediapipe.tflite", "own.wav", 5e-3),
            ("model_mediapipe.tflite", "stereo.wav", 0.1),
        ):
            done = classify(model, file)
            assert not done.returncode, done.stderr
            found = [[window["tags"][label] for label in labels] for window in json.loads(done.stdout)]
            np.testing.assert_allclose(found[:4], expected, atol=tolerance)
            assert {*json.loads(done.stdout)[0]} == ({"tags"} if "mediapipe" in model else {"tags", "embedding"})
        assert json.loads(classify("model_mediapipe.tflite", "own.wav", "high").stdout)[0]["tags"].keys() == {"high"}
        assert "requires labels to be present" in classify("model_float32.tflite", "own.wav", "high").stderr  # why there is the other file
