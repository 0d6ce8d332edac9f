"""The index of a folder: what is near comes first, a build does only what is new, and no kill, damage or other model passes unseen."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from export import similar
from tests.conftest import ROOT
from tfmusic import audio
from tfmusic.config import InputError

MODEL = similar.Info(bundle="file:///none", directory="", model_sha256="a" * 64, dims=3)


def embed(path):
    """The file's own numbers as a vector of unit length; a file that says broken is broken."""
    text = Path(path).read_text()
    if "broken" in text:
        raise audio.AudioError(f"{path} is damaged")
    vector = np.array(text.split(), np.float32)
    return vector / np.linalg.norm(vector)


def write(directory, **tracks):
    for name, text in tracks.items():
        path = directory / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


@pytest.fixture
def music(tmp_path):
    """East, a copy of it, one 45 degrees off, north (90 degrees) and west (180 degrees)."""
    return write(tmp_path / "music", east="1 0 0", east_copy="1 0 0", between="1 1 0", north="0 1 0", west="-1 0 0")


def update(music, out, model=MODEL, embedders=(embed,)):
    return similar.update(embedders, model, music, out)


def counts(added=0, changed=0, gone=0, unchanged=0, failed=0):
    return similar.Counts(added, changed, gone, unchanged, failed)


def ask(index, *paths, top=10, capsys=None):
    capsys.readouterr()
    assert similar.answer(embed, index, paths, top, True) == 0
    answers = json.loads(capsys.readouterr().out)
    return [[(Path(near["file"]).name, near["score"]) for near in answer["neighbours"]] for answer in answers]


def contents(index):
    """Path to embedding of all rows."""
    items, _ = similar.read_items(index, similar.read_info(index))
    assert len(set(items.paths)) == len(items.paths) == len(items.status) == len(items.embeddings)
    return {path: tuple(vector.tolist()) for path, vector in zip(items.paths, items.embeddings, strict=True)}


def leftovers(index):
    return {path.name for path in index.iterdir()} - {
        similar.INDEX,
        similar.LOCK,
        *similar.read_info(index).segments,
        *similar.read_info(index).graph,
    }


# --- nearest -------------------------------------------------------------------------------------------------------------------------------
def test_neighbours_come_by_cosine_without_the_query_itself(music, tmp_path, capsys):
    """cos 0 = 1 for the copy, which stays; cos 45 degrees = .7071; 0; -1. A file outside the index, twice as loud as east, meets east too."""
    update(music, tmp_path / "index")
    rest = [("between.wav", 0.707107), ("north.wav", 0.0), ("west.wav", -1.0)]
    outside = write(tmp_path, query="2 0 0") / "query.wav"
    first, second = ask(tmp_path / "index", music / "east.wav", outside, capsys=capsys)
    assert first == [("east_copy.wav", 1.0), *rest]
    assert second == [("east.wav", 1.0), ("east_copy.wav", 1.0), *rest]
    assert ask(tmp_path / "index", outside, top=2, capsys=capsys) == [second[:2]]


def test_the_query_is_left_out_under_any_name_of_it_and_however_many_links_there_are(music, tmp_path, capsys, monkeypatch):
    for number in range(30):  # more than are asked for beyond top
        (music / f"link{number}.wav").symlink_to(music / "east.wav")
    update(music, tmp_path / "index")
    monkeypatch.chdir(music)
    (near,) = ask(tmp_path / "index", Path("../music/east.wav"), top=2, capsys=capsys)
    assert near == [("east_copy.wav", 1.0), ("between.wav", 0.707107)]


def test_text_shows_scores_and_a_broken_query_costs_one_line(music, tmp_path, capsys):
    update(music, tmp_path / "index")
    write(tmp_path, bad="broken", silent="0 0 nan", good="0 1 0")
    files = [tmp_path / "bad.wav", tmp_path / "silent.wav", tmp_path / "good.wav"]
    capsys.readouterr()
    assert similar.answer(embed, tmp_path / "index", files, 1, False) == 2
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/good.wav\n   1.000  {music}/north.wav\n"
    assert err == f"error: {tmp_path}/bad.wav is damaged\nerror: {tmp_path}/silent.wav has an embedding without direction: zero or not finite\n"


