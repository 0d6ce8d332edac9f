"""Apache Beam writes the very shards that the local runner writes, on one worker and on several, and takes up what a killed job left."""

import os
import subprocess
import sys

import pytest

from records.build import build
from records.datasets.clip import Source
from records.settings import Work
from tests.conftest import LAYOUT, RATE_HZ, ROOT
from tests.test_build import shards_of
from tfmusic.config import InputError

beam = pytest.importorskip("apache_beam", reason="pip install -r requirements/beam.txt")
IN_PROCESS = "--runner=DirectRunner --direct_running_mode=in_memory --direct_num_workers=1"


@pytest.fixture
def broken(collection, tmp_path):
    """The collection with one file that is no audio, and its local records."""
    from shutil import copytree

    audio = copytree(collection, tmp_path / "audio")
    (audio / "train" / "00.wav").write_text("no audio")
    source = Source(dataset="csv", csv=audio / "clips.csv", audio=audio, targets=("pitch",))
    build(source, tmp_path / "local", LAYOUT)
    return source, shards_of(tmp_path / "local")


def test_the_direct_runner_writes_the_same_bytes_and_counts(broken, tmp_path, capsys):
    source, expected = broken
    build(source, tmp_path / "out", LAYOUT, work=Work(runner="beam", beam_options=IN_PROCESS))
    assert shards_of(tmp_path / "out") == expected
    assert "beam: 60 clips, 1 quarantined," in capsys.readouterr().out


@pytest.mark.slow
def test_two_worker_processes_write_the_same_bytes(broken, tmp_path):
    source, expected = broken
    command = [sys.executable, "-m", "records", "build", "--dataset", "csv", "--csv", source.csv, "--audio", source.audio, "--targets", "pitch"]
    command += ["--out", tmp_path / "out", "--sample-rate-hz", RATE_HZ, "--chunk-s", LAYOUT.chunk_s, "--stride-s", LAYOUT.stride_s]
    command += ["--runner", "beam", "--workers", 2]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
    assert done.returncode == 0, done.stderr
    assert shards_of(tmp_path / "out") == expected and "beam: 60 clips, 1 quarantined," in done.stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("FlinkRunner", "--beam-options must be flags such as --runner=FlinkRunner, got 'FlinkRunner'"),
        ("--runner='", "--beam-options must be one string of flags"),
        ("--num_wrokers=7 --nonsense", "must be flags that Beam knows, got --nonsense, --num_wrokers"),
        ("--direct_num_workers=abc", "must have values that Beam takes, got --direct_num_workers=abc"),
        ("--runner=NoSuchRunner", "the Beam job could not be started.*NoSuchRunner"),
    ],
)
def test_options_that_beam_does_not_know_are_one_line(broken, tmp_path, options, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        build(broken[0], tmp_path / "out", LAYOUT, work=Work(runner="beam", beam_options=options))
    assert "\n" not in str(error.value)


def test_a_worker_that_fails_ends_the_job_in_one_line_and_the_same_command_goes_on(broken, tmp_path, monkeypatch):
    from records import build as module

    source, expected = broken
    write = module.write_shard
    monkeypatch.setattr(module, "write_shard", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(InputError, match="the Beam job failed, its finished shards are kept: .*disk gone") as error:
        build(source, tmp_path / "out", LAYOUT, work=Work(runner="beam", beam_options=IN_PROCESS))
    assert "\n" not in str(error.value)
    monkeypatch.setattr(module, "write_shard", write)
    plan = module.read_plan(tmp_path / "out")
    write(tmp_path / "out", plan.shards[0], plan)
    written = (tmp_path / "out" / plan.shards[0]).stat().st_mtime_ns
    build(source, tmp_path / "out", LAYOUT, work=Work(runner="beam", beam_options=IN_PROCESS))
    assert shards_of(tmp_path / "out") == expected
    assert (tmp_path / "out" / plan.shards[0]).stat().st_mtime_ns == written
