"""Records: exact round trip, chunks that reach every start position, and a manifest that refuses what does not fit it."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import LAYOUT
from tfmusic import schema
from tfmusic.config import InputError, Layout


def test_encode_and_parse_are_inverse():
    record = schema.encode(
        b"\x00payload", track_id="a/ü.mp3", group="artist", split="train", source_sha1=bytes(range(20)), origin=5, start=7, part=1, parts=3,
        samples=99, labels=np.array([0, 1, 1]), targets=np.array([0.25, np.nan], np.float32),
    )  # fmt: skip
    parsed = {name: value.numpy() for name, value in schema.parse(record, labels=3, targets=2).items()}
    assert parsed["id"].decode() == "a/ü.mp3" and parsed["group"] == b"artist" and parsed["split"] == b"train"
    assert parsed["payload"] == b"\x00payload" and parsed["source_sha1"] == bytes(range(20))
    assert [parsed[name] for name in ("start", "part", "parts", "samples", "origin")] == [7, 1, 3, 99, 5]
    np.testing.assert_array_equal(parsed["labels"], [0, 1, 1])
    np.testing.assert_array_equal(parsed["targets"], np.array([0.25, np.nan], np.float32))
    assert "payload" not in schema.parse(record, 3, 2, strings=("id",))


@pytest.mark.parametrize("payload", ["pcm16", "flac"])
@pytest.mark.parametrize("samples", [1, 100, 5000])
def test_payloads_of_audio_are_lossless(payload, samples):
    layout = Layout(payload=payload)
    chunk = np.random.default_rng(0).integers(-32_768, 32_768, samples).astype(np.int16)
    np.testing.assert_array_equal(schema.unpack(schema.pack(chunk, layout), layout), chunk)


@pytest.mark.parametrize("short", ["pad", "tile"])
def test_windows_out_of_flac_are_those_out_of_samples(short):
    random = np.random.default_rng(1)
    chunks = [random.integers(-9000, 9000, length).astype(np.int16) for length in (5000, 4096, 700, 9)]
    first = np.array([4000, 0, 0, 0])
    windows = [
        schema.decode_window(tf.constant([schema.pack(chunk, Layout(payload=payload)) for chunk in chunks]), first, 1000, short, payload)
        for payload in ("pcm16", "flac")
    ]
    np.testing.assert_array_equal(*windows)
    np.testing.assert_array_equal(windows[0][0], chunks[0][4000:])


@pytest.mark.parametrize("samples", [1, 9, 10, 11, 19, 40, 101, 997])
@pytest.mark.parametrize(("chunk_s", "stride_s"), [(2.0, 1.0), (3.0, 1.0), (1.5, 0.3), (2.0, 1.9)])
def test_shares_of_the_chunks_partition_the_starts_of_every_window(samples, chunk_s, stride_s):
    """For any window up to chunk minus stride: the chunks' shares, laid end to end, are all starts 0..L-w, each window lies inside the chunk
    that owns its start, and no chunk is longer than chunk_s (but for the rounding of a share)."""
    layout = Layout(sample_rate_hz=10, chunk_s=chunk_s, stride_s=stride_s)
    bounds = schema.chunk_bounds(samples, layout)
    assert len(bounds) == 1 or max(end - start for start, end in bounds) <= round(chunk_s * 10)
    for window in range(1, layout.widest_window_samples + 1):
        starts = max(samples - window + 1, 1)
        owned = []
        for part, (start, end) in enumerate(bounds):
            share = range(part * starts // len(bounds), (part + 1) * starts // len(bounds))
            owned.extend(share)
            assert all(start <= first and min(first + window, samples) <= end for first in share)
        assert owned == list(range(starts))


def test_chunks_of_a_29_s_track():
    """Windows up to 4 s: 25 s + 1 sample of starts in strides of 3 s are ceil(25 / 3) = 9 chunks, of 25 / 9 + 4 = 6.78 s each."""
    bounds = schema.chunk_bounds(29 * 16_000, Layout())
    assert len(bounds) == 9
    assert bounds[0][0] == 0 and bounds[-1][1] == 29 * 16_000
    np.testing.assert_allclose([(end - start) / 16_000 for start, end in bounds], 25 / 9 + 4, atol=1e-3)


@pytest.mark.parametrize("short", ["pad", "tile"])
@pytest.mark.parametrize(("first", "expected"), [(1, {"pad": [2, 3], "tile": [2, 3]}), (2, {"pad": [3, 0], "tile": [3, 3]})])
def test_a_window_is_cut_without_decoding_the_rest(short, first, expected):
    audio = np.array([1, 2, 3], "<i2").tobytes()
    np.testing.assert_array_equal(schema.decode_window(audio, first, 2, short), expected[short])
    together = schema.decode_window([audio, audio[:2]], [first, 0], 2, short)  # a batch of different lengths
    np.testing.assert_array_equal(together, [expected[short], {"pad": [1, 0], "tile": [1, 1]}[short]])


def test_a_manifest_is_read_back_as_written(records):
    manifest = schema.read_manifest(records)
    assert manifest.labels == ("high", "low", "noisy", "rare") and manifest.targets == ("pitch",) and manifest.layout == LAYOUT
    assert {name: split.tracks for name, split in manifest.splits.items()} == {"train": 32, "valid": 12, "test": 16}
    assert manifest.split("train").label_counts == (16, 16, 16, 1)


def test_records_without_families_keep_their_fingerprint(records, tmp_path):
    """A manifest from before there were families lacks the field: its sha1 is that of its own compact JSON, families or not in this code."""
    copy = shutil.copytree(records, tmp_path / "copy")
    held = json.loads((copy / "manifest.json").read_text())
    assert held.pop("families") == {}
    (copy / "manifest.json").write_text(json.dumps(held))
    compact = json.dumps(held, separators=(",", ":"), ensure_ascii=False)
    assert schema.read_manifest(copy).sha1 == schema.read_manifest(records).sha1 == hashlib.sha1(compact.encode()).hexdigest()
    with_families = schema.read_manifest(records).model_copy(update={"families": {"high": ("pitch",)}})
    assert with_families.sha1 != schema.read_manifest(records).sha1


def change(**fields):
    return lambda directory: (directory / "manifest.json").write_text(json.dumps({**json.loads((directory / "manifest.json").read_text()), **fields}))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda directory: (directory / "manifest.json").unlink(), "no manifest.json"),
        (lambda directory: (directory / "manifest.json").write_text("{"), "must be a manifest"),
        (change(format=99), "format must be"),
        (change(labels=["other", "low", "noisy", "rare"]), "vocabulary_sha1"),
        (change(colour="red"), "must be a manifest"),
        (lambda directory: next(directory.glob("valid*")).unlink(), "no such file"),
        (lambda directory: next(directory.glob("valid*")).write_bytes(b"x"), "must have"),
    ],
)
def test_records_that_differ_from_their_manifest_are_refused_with_what_to_do(records, tmp_path, damage, complaint):
    copy = shutil.copytree(records, tmp_path / "copy")
    damage(copy)
    with pytest.raises(InputError, match=complaint) as error:
        schema.read_manifest(copy)
    assert "python -m records build" in str(error.value) and "\n" not in str(error.value)
