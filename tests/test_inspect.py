"""`check` finds what was done to records, each in a line; `info` tells what is inside."""

import shutil

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from records import inspect
from records.build import build
from records.datasets.clip import Source
from tests.conftest import LAYOUT, RATE_HZ, tone, write_csv
from tfmusic import schema


@pytest.fixture
def copy(records, tmp_path):
    return shutil.copytree(records, tmp_path / "copy")


def built(tmp_path, waveforms, **columns):
    """Records of waveforms by name; each column is a list of cells."""
    rows = []
    for number, (name, waveform) in enumerate(waveforms.items()):
        soundfile.write(tmp_path / name, waveform, RATE_HZ)
        rows.append({"path": name, "tags": "a", **{column: cells[number] for column, cells in columns.items()}})
    build(Source(dataset="csv", csv=write_csv(tmp_path / "list.csv", rows), audio=tmp_path), tmp_path / "out", LAYOUT)
    return tmp_path / "out"


def rewritten(directory, change):
    """Records in which `change` had each record of the first training shard before it was written: it returns those to write."""
    manifest = schema.read_manifest(directory)
    shard = next(one for one in manifest.shards if one.split == "train" and one.bytes)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(directory / shard.file))]
    with tf.io.TFRecordWriter(str(directory / shard.file)) as writer:
        for record in change([tf.train.Example.FromString(record) for record in records]):
            writer.write(record.SerializeToString())
    return directory


def test_check_accepts_what_build_wrote(records):
    found = inspect.check(records)
    assert found.errors == [] and found.tracks == 60
    assert found.notes == ["no track of valid has the label 'rare'", "no track of test has the label 'rare'"]


def test_a_flipped_bit_is_found_and_the_other_shards_are_still_read(copy):
    shard = next(copy.glob("test*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    errors = inspect.check(copy).errors
    assert any(f"{shard}: sha256 must be" in line for line in errors) and any("stops being readable" in line for line in errors)
    assert all("test" in line for line in errors)


def test_a_truncated_and_a_lost_shard_are_found(copy):
    cut, lost = sorted(copy.glob("train*"))[:1] + sorted(copy.glob("valid*"))[:1]
    cut.write_bytes(cut.read_bytes()[:-100])
    lost.unlink()
    errors = "\n".join(inspect.check(copy).errors)
    assert f"{cut} must have" in errors and f"{lost} must have" in errors and "got no such file" in errors


def test_a_wrong_count_is_found(copy):
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"tracks": 32', '"tracks": 33', 1))
    assert any("train tracks must be 32, got 33" in line for line in inspect.check(copy).errors)


def test_an_id_twice_and_a_wrong_split_are_found(copy):
    def doubled(examples):
        examples[-1].features.feature["split"].bytes_list.value[0] = b"test"
        return [*examples, examples[0]]

    errors = "\n".join(inspect.check(rewritten(copy, doubled)).errors)
    assert "must be there once, got it twice" in errors and "must say split train, got test" in errors


def test_a_group_in_two_splits_is_found(copy):
    def regrouped(examples):
        for example in examples:
            example.features.feature["group"].bytes_list.value[0] = b"test12"
        return examples

    assert any("the group 'test12' lies in test and train" in line for line in inspect.check(rewritten(copy, regrouped)).errors)


def test_the_same_audio_is_an_error_across_splits_and_a_note_within_one(tmp_path):
    """Equal samples in files of different bytes, once in chunks (train) and once whole (test); 1.5 s is more than one chunk of .8 s."""
    same, other = ((32_767 * tone(frequency_hz, 1.5)).astype(np.int16) for frequency_hz in (440, 880))
    waveforms = {"a.wav": same, "b.flac": same, "c.wav": other, "d.flac": other, "e.wav": tone(300, 1.0)}
    found = inspect.check(built(tmp_path, waveforms, split=["train", "test", "valid", "valid", "train"]))
    assert found.errors == ["'b.flac' (test) and 'a.wav' (train) are the same audio"]
    (note,) = [line for line in found.notes if "same audio" in line]
    assert "'c.wav' (valid)" in note and "'d.flac' (valid)" in note


def test_stretches_of_one_file_that_overlap_across_splits_are_found(tmp_path):
    """A short one lies between the two in the file; the last begins where the one before ends."""
    soundfile.write(tmp_path / "long.wav", tone(440, 4.0), RATE_HZ)
    rows = [
        {"path": "long.wav", "tags": "a", "split": split, "group": split, "start_s": start_s, "duration_s": duration_s}
        for split, start_s, duration_s in (("train", 0, 2), ("train", 0.2, 0.5), ("test", 1.5, 1), ("valid", 2.5, 1.5))
    ]
    build(Source(dataset="csv", csv=write_csv(tmp_path / "list.csv", rows), audio=tmp_path), tmp_path / "out", LAYOUT)
    assert inspect.check(tmp_path / "out").errors == ["'long.wav@0.0' (train) and 'long.wav@1.5' (test) share 0.50 s of one file"]


def test_silence_and_clipping_are_noted(tmp_path):
    loud = np.clip(4 * tone(440, 1.0), -1, 1)
    waveforms = {"silent.wav": np.zeros(RATE_HZ), "loud.wav": loud, "fine.wav": tone(440, 1.0, level=0.9)}
    notes = inspect.check(built(tmp_path, waveforms, split=["train", "train", "test"])).notes
    assert any(line.startswith("'silent.wav' (train) is silent") for line in notes)
    assert [line for line in notes if "clipped" in line] == [line for line in notes if line.startswith("'loud.wav' (train) is clipped")] != []


def test_info_tells_labels_and_draws_them(copy):
    text = inspect.info(copy)
    assert "32 tracks" in text and "16 / 6 / 8" in text and "the training tracks fit into one buffer of 1024" in text
    assert (copy / "labels.png").read_bytes().startswith(b"\x89PNG")


def test_deviation_is_about_1_for_a_random_order_and_large_for_a_sorted_one():
    """Labels of 10,000 tracks in ten classes of 1,000: sorted, a buffer of 1,000 holds one class alone. Its share is off by .9, the other
    nine by .1: 1.8 in all; a random draw's by 10 sqrt(2/pi * .09/1000 * .9) = .072; the ratio is 1.8 / .0718 = 25.1."""
    labels = np.repeat(np.eye(10), 1000, axis=0)
    shuffled = np.random.default_rng(0).permutation(labels)
    shares = labels.mean(axis=0)
    assert 0.5 < inspect.deviation(shuffled[:1000], shares, 10_000) < 1.6
    expected = 1.8 / (10 * np.sqrt(2 / np.pi * 0.09 / 1000 * 9000 / 9999))
    np.testing.assert_allclose(inspect.deviation(labels[:1000], shares, 10_000), expected, rtol=1e-9)