def clustered(items, dims=32, clusters=100):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(clusters, dims))[random.integers(0, clusters, items)] + random.normal(0, 0.6, (items, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def planted(index, vectors, monkeypatch):
    """An index of vectors without their files, as a build would write it, and its answers from graph and from all."""
    index.mkdir()
    info = MODEL.model_copy(update={"dims": vectors.shape[1], "directory": index.as_uri()})
    status = np.zeros((len(vectors), 2), np.int64)
    info = similar._appended(index, info, similar.Items(tuple(f"{row}.wav" for row in range(len(vectors))), status, vectors, None))
    monkeypatch.setattr(similar, "APPROXIMATE_ITEMS", 1000)
    similar._publish(index, similar._with_graph(index, info))
    return similar.read_info(index)


def test_the_graph_finds_what_exact_search_finds(tmp_path, monkeypatch, capsys):
    """Recall@10 of the graph over 200 queries, against a full sort; the scores are the exact ones."""
    pytest.importorskip("voyager", reason="voyager is not installed: pip install voyager")
    vectors = clustered(5200)
    vectors, queries = vectors[:5000], vectors[5000:]
    info = planted(tmp_path / "index", vectors, monkeypatch)
    assert len(info.graph) == 1 and not leftovers(tmp_path / "index")
    items, _ = similar.read_items(tmp_path / "index", info)
    search = similar.searcher(tmp_path / "index", info, items)
    assert search.__name__ == "approximate" and not capsys.readouterr().err.startswith("note")
    found = 0
    for query in queries:
        near = similar.nearest(query, items, search, 10, tmp_path, tmp_path / "query.wav")
        scores = vectors @ query
        found += len({row for row, _ in near} & set(np.argsort(-scores)[:10].tolist()))
        np.testing.assert_allclose([score for _, score in near], scores[[row for row, _ in near]], atol=1e-6)
    assert found / 2000 >= 0.95


@pytest.mark.parametrize("harm", ["delete", "flip", "library", "unmade", "stale"])
def test_without_its_graph_a_query_searches_exactly_and_says_so(harm, tmp_path, monkeypatch, capsys):
    if harm == "library":
        monkeypatch.setitem(sys.modules, "voyager", None)
    else:
        pytest.importorskip("voyager", reason="voyager is not installed: pip install voyager")
    vectors, index = clustered(1200), tmp_path / "index"
    info = planted(index, vectors, monkeypatch)
    for name in info.graph:
        content = bytearray((index / name).read_bytes())
        content[len(content) // 2] ^= 1
        {"delete": (index / name).unlink, "flip": lambda: (index / name).write_bytes(content)}.get(harm, lambda: None)()  # noqa: B023
    if harm == "unmade":
        info = info.model_copy(update={"graph": {}})
    if harm == "stale":
        info = info.model_copy(update={"graph_of": "other"})
    search = similar.searcher(index, info, similar.read_items(index, info)[0])
    expected = {"delete": "No such file", "flip": "is damaged", "library": "voyager", "unmade": "not made yet", "stale": "of an earlier state"}[harm]
    assert expected in capsys.readouterr().err
    assert set(search(vectors[5], 7)) == set(np.argsort(-(vectors @ vectors[5]))[:7])
    if harm != "library":
        assert len(similar._with_graph(index, info).graph) == 1
        assert "items to the graph" in capsys.readouterr().err


def test_the_graph_follows_what_comes_and_goes(tmp_path, monkeypatch, capsys):
    """60 of 64 files stay: the graph loses 4 and gains 4, and never names a row that is gone; when a fifth is dead it is made anew."""
    pytest.importorskip("voyager", reason="voyager is not installed: pip install voyager")
    monkeypatch.setattr(similar, "APPROXIMATE_ITEMS", 40)
    vectors, index = clustered(64, dims=3), tmp_path / "index"
    music = write(tmp_path / "music", **{f"{row:02d}": " ".join(map(str, vector)) for row, vector in enumerate(vectors)})
    update(music, index)
    nodes = []
    for first, number in ((0, 4), (4, 4), (8, 16)):
        for row in range(first, first + number):
            (music / f"{row:02d}.wav").unlink()
            write(music, **{f"new{row:02d}": f"{row} 1 -1"})
        capsys.readouterr()
        assert update(music, index) == counts(added=number, gone=number, unchanged=64 - number)
        info = similar.read_info(index)
        items, _ = similar.read_items(index, info)
        search = similar.searcher(index, info, items)
        assert search.__name__ == "approximate" and not leftovers(index)
        for row in range(64):
            near = similar.nearest(items.embeddings[row], items, search, 64, music, music / items.paths[row])
            assert {other for other, _ in near} == set(range(64)) - {row}
        nodes.append(len(similar._read_graph(index, info)))
    assert nodes == [68, 72, 64]


# --- build ---------------------------------------------------------------------------------------------------------------------------------
def test_a_second_build_does_only_what_is_new(music, tmp_path, capsys):
    index, asked = tmp_path / "index", []

    def watched(path):
        asked.append(path.name)
        return embed(path)

    assert update(music, index) == counts(added=5)
    before = {path.name: path.stat().st_mtime_ns for path in index.iterdir() if path.name != similar.LOCK}
    assert update(music, index, embedders=[watched]) == counts(unchanged=5) and not asked
    assert {path.name: path.stat().st_mtime_ns for path in index.iterdir() if path.name != similar.LOCK} == before
    write(music, **{"sub/up": "0 0 1"}, west="-1 0 -1")
    (music / "north.wav").unlink()
    assert update(music, index, embedders=[watched]) == counts(added=1, changed=1, gone=1, unchanged=3)
    assert sorted(asked) == ["up.wav", "west.wav"] and not leftovers(index)
    update(music, tmp_path / "fresh")
    assert contents(index) == contents(tmp_path / "fresh")
    assert "1 added, 1 changed, 1 gone, 3 unchanged, 0 failed" in capsys.readouterr().out
    os.utime(music / "east.wav", ns=(1, 1))
    assert update(music, index) == counts(changed=1, unchanged=4)


def test_a_broken_file_costs_a_line_and_is_tried_again(music, tmp_path, capsys):
    index = tmp_path / "index"
    update(music, index)
    write(music, new="broken", east="broken now")
    (music / "dangling.wav").symlink_to("nowhere")
    for tries in range(2):
        capsys.readouterr()
        assert update(music, index) == counts(unchanged=4, failed=3), tries
        err = capsys.readouterr().err
        assert all(line in err for line in ("new.wav is damaged", "east.wav is damaged", "dangling.wav cannot be read: No such file"))
    write(music, new="1 2 3")
    assert update(music, index) == counts(added=1, unchanged=4, failed=2)


def test_only_audio_is_taken(music, tmp_path):
    """Neither covers nor hidden files, a pipe that would wait forever, the index itself, nor folders behind links; names may be any bytes."""
    (music / "cover.jpg").write_text("1 1 1")
    write(music, **{"._east": "broken", ".trash/old": "broken"})
    os.mkfifo(music / "pipe.wav")
    (music / "loop").symlink_to(music)
    (music / os.fsdecode(b"caf\xe9.FLAC")).write_text("1 2 3")
    assert update(music, music / similar.DEFAULT_OUT) == counts(added=6)
    assert update(music, music / similar.DEFAULT_OUT) == counts(unchanged=6)
    assert os.fsdecode(b"caf\xe9.FLAC") in contents(music / similar.DEFAULT_OUT)


def test_a_folder_with_any_bytes_in_its_name_is_asked_and_moved(music, tmp_path, capsys):
    odd = music.rename(tmp_path / os.fsdecode(b"m\xfcsic %41"))
    update(odd, odd / "index")
    assert len(ask(odd / "index", odd / "east.wav", capsys=capsys)[0]) == 4
    similar.answer(embed, odd / "index", [odd / "east.wav"], 1, False)
    assert r"m\xfcsic %41/east_copy.wav" in capsys.readouterr().out
    moved = odd.rename(tmp_path / "moved")
    assert update(moved, moved / "index") == counts(unchanged=5)
    assert ask(moved / "index", moved / "east.wav", top=1, capsys=capsys) == [[("east_copy.wav", 1.0)]]


def test_workers_share_the_files_and_each_embedder_serves_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(similar, "SEGMENT_FILES", 16)
    music = write(tmp_path / "music", **{f"{number:02d}": f"{number} 1 0" for number in range(40)})
    clashes, calls = [], [0] * 3

    def worker(own):
        busy = []

        def one(path):
            clashes.extend(busy)
            busy.append(path)
            calls[own] += 1
            time.sleep(0.002)
            busy.remove(path)
            return embed(path)

        return one

    assert update(music, tmp_path / "index", embedders=[worker(own) for own in range(3)]) == counts(added=40)
    assert not clashes and sum(calls) == 40 and min(calls) > 0
    assert list(contents(tmp_path / "index")) == [f"{number:02d}.wav" for number in range(40)]
    assert len(similar.read_info(tmp_path / "index").segments) == 3


def test_many_segments_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(similar, "SEGMENT_FILES", 1)
    monkeypatch.setattr(similar, "MAX_SEGMENTS", 4)
    music = write(tmp_path / "music", **{f"{number}": f"{number} 1 0" for number in range(6)})
    update(music, tmp_path / "index")
    assert list(similar.read_info(tmp_path / "index").segments) == ["segment-000007.npz"] and not leftovers(tmp_path / "index")
    assert update(music, tmp_path / "index") == counts(unchanged=6)
    assert contents(tmp_path / "index")["5.wav"] == tuple(embed(music / "5.wav").tolist())


# --- what goes wrong -----------------------------------------------------------------------------------------------------------------------
def test_kill_9_loses_the_segment_in_work_only(tmp_path):
    music, index = write(tmp_path / "music", **{f"{number:02d}": f"{number} 1 0" for number in range(30)}), tmp_path / "index"
    code = (
        "import sys, time, pathlib\nfrom export import similar\nfrom tests import test_similar as test\nsimilar.SEGMENT_FILES = 3\n"
        "slow = lambda path: (time.sleep(.03), test.embed(path))[1]\n"
        "test.update(*map(pathlib.Path, sys.argv[1:]), embedders=[slow])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, music, index], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (index / similar.INDEX).exists() or len(similar.read_info(index).segments) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(InputError, match="another build is at work"):
        update(music, index)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(contents(index))
    assert 9 <= kept < 30 and kept % 3 == 0
    assert update(music, index) == counts(added=30 - kept, unchanged=kept)
    update(music, tmp_path / "fresh")
    assert contents(index) == contents(tmp_path / "fresh") and not leftovers(index)


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def test_a_kill_before_or_after_any_rename_leaves_an_index_that_goes_on(music, tmp_path, monkeypatch):
    """Every rename of a build that drops, appends, rewrites and makes a graph: a kill before it or after it, then the same command."""
    monkeypatch.setattr(similar, "SEGMENT_FILES", 1)
    monkeypatch.setattr(similar, "MAX_SEGMENTS", 2)
    monkeypatch.setattr(similar, "APPROXIMATE_ITEMS", 3)
    replace, renames = os.replace, 0
    for step in range(100):
        index = tmp_path / f"index{step}"
        write(music, east="1 0 0", north="0 1 0")
        update(music, index)
        (music / "north.wav").unlink()
        write(music, east="1 0 1")
        renames = 0

        def counted(source, target):
            nonlocal renames
            renames += 1
            if renames == step // 2 + 1:  # noqa: B023
                if step % 2:  # noqa: B023
                    replace(source, target)
                raise Killed
            replace(source, target)

        monkeypatch.setattr(os, "replace", counted)
        try:
            update(music, index)
        except Killed:
            monkeypatch.setattr(os, "replace", replace)
            state = contents(index)
            assert {"between.wav", "east_copy.wav", "west.wav"} <= set(state)
            update(music, index)
        else:
            assert step >= 8  # and two with a graph
            return
        assert set(contents(index)) == {"between.wav", "east_copy.wav", "west.wav", "east.wav"} and not leftovers(index)
        assert contents(index)["east.wav"] == tuple(embed(music / "east.wav").tolist())
    raise AssertionError("the build never ended")


def test_ctrl_c_keeps_the_finished_segments_and_says_so(music, tmp_path, monkeypatch):
    monkeypatch.setattr(similar, "SEGMENT_FILES", 2)
    calls = []

    def interrupted(path):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return embed(path)

    with pytest.raises(KeyboardInterrupt, match="the finished segments are kept"):
        update(music, tmp_path / "index", embedders=[interrupted])
    assert update(music, tmp_path / "index") == counts(added=3, unchanged=2)


@pytest.mark.parametrize("harm", ["cut", "flip", "delete"])
def test_a_damaged_segment_refuses_a_query_and_is_mended_by_a_build(harm, music, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(similar, "SEGMENT_FILES", 2)
    index = tmp_path / "index"
    update(music, index)
    path = index / list(similar.read_info(index).segments)[1]
    content = bytearray(path.read_bytes())
    content[300] ^= 4
    {"cut": lambda: path.write_bytes(content[:-9]), "flip": lambda: path.write_bytes(content), "delete": path.unlink}[harm]()
    with pytest.raises(InputError, match=f"{path.name} (is damaged|cannot be read: No such file or directory); the build command mends it$"):
        similar.answer(embed, index, [music / "east.wav"], 3, False)
    assert update(music, index) == counts(added=2, unchanged=3)
    assert path.name in capsys.readouterr().err
    assert len(ask(index, music / "east.wav", capsys=capsys)[0]) == 4


def test_a_query_reads_on_while_a_build_replaces_the_segments(music, tmp_path, monkeypatch):
    index = tmp_path / "index"
    update(music, index)
    read, again = similar._read, []

    def late(*arguments):
        if not again:  # between index.json and its segments
            again.append(True)
            (music / "west.wav").unlink()
            monkeypatch.setattr(similar, "_read", read)
            update(music, index)
        return read(*arguments)

    monkeypatch.setattr(similar, "_read", late)
    info, items = similar._read_settled(index)
    assert again and len(items.paths) == 4 and info == similar.read_info(index)


def test_what_does_not_fit_is_one_line(music, tmp_path, monkeypatch):
    index, empty = tmp_path / "index", tmp_path / "empty"
    empty.mkdir()
    update(music, index)
    other = MODEL.model_copy(update={"model_sha256": "b" * 64})
    cases = {
        "must hold audio files, got none": lambda: update(empty, tmp_path / "new"),
        "must be a folder": lambda: update(tmp_path / "nowhere", tmp_path / "new"),
        "built with the model of sha256 aaaaaaaaaaaa, got bbbbbbbbbbbb": lambda: update(music, index, other),
        "is the index of .*music; choose another": lambda: update(write(tmp_path / "more", x="1 1 1"), index),
        "new or empty folder, got .*music with other": lambda: update(music, music),
        "must be an index with index.json: No such file": lambda: similar.answer(embed, empty, [music / "east.wav"], 1, False),
        "must be an index with index.json: Not a dir": lambda: similar.answer(embed, music / "east.wav", [music / "east.wav"], 1, False),
        "needs an audio file or more": lambda: similar.answer(embed, index, [], 1, False),
        "--top > 0, got 1 files and --top 0": lambda: similar.answer(embed, index, [music / "east.wav"], 0, False),
    }
    for message, act in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists() and len(contents(index)) == 5
    for text in ("{", "[]", '{"format": 2}', "\xff"):
        (index / similar.INDEX).write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match="index.json is damaged or of another version; delete"):
            similar.answer(embed, index, [music / "east.wav"], 1, False)


def test_a_disk_that_fails_does_not_empty_the_index(music, tmp_path, monkeypatch):
    update(music, tmp_path / "index")
    status = os.stat

    def failing(path, **options):
        if str(path).endswith("north.wav"):
            raise OSError(5, "Input/output error", path)
        return status(path, **options)

    monkeypatch.setattr(similar.os, "stat", failing)
    with pytest.raises(InputError, match="north.wav cannot be read: Input/output error"):
        update(music, tmp_path / "index")
    assert len(contents(tmp_path / "index")) == 5


# --- through the bundle --------------------------------------------------------------------------------------------------------------------
class FakePredictor:
    """A bundle whose model.tflite is the number of dims; `embed` stands for it."""

    def __init__(self, bundle, precision="float32", threads=None):
        dims = int((bundle / "model.tflite").read_text())
        self.info = types.SimpleNamespace(outputs={"embedding": dims}, files={"float32": "model.tflite"})
        self.embedding = embed


def test_build_and_query_use_the_bundle_and_refuse_another(music, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(similar, "Predictor", FakePredictor)
    for name, text in {"bundle": "3", "same": "3", "other": "3 ", "tags": "0"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.tflite").write_text(text)
    assert similar.build(tmp_path / "bundle", music) == counts(added=5)
    index = music / similar.DEFAULT_OUT
    assert similar.query(index, [music / "east.wav"], top=1) == 0
    assert similar.query(index, [music / "east.wav"], top=1, bundle=tmp_path / "same") == 0
    assert capsys.readouterr().out.count(f"   1.000  {music}/east_copy.wav\n") == 2
    with pytest.raises(InputError, match="built with the model of sha256"):
        similar.query(index, [music / "east.wav"], bundle=tmp_path / "other")
    with pytest.raises(InputError, match="must have an embedding, got tags only"):
        similar.build(tmp_path / "tags", music, tmp_path / "new")
    assert similar.build(tmp_path / "same", music) == counts(unchanged=5)
    assert similar.read_info(index).bundle.endswith("/same")
