"""Readers of collections of one's own, a class per folder and a csv, beyond what test_build.py builds from them."""

from pathlib import Path

import pytest
import soundfile

from records import datasets
from records.build import build
from records.datasets.clip import Source
from tests.conftest import LAYOUT, RATE_HZ, tone, write_csv
from tfmusic import files
from tfmusic.config import InputError


def plant(directory, *names):
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()


def folders(directory):
    """Split and labels of each clip by its id."""
    return {one.id: (one.split, *one.labels) for one in datasets.read(Source(dataset="folders", audio=directory))}


# --- folders --------------------------------------------------------------------------------------------------------------------------------
def test_what_macos_leaves_and_what_is_hidden_is_no_clip(tmp_path):
    plant(tmp_path, "dog/1.wav", "dog/._1.wav", "__MACOSX/dog/._1.wav", ".Trash/dog/2.wav", "dog/.cache/3.wav", "dog/.hidden.wav")
    assert folders(tmp_path) == {"dog/1.wav": (None, "dog")}


def test_audio_that_libsndfile_cannot_read_is_quarantined_with_the_reason(tmp_path):
    (tmp_path / "dog").mkdir()
    soundfile.write(tmp_path / "dog/1.wav", tone(440, 1.0), RATE_HZ)
    soundfile.write(tmp_path / "dog/2.caf", tone(440, 1.0), RATE_HZ)
    (tmp_path / "dog/3.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(4000))
    manifest = build(Source(dataset="folders", audio=tmp_path), tmp_path / "out", LAYOUT)
    (line,) = (tmp_path / "out/quarantine.csv").read_text().splitlines()[1:]
    assert sum(split.tracks for split in manifest.splits.values()) == 2
    assert line.startswith("dog/3.m4a,") and "not audio that libsndfile can read" in line
    plant(tmp_path, "dog/4.aac", "dog/5.WMA", "dog/6.mp4", "dog/7.webm", "dog/8.txt")
    assert [name[4] for name in folders(tmp_path)] == list("1234567")


def test_folders_that_are_all_named_like_splits_are_splits_with_classes_below(tmp_path):
    plant(
        tmp_path, "Train/dog/1.wav", "Train/cat/deeper/2.wav", "val/dog/3.wav", "testing/dog/4.wav", "Train/loose.wav", "loose.wav", "notes/read.txt"
    )
    assert folders(tmp_path) == {
        "Train/cat/deeper/2.wav": ("train", "cat"), "Train/dog/1.wav": ("train", "dog"), "testing/dog/4.wav": ("test", "dog"),
        "val/dog/3.wav": ("valid", "dog"),
    }  # fmt: skip


def test_a_class_may_be_called_train(tmp_path):
    plant(tmp_path, "train/steam/1.wav", "tram/2.wav")
    assert folders(tmp_path) == {"train/steam/1.wav": (None, "train"), "tram/2.wav": (None, "tram")}


@pytest.mark.parametrize(("others", "split"), [(("train",), "test"), (("train", "val"), "test"), (("train", "test"), "valid")])
def test_eval_is_a_test_set_unless_there_is_another(tmp_path, others, split):
    plant(tmp_path, "eval/dog/1.wav", *(f"{other}/dog/1.wav" for other in others))
    assert folders(tmp_path)["eval/dog/1.wav"] == (split, "dog")


def test_splits_without_classes_are_one_line(tmp_path):
    plant(tmp_path, "train/1.wav", "test/2.wav")
    with pytest.raises(InputError, match=r"must hold audio files in one folder per class in test, train, got none \(\.aac .*\)$"):
        folders(tmp_path)


# --- csv ------------------------------------------------------------------------------------------------------------------------------------
def paths_of(audio, listing):
    return [one.path for one in datasets.read(Source(dataset="csv", csv=listing, audio=audio))]


def test_a_cell_may_lie_elsewhere_than_audio_does(tmp_path):
    """Local, remote and absolute cells under a local and a remote --audio."""
    names = ["x.wav", "gs://bucket/a/x.wav", "/elsewhere/x.wav"]
    listing = write_csv(tmp_path / "list.csv", [{"path": name, "tags": "a"} for name in names])
    away = [files.location("gs://bucket/a/x.wav"), Path("/elsewhere/x.wav")]
    bucket = files.location("ram://own/audio")
    bucket.mkdir()
    for audio in (tmp_path, bucket):
        found = paths_of(audio, listing)
        assert found == [audio / "x.wav", *away] and [type(path) for path in found] == [type(path) for path in (audio, *away)]


def test_a_cell_of_a_store_that_tensorflow_does_not_open_names_its_line(tmp_path):
    listing = write_csv(tmp_path / "list.csv", [{"path": "s3://bucket/x.wav", "tags": "a"}])
    with pytest.raises(InputError, match=r"list.csv line 2: a path must be local or begin with gs://, got s3://bucket/x.wav"):
        paths_of(tmp_path, listing)
