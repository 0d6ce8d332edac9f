"""Building records: readers, splits, quarantine, equal bytes whatever happens in between, and `check`."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from records import datasets, inspect
from records.build import build
from records.datasets.clip import Source
from records.settings import Work
from tests.conftest import LAYOUT, RATE_HZ, ROOT, tone, write_csv
from tfmusic import audio, data, schema
from tfmusic.config import InputError
from tfmusic.labels import Vocabulary


def shards_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "plan.json"}


# --- readers --------------------------------------------------------------------------------------------------------------------------------
def test_csv_cells_become_a_clip(tmp_path):
    row = {"path": "x.wav", "split": "validation", "group": "g", "tags": " b|a ||b", "start_s": "1.5", "duration_s": "2", "mood": "", "energy": "0"}
    listing = write_csv(tmp_path / "list.csv", [row])
    (found,) = datasets.read(Source(dataset="csv", csv=listing, audio=tmp_path, targets=("mood", "energy")))
    assert (found.id, found.path, found.split, found.group, found.labels) == ("x.wav@1.5", tmp_path / "x.wav", "valid", "g", ("b", "a"))
    assert (found.start_s, found.duration_s) == (1.5, 2.0)
    np.testing.assert_array_equal(found.targets, [np.nan, 0])


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"file": "x.wav", "tags": "a"}], "must have the column 'path', got file, tags"),
        ([{"path": "x.wav", "label": "a"}], "must have the column 'tags'"),
        ([{"path": "", "tags": "a"}], "line 2: path must name a file"),
        ([{"path": "x.wav", "tags": "a", "split": "holdout"}], "line 2: split must be one of"),
        ([{"path": "x.wav", "tags": "a", "start_s": "soon"}], "line 2: start_s must be a number >= 0, got 'soon'"),
        ([{"path": "x.wav", "tags": "a", "duration_s": "-1"}], "line 2: duration_s must be a number > 0"),
        ([{"path": "x.wav", "tags": "a"}, {"path": "x.wav", "tags": "b"}], "listed once, got 'x.wav' 2 times"),
        ([{"path": "x.wav", "tags": ""}], "has a label"),
    ],
)
def test_a_bad_csv_is_one_line_and_leaves_nothing(tmp_path, rows, complaint):
    listing = write_csv(tmp_path / "list.csv", rows)
    with pytest.raises(InputError, match=complaint) as error:
        build(Source(dataset="csv", csv=listing, audio=tmp_path), tmp_path / "out", LAYOUT)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_folders_are_classes(tmp_path):
    for name in ("001 - dog/a.wav", "cat/deeper/b.FLAC", "cat/notes.txt", "loose.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list(datasets.read(Source(dataset="folders", audio=tmp_path)))
    assert [(one.id, one.labels) for one in found] == [("001 - dog/a.wav", ("001 - dog",)), ("cat/deeper/b.FLAC", ("cat",))]
    with pytest.raises(InputError, match="one folder per class"):
        list(datasets.read(Source(dataset="folders", audio=tmp_path / "cat" / "deeper")))


# --- quarantine -----------------------------------------------------------------------------------------------------------------------------
def test_unusable_files_go_to_quarantine_and_odd_ones_do_not(tmp_path):
    good, rows = tone(440, 1.0), []
    soundfile.write(tmp_path / "good.wav", good, RATE_HZ)
    soundfile.write(tmp_path / "six.wav", np.tile(tone(440, 1.0, 96_000)[:, None], 6), 96_000, subtype="FLOAT")
    soundfile.write(tmp_path / "whole.mp3", tone(440, 6.0, 44_100), 44_100)
    mp3 = (tmp_path / "whole.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(mp3[: len(mp3) // 2])
    (tmp_path / "text.wav").write_text("no audio here")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "blink.wav", good[:80], RATE_HZ)
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(8000) == 99, np.nan, good), RATE_HZ, subtype="FLOAT")
    expected = {
        "cut.mp3": "truncated", "text.wav": "not audio", "empty.wav": "empty", "blink.wav": "too short", "nan.wav": "NaN", "gone.wav": "No such file",
    }  # fmt: skip
    rows = [{"path": name, "tags": "a", "split": "train"} for name in ["good.wav", "six.wav", "whole.mp3", *expected]]
    out = tmp_path / "out"
    manifest = build(Source(dataset="csv", csv=write_csv(tmp_path / "list.csv", rows), audio=tmp_path), out, LAYOUT, work=Work(max_quarantined=1))
    quarantined = (out / "quarantine.csv").read_text().splitlines()[1:]
    assert manifest.split("train").tracks == 3 and manifest.quarantined == len(expected)
    for name, reason in expected.items():
        (line,) = [line for line in quarantined if line.startswith(name)]
        assert reason in line
    assert not inspect.check(out).errors


def test_nothing_readable_is_an_error_that_names_the_first(tmp_path):
    listing = write_csv(tmp_path / "list.csv", [{"path": "gone.wav", "tags": "a", "split": "train"}])
    with pytest.raises(InputError, match="no clip could be read.*gone.wav"):
        build(Source(dataset="csv", csv=listing, audio=tmp_path), tmp_path / "out", LAYOUT)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="no clip could be read"):
        build(Source(dataset="csv", csv=listing, audio=tmp_path), tmp_path / "mine", LAYOUT)
    assert list((tmp_path / "mine").iterdir()) == []


def test_names_that_are_not_utf8_and_labels_with_dollars_are_names_like_others(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/$uicide\\$\xe9")
    for number in range(4):
        soundfile.write(tmp_path / "0.wav", tone(440, 1.0), RATE_HZ)
        shutil.move(tmp_path / "0.wav", os.fsencode(tmp_path) + b"/$uicide\\$\xe9/caf\xe9%d.wav" % number)
    manifest = build(Source(dataset="folders", audio=tmp_path), tmp_path / "out", LAYOUT)
    assert manifest.labels == (r"$uicide\$\xe9",) and manifest.quarantined == 0
    assert r"$uicide\$\xe9" in inspect.info(tmp_path / "out")


# --- bytes ----------------------------------------------------------------------------------------------------------------------------------
def test_whole_tracks_come_back_sample_by_sample(collection, records):
    manifest = schema.read_manifest(records)
    tracks = {track.id: track for split in ("valid", "test") for track in data.tracks(records, manifest, split)}
    assert len(tracks) == 28
    for name, track in tracks.items():
        samples, _ = soundfile.read(collection / name, dtype="int16")
        np.testing.assert_array_equal(track.waveform, samples)


def test_bytes_do_not_depend_on_workers(collection, records, tmp_path):
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",))
    build(source, tmp_path / "again", LAYOUT, work=Work(workers=1))
    assert shards_of(tmp_path / "again") == shards_of(records)


def test_after_kill_9_the_same_command_goes_on_to_the_same_bytes(collection, records, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "records", "build", "--dataset", "csv", "--csv", collection / "clips.csv", "--audio", collection, "--out", out]
    command += ["--targets", "pitch", "--sample-rate-hz", RATE_HZ, "--chunk-s", LAYOUT.chunk_s, "--stride-s", LAYOUT.stride_s, "--workers", 1]
    command = [str(part) for part in command]
    slow = "import time, runpy; from tfmusic import audio; load = audio.load; audio.load = lambda *a: (time.sleep(.2), load(*a))[1]; "
    process = subprocess.Popen(
        [sys.executable, "-c", slow + f"import sys; sys.argv = {command[2:]!r}; runpy.run_module('records', run_name='__main__')"], cwd=ROOT
    )
    while not list((out / "parts").glob("*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.tfrecord")}
    assert 0 < len(done) < len(list(records.glob("*.tfrecord")))
    subprocess.run(command, cwd=ROOT, check=True)
    assert shards_of(out) == shards_of(records)
    assert all(path.stat().st_mtime_ns == changed for path, changed in done.items())


def test_other_settings_do_not_mix_with_what_is_there(collection, records, tmp_path):
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection)
    with pytest.raises(InputError, match="begun with other clips, files or settings"):
        build(source, records, LAYOUT)
    (tmp_path / ".git").mkdir()
    with pytest.raises(InputError, match="new or empty folder"):
        build(source, tmp_path, LAYOUT)
    assert (tmp_path / ".git").is_dir()


def test_other_audio_under_the_same_names_is_not_taken_for_done(tmp_path):
    listing = write_csv(tmp_path / "list.csv", [{"path": "a.wav", "tags": "a", "split": "train"}])
    for frequency_hz in (440, 880):
        soundfile.write(tmp_path / "a.wav", tone(frequency_hz, 1.0 + frequency_hz / 1e4), RATE_HZ)
        if frequency_hz == 440:
            build(Source(dataset="csv", csv=listing, audio=tmp_path), tmp_path / "out", LAYOUT)
    with pytest.raises(InputError, match="other clips, files or settings"):
        build(Source(dataset="csv", csv=listing, audio=tmp_path), tmp_path / "out", LAYOUT)


def repaired(collection, copy, **work):
    """The copy after its own command; the names of the shards that were written."""
    before = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.tfrecord")}
    build(Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",)), copy, LAYOUT, work=Work(**work))
    return {path.name for path in copy.glob("*.tfrecord") if path.stat().st_mtime_ns != before.get(path.name)}


def test_a_finished_set_that_lost_a_shard_gets_that_one_anew(collection, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "copy")
    lost = next(copy.glob("train*"))
    lost.unlink()
    assert repaired(collection, copy) == {lost.name}
    assert shards_of(copy) == shards_of(records)


def test_repair_finds_an_altered_shard_by_its_hash(collection, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "copy")
    altered = next(copy.glob("test*"))
    altered.write_bytes(altered.read_bytes()[:-1] + b"?")
    assert repaired(collection, copy) == set()
    assert inspect.check(copy).errors
    assert repaired(collection, copy, repair=True) == {altered.name}
    assert shards_of(copy) == shards_of(records) and not inspect.check(copy).errors


def test_a_torn_plan_is_one_line(collection, tmp_path):
    (tmp_path / "plan.json").write_text('{"fing')
    with pytest.raises(InputError, match="plan.json is damaged or of another version; delete"):
        build(Source(dataset="csv", csv=collection / "clips.csv", audio=collection), tmp_path, LAYOUT)


def test_a_torn_note_counts_as_not_done(collection, records, tmp_path):
    """A power cut may leave a note without content; the shard is made again, to the same bytes."""
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",))
    copy = shutil.copytree(records, tmp_path / "copy")
    (copy / "manifest.json").unlink()
    (copy / "parts").mkdir()
    (copy / "parts" / f"{next(copy.glob('test*')).name}.json").touch()
    build(source, copy, LAYOUT)
    assert shards_of(copy) == shards_of(records)


def test_a_given_vocabulary_keeps_its_order_and_drops_other_tags(collection, tmp_path):
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection)
    manifest = build(source, tmp_path / "out", LAYOUT, Vocabulary(("noisy", "absent", "high")))
    assert manifest.labels == ("noisy", "absent", "high")
    assert manifest.split("test").label_counts[1] == 0 and manifest.split("train").unlabelled == 8


def test_a_vocabulary_of_other_labels_is_refused(collection, tmp_path):
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection)
    with pytest.raises(InputError, match="no clip has a label of the vocabulary"):
        build(source, tmp_path / "out", LAYOUT, Vocabulary(("oboe",)))


# --- several at work, and files that fail ---------------------------------------------------------------------------------------------------
def test_two_writers_of_one_shard_do_each_other_no_harm(collection, records, tmp_path, monkeypatch):
    """Beam may run an element twice: the second begins while the first is at work, and both are slow."""
    from records import build as module

    copy = shutil.copytree(records, tmp_path / "copy")
    (copy / "manifest.json").unlink()
    for path in copy.glob("*.tfrecord"):
        path.unlink()
    convert = module.convert
    monkeypatch.setattr(module, "_run_local", lambda *_: (_ for _ in ()).throw(InputError("stop")))
    with pytest.raises(InputError, match="stop"):
        repaired(collection, copy)
    monkeypatch.setattr(module, "convert", lambda *of: (time.sleep(0.02), convert(*of))[1])
    plan = module.read_plan(copy)
    with ThreadPoolExecutor() as pool:
        for name in plan.shards:
            for _ in range(2):
                pool.submit(module.write_shard, copy, name, plan)
                time.sleep(0.1)
    for path in records.glob("*.tfrecord"):
        assert (copy / path.name).read_bytes() == path.read_bytes()


def test_a_second_build_in_the_same_place_is_refused(collection, tmp_path, monkeypatch):
    from records import build as module

    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection)
    inside = []

    def meanwhile(*arguments):
        with pytest.raises(InputError, match="another build is at work in"):
            build(source, tmp_path / "out", LAYOUT)
        inside.append(True)
        return run_local(*arguments)

    run_local = module._run_local
    monkeypatch.setattr(module, "_run_local", meanwhile)
    build(source, tmp_path / "out", LAYOUT)
    assert inside and not (tmp_path / "out" / ".lock").exists()


def test_a_system_that_fails_stops_the_build_and_loses_no_clip(collection, records, tmp_path, monkeypatch):
    """Too many open files are no broken audio: nothing is quarantined, and the same command ends in the same bytes."""
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",))
    load = audio.load

    def failing(path, *of):
        if str(path).endswith("40.flac"):
            raise audio.unreadable(str(path), OSError(errno.EMFILE, "Too many open files"))
        return load(path, *of)

    monkeypatch.setattr(audio, "load", failing)
    with pytest.raises(InputError, match="40.flac cannot be read: Too many open files; the finished shards are kept"):
        build(source, tmp_path / "out", LAYOUT)
    monkeypatch.undo()
    build(source, tmp_path / "out", LAYOUT)
    assert shards_of(tmp_path / "out") == shards_of(records)


def test_most_clips_unusable_is_an_error_that_the_same_command_can_overcome(collection, tmp_path):
    place = shutil.copytree(collection, tmp_path / "audio")
    source = Source(dataset="csv", csv=place / "clips.csv", audio=place)
    emptied = sorted(place.glob("*/*.flac"))
    for path in emptied:
        path.rename(path.with_suffix(".away"))
    with pytest.raises(InputError, match="40 of 60 clips could not be used.*--max-quarantined"):
        build(source, tmp_path / "out", LAYOUT)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert build(source, tmp_path / "out", LAYOUT, work=Work(max_quarantined=0.7)).quarantined == 40


def test_a_folder_of_ones_own_that_is_called_parts_is_not_deleted(tmp_path):
    (tmp_path / "parts" / "dog").mkdir(parents=True)
    soundfile.write(tmp_path / "parts" / "dog" / "1.wav", tone(440, 1.0), RATE_HZ)
    with pytest.raises(InputError, match="new or empty folder"):
        build(Source(dataset="folders", audio=tmp_path / "parts"), tmp_path, LAYOUT)
    assert (tmp_path / "parts" / "dog" / "1.wav").is_file()


def test_repair_refuses_what_comes_out_otherwise(collection, tmp_path):
    """The source of a train track rots with size and time kept, and a train shard is altered: the old manifest stays as it was."""
    place = shutil.copytree(collection, tmp_path / "audio")
    source, out = Source(dataset="csv", csv=place / "clips.csv", audio=place), tmp_path / "out"
    build(source, out, LAYOUT)
    manifest = (out / "manifest.json").read_bytes()
    victim, shard = place / "train" / "00.wav", next(out.glob("train*"))
    status = victim.stat()
    victim.write_bytes(victim.read_bytes()[:-400] + bytes(400))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=f"{shard.name} is not what it was: the audio files or the libraries"):
        build(source, out, LAYOUT, work=Work(repair=True))
    assert (out / "manifest.json").read_bytes() == manifest


def test_torn_notes_cost_a_whole_build_and_nothing_else(collection, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "copy")
    (copy / "notes.json").write_bytes((copy / "notes.json").read_bytes()[:50])
    next(copy.glob("train*")).unlink()
    repaired(collection, copy)
    assert shards_of(copy) == shards_of(records)


def test_a_header_that_the_system_fails_to_read_is_no_empty_file(collection, tmp_path, monkeypatch):
    """It would plan fewer shards, for good."""
    monkeypatch.setattr(audio, "probe", lambda path: (_ for _ in ()).throw(audio.unreadable(str(path), OSError(errno.EIO, "Input/output error"))))
    with pytest.raises(InputError, match="cannot be read: Input/output error"):
        build(Source(dataset="csv", csv=collection / "clips.csv", audio=collection), tmp_path / "out", LAYOUT)
    assert not (tmp_path / "out" / "plan.json").exists()
