"""Paths in a bucket behave like local ones: the whole of records on TensorFlow's ram:// file system, and one line for what it cannot open."""

import concurrent.futures
import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from records import inspect
from records.build import build
from records.datasets.clip import Source
from tests.conftest import EXPERIMENT, LAYOUT, ROOT
from tfmusic import data, evaluate, files, schema, training


def upload(directory, place):
    for path in files.walk(directory):
        target = files.location(place) / path.relative_to(directory).as_posix()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tf.io.gfile.GFile(str(target), "wb") as file:
            file.write(path.read_bytes())
    return files.location(place)


def test_a_url_keeps_its_slashes_in_all_that_paths_do():
    path = files.location("gs://bucket/a/b.wav")
    assert (str(path), path.name, path.suffix, str(path.parent)) == ("gs://bucket/a/b.wav", "b.wav", ".wav", "gs://bucket/a")
    assert str(path.with_name("c.wav")) == "gs://bucket/a/c.wav" and path.relative_to(files.location("gs://bucket")).as_posix() == "a/b.wav"
    assert files.location(Path("gs://bucket/a/b.wav")) == path == pickle.loads(pickle.dumps(path))
    assert files.location("local/x") == Path("local/x") and files.location("Re:/x") == Path("Re:/x")


@pytest.mark.parametrize("url", ["s3://bucket/x", "hdfs://host/x", "https://host/x"])
def test_other_schemes_are_one_line(url):
    with pytest.raises(ValueError, match=f"must be local or begin with gs://, got {url}: TensorFlow opens no {url.split(':')[0]}://"):
        Source(dataset="folders", audio=url)


def test_files_in_a_bucket_raise_what_local_ones_raise():
    folder = files.location("ram://errors/x")
    folder.mkdir(parents=True)
    for act in (folder.__truediv__("no").read_text, (folder / "no").stat, (folder / "no").unlink, (folder / "no").open):
        with pytest.raises(FileNotFoundError) as error:
            act()
        assert error.value.filename == "ram://errors/x/no"
    (folder / "no").unlink(missing_ok=True)


def test_reading_seeks_and_ends(tmp_path):
    path = files.location("ram://seek/x")
    path.parent.mkdir()
    files.write_text(path, "0123456789")
    with path.open("rb") as file:
        file.seek(-3, 2)
        assert (file.read(2), file.tell(), file.seek(2), file.read()) == (b"78", 9, 2, b"23456789")


def test_records_are_built_checked_and_trained_from_in_a_bucket(collection, records, tmp_path):
    """Audio, list and output all remote: the shards are byte for byte the local ones; the same command finds them complete."""
    audio = upload(collection, "ram://whole/audio")
    source = Source(dataset="csv", csv=audio / "clips.csv", audio=audio, targets=("pitch",))
    out = files.location("ram://whole/records")
    manifest = build(source, out, LAYOUT)
    local = schema.read_manifest(records)
    assert manifest.shards == local.shards and manifest.splits == local.splits
    for shard in manifest.shards:
        assert (out / shard.file).read_bytes() == (records / shard.file).read_bytes()
    assert build(source, out, LAYOUT) == manifest
    assert inspect.check(out).errors == [] and "32 tracks" in inspect.info(out)
    assert not (out / "parts").exists()

    batches = [next(iter(data.train_batches(place, manifest, EXPERIMENT)))[0].numpy() for place in (out, records)]
    np.testing.assert_array_equal(*batches)
    once = EXPERIMENT.model_copy(update={"fit": EXPERIMENT.fit.model_copy(update={"epochs": 1})})
    run = training.fit(once, str(out), tmp_path / "run")
    assert evaluate.evaluate(run)["tracks"] == 16


def test_a_broken_file_in_a_bucket_is_quarantined_with_its_url(collection):
    audio = upload(collection, "ram://broken/audio")
    (audio / "train" / "00.wav").unlink()  # ram:// appends to what is there
    with tf.io.gfile.GFile("ram://broken/audio/train/00.wav", "wb") as file:
        file.write(b"no audio")
    out = files.location("ram://broken/records")
    build(Source(dataset="csv", csv=audio / "clips.csv", audio=audio), out, LAYOUT)
    assert 'train/00.wav,ram://broken/audio/train/00.wav,"ram://broken/audio/train/00.wav is not audio' in (out / "quarantine.csv").read_text()


def test_an_output_that_is_no_bucket_of_ours_is_one_line(collection):
    import subprocess
    import sys

    command = [sys.executable, "-m", "records", "build", "--dataset", "folders", "--audio", str(collection), "--out", "s3://bucket/x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: a path must be local or begin with gs://, got s3://bucket/x")


def test_writers_of_the_same_file_do_not_disturb_each_other(tmp_path):
    """Runs share the kept scores of one tagger: whoever writes last wins, whole, and nothing is left beside it."""
    path = tmp_path / "scores.npz"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda value: files.write_npz(path, scores=np.full(10_000, value)), range(40)))
    with np.load(path) as kept:
        assert len({*kept["scores"].tolist()}) == 1
    assert [*tmp_path.iterdir()] == [path]
