"""Readers of collections of one's own, a class per folder and a csv, beyond what test_build.py builds from them."""

from pathlib import Path

import pytest
import soundfile

from records import datasets, inspect
from records.build import build
from records.datasets.clip import Source
from records.settings import Selection
from tests.conftest import LAYOUT, RATE_HZ, tone, write_csv
from tfmusic import files, schema
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


# --- families -------------------------------------------------------------------------------------------------------------------------------
FAMILIES = "label,family\nlow,pitch\nhigh,pitch\nnoisy,noise\n high , register\nlow,pitch\nelsewhere,pitch\n"


def families_csv(directory, text=FAMILIES):
    (directory / "families.csv").write_text(text)
    return directory / "families.csv"


def test_families_of_a_csv_reach_the_manifest_and_follow_merged_labels(collection, tmp_path, capsys):
    """hiss is called noisy in the records; rare has no family, elsewhere no clip; twice the same row is one."""
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection, families=families_csv(tmp_path))
    manifest = build(source, tmp_path / "out", LAYOUT, selection=Selection(merge=("noisy=hiss",)))
    assert manifest.families == {"high": ("pitch", "register"), "hiss": ("noise",), "low": ("pitch",)}
    assert schema.read_manifest(tmp_path / "out") == manifest
    assert "1 of 4 labels have no family: rare\n" in capsys.readouterr().out
    assert "labels of each family: noise 1, pitch 2, register 1; of none: 1 (rare)" in inspect.info(tmp_path / "out")


def test_other_families_are_other_records(collection, records, tmp_path):
    """The shards are the same; the manifest would not be."""
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",), families=families_csv(tmp_path))
    manifest = build(source, tmp_path / "out", LAYOUT)
    assert manifest.shards == schema.read_manifest(records).shards and manifest.sha1 != schema.read_manifest(records).sha1
    assert build(source, tmp_path / "out", LAYOUT) == manifest
    with pytest.raises(InputError, match="begun with other clips, files or settings"):
        build(source.model_copy(update={"families": families_csv(tmp_path, "label,family\nlow,other\n")}), tmp_path / "out", LAYOUT)


def test_folders_take_families(tmp_path):
    plant(tmp_path, "dog/1.wav", "rain/1.wav")
    given = Source(dataset="folders", audio=tmp_path, families=families_csv(tmp_path, "family,label\nanimal,dog\n"))
    assert datasets.families(given) == {"dog": ("animal",)}
    assert datasets.families(Source(dataset="folders", audio=tmp_path)) == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "families.csv is missing: --families must be a file of yours"),
        ("label,group\nlow,a\n", "families.csv must have the column 'family', got label, group"),
        ("label,family\nlow\n", "families.csv line 2: a row must have 2 cells, got fewer"),
        ("label,family\nlow,a\n,a\n", "families.csv line 3: label must be a name, got an empty cell"),
        ("label,family\nlow, \n", "families.csv line 2: family must be a name, got an empty cell"),
        ("label,family\nLow,a\n", "families.csv: the column label must hold labels of the clips, such as 'high', got 'Low'"),
        ("label,family\n", "families.csv: the column label must hold labels of the clips, such as 'high', got no rows"),
    ],
)
def test_a_wrong_file_of_families_is_one_line_and_leaves_nothing(collection, tmp_path, text, complaint):
    path = tmp_path / "families.csv" if text is None else families_csv(tmp_path, text)
    with pytest.raises(InputError, match=complaint) as error:
        build(Source(dataset="csv", csv=collection / "clips.csv", audio=collection, families=path), tmp_path / "out", LAYOUT)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_dataset_of_its_own_families_takes_no_file(tmp_path):
    with pytest.raises(InputError, match="--dataset esc50 takes no --families, got .*families.csv"):
        datasets.read(Source(dataset="esc50", audio=tmp_path, families=families_csv(tmp_path)))
