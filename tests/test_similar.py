"""The index of a folder: what is near comes first, a build does only what is new, and no kill, damage or other model passes unseen."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from export import bundle as bundling
from export import index as store
from export import similar
from tests.conftest import EXPERIMENT, ROOT
from tfmusic import audio, cli, data, evaluate, files, schema
from tfmusic.config import InputError


def embed(path):
    """The file's own numbers as a vector of unit length; a file that says broken is broken."""
    text = Path(path).read_text()
    if "broken" in text:
        raise audio.AudioError(f"{path} is damaged")
    vector = np.array(text.split(), np.float32)
    return vector / np.linalg.norm(vector)


class FakePredictor:
    """Of a bundle whose model.tflite is any text; `embed` stands for the model."""

    function = staticmethod(embed)

    def __init__(self, bundle, threads=None):
        settings = {"outputs": {"embedding": 3}, "sample_rate_hz": 8000, "hop_s": 0.5, "short": "pad", "files": {"float32": "model.tflite"}}
        self.info = types.SimpleNamespace(**settings | json.loads((bundle / "model.json").read_text()))
        self.embedding = lambda path: self.function(path)


def write(directory, **tracks):
    for name, text in tracks.items():
        path = directory / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def make_bundle(directory, content="weights", **settings):
    directory.mkdir()
    (directory / "model.tflite").write_text(content)
    (directory / "model.json").write_text(json.dumps(settings))
    return directory


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(similar, "Predictor", FakePredictor)
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def music(tmp_path):
    """East, a copy of it, one 45 degrees off, north (90 degrees) and west (180 degrees)."""
    return write(tmp_path / "music", east="1 0 0", east_copy="1 0 0", between="1 1 0", north="0 1 0", west="-1 0 0")


@pytest.fixture
def index(bundle, music, tmp_path):
    """The index of `music`."""
    similar.build(bundle, music, tmp_path / "index")
    return tmp_path / "index"


def counts(added=0, changed=0, gone=0, unchanged=0, failed=0):
    return {"added": added, "changed": changed, "gone": gone, "unchanged": unchanged, "failed": failed}


def ask(index, *paths, top=10, capsys=None):
    capsys.readouterr()
    assert similar.query(index, paths, top, True) == 0
    answers = json.loads(capsys.readouterr().out)
    return [[(Path(near["file"]).name, near["score"]) for near in answer["neighbours"]] for answer in answers]


def contents(index):
    """Path to embedding of all rows."""
    _, items = store.read(index)
    assert len(set(items.paths)) == len(items.paths) == len(items.status) == len(items.embeddings)
    return {path: tuple(vector.tolist()) for path, vector in zip(items.paths, items.embeddings, strict=True)}


def names(index):
    return {path.name for path in index.iterdir()}


def named(index):
    info, _ = store.read(index)
    return {store.INDEX, *info.segments, *([info.graph] if info.graph else [])}


# --- query ---------------------------------------------------------------------------------------------------------------------------------
def test_neighbours_come_by_cosine_without_the_query_itself(index, music, tmp_path, capsys):
    """cos 0 = 1 for the copy, which stays; cos 45 degrees = .7071; 0; -1. A file outside the index, twice as loud as east, meets east too."""
    rest = [("between.wav", 0.707107), ("north.wav", 0.0), ("west.wav", -1.0)]
    outside = write(tmp_path, query="2 0 0") / "query.wav"
    first, second = ask(index, music / "east.wav", outside, capsys=capsys)
    assert first == [("east_copy.wav", 1.0), *rest]
    assert second == [("east.wav", 1.0), ("east_copy.wav", 1.0), *rest]
    assert ask(index, outside, top=2, capsys=capsys) == [second[:2]]


def test_the_query_is_left_out_under_any_name_of_it_and_however_many_links_there_are(bundle, music, tmp_path, capsys, monkeypatch):
    for number in range(30):  # more than are asked for beyond top
        (music / f"link{number}.wav").symlink_to(music / "east.wav")
    similar.build(bundle, music, tmp_path / "index")
    monkeypatch.chdir(music)
    (near,) = ask(tmp_path / "index", Path("../music/east.wav"), top=2, capsys=capsys)
    assert near == [("east_copy.wav", 1.0), ("between.wav", 0.707107)]


def test_text_shows_scores_and_a_broken_query_costs_one_line(index, music, tmp_path, capsys):
    write(tmp_path, bad="broken", silent="0 0 nan", good="0 1 0")
    capsys.readouterr()
    assert similar.query(index, [tmp_path / "bad.wav", tmp_path / "silent.wav", tmp_path / "good.wav"], 1) == 2
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/good.wav\n   1.000  {music}/north.wav\n"
    assert err == f"error: {tmp_path}/bad.wav is damaged\nerror: {tmp_path}/silent.wav has an embedding without direction: zero or not finite\n"


def clustered(items, dims=32, clusters=100):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(clusters, dims))[random.integers(0, clusters, items)] + random.normal(0, 0.6, (items, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def planted(index, vectors, monkeypatch):
    """An index of vectors without their files, as a build would write it, with a graph."""
    monkeypatch.setattr(store, "APPROXIMATE_ITEMS", 1000)
    index.mkdir()
    info, _ = store.begin(index, store.Info(bundle="", directory=index.as_uri(), model_sha256="", dims=vectors.shape[1]))
    items = store.Items(tuple(f"{row:05d}" for row in range(len(vectors))), np.zeros((len(vectors), 2), np.int64), vectors)
    store.finish(index, store.append(index, info, items), dict.fromkeys(items.paths, (0, 0)))
    return store.read(index)


def test_the_graph_finds_what_exact_search_finds(tmp_path, monkeypatch, capsys):
    """Recall@10 over 200 queries against a full sort; the scores are the exact ones; the same rows make the same bytes."""
    vectors = clustered(3200)
    vectors, queries = vectors[:3000], vectors[3000:]
    info, items = planted(tmp_path / "index", vectors, monkeypatch)
    assert names(tmp_path / "index") == named(tmp_path / "index") == {store.INDEX, *info.segments, info.graph}
    search = store.searcher(tmp_path / "index", info, items)
    assert search.__name__ == "approximate" and "note" not in capsys.readouterr().err
    found = 0
    for query in queries:
        near = similar.nearest(query, items, search, 10, tmp_path, tmp_path / "query.wav")
        scores = vectors @ query
        found += len({row for row, _ in near} & set(np.argsort(-scores)[:10].tolist()))
        np.testing.assert_allclose([score for _, score in near], scores[[row for row, _ in near]], atol=1e-6)
    assert found / 2000 >= 0.95
    assert planted(tmp_path / "again", vectors, monkeypatch)[0].graph == info.graph


def test_without_its_graph_a_query_searches_exactly_and_says_so_and_a_build_makes_it(tmp_path, monkeypatch, capsys):
    vectors, index = clustered(1200), tmp_path / "index"
    info, items = planted(index, vectors, monkeypatch)
    path = index / info.graph
    whole = path.read_bytes()
    for harm, note in {"delete": "No such file", "flip": "is damaged", "unmade": ""}.items():
        capsys.readouterr()
        content = bytearray(whole)
        content[len(content) // 2] ^= 1
        path.unlink() if harm == "delete" else path.write_bytes(content)
        search = store.searcher(index, info.model_copy(update={"graph": ""}) if harm == "unmade" else info, items)
        said = capsys.readouterr().err
        assert note in said and bool(said) == bool(note)  # a build at work names no graph, which is no news
        assert set(search(vectors[5], 7)) == set(np.argsort(-(vectors @ vectors[5]))[:7])
        mended, _ = store.begin(index, info.model_copy(update={"segments": (), "graph": ""}))
        assert mended == info.model_copy(update={"graph": ""})
        store.finish(index, mended, dict.fromkeys(items.paths, (0, 0)))
        assert path.read_bytes() == whole and "making the graph" in capsys.readouterr().err


def test_the_graph_follows_what_comes_and_goes(bundle, tmp_path, monkeypatch):
    """60 of 64 files stay: every row finds the 63 others, and below the threshold there is no graph any more."""
    monkeypatch.setattr(store, "APPROXIMATE_ITEMS", 61)
    vectors, index = clustered(64, dims=3), tmp_path / "index"
    music = write(tmp_path / "music", **{f"{row:02d}": " ".join(map(str, vector)) for row, vector in enumerate(vectors)})
    similar.build(bundle, music, index)
    for row in range(4):
        (music / f"{row:02d}.wav").unlink()
        write(music, **{f"new{row:02d}": f"{row} 1 -1"})
    assert similar.build(bundle, music, index) == counts(added=4, gone=4, unchanged=60)
    info, items = store.read(index)
    search = store.searcher(index, info, items)
    assert search.__name__ == "approximate" and names(index) == named(index)
    for row in range(64):
        near = similar.nearest(items.embeddings[row], items, search, 64, music, music / items.paths[row])
        assert {other for other, _ in near} == set(range(64)) - {row}
    for row in range(4):
        (music / f"new{row:02d}.wav").unlink()
    similar.build(bundle, music, index)
    assert not store.read(index)[0].graph and names(index) == named(index)


# --- build ---------------------------------------------------------------------------------------------------------------------------------
def test_a_second_build_does_only_what_is_new_and_ends_where_a_first_one_would(bundle, music, index, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(FakePredictor, "function", lambda self, path: asked.append(path.name) or embed(path))
    before = store.read(index)[0]
    assert similar.build(bundle, music, index) == counts(unchanged=5) and not asked and store.read(index)[0] == before
    write(music, **{"sub/up": "0 0 1"}, west="-1 0 -1")
    (music / "north.wav").unlink()
    assert similar.build(bundle, music, index) == counts(added=1, changed=1, gone=1, unchanged=3)
    assert sorted(asked) == ["up.wav", "west.wav"] and names(index) == named(index)
    assert "1 added, 1 changed, 1 gone, 3 unchanged, 0 failed" in capsys.readouterr().out
    similar.build(bundle, music, tmp_path / "fresh")
    assert store.read(index)[0] == store.read(tmp_path / "fresh")[0]
    os.utime(music / "east.wav", ns=(1, 1))
    assert similar.build(bundle, music, index) == counts(changed=1, unchanged=4)


def test_a_broken_file_costs_a_line_and_is_tried_again(bundle, music, index, capsys):
    write(music, new="broken", east="broken now")
    (music / "dangling.wav").symlink_to("nowhere")
    for gone in (1, 0):
        capsys.readouterr()
        assert similar.build(bundle, music, index) == counts(unchanged=4, failed=3)
        assert len(contents(index)) == 4, gone
        err = capsys.readouterr().err
        assert all(line in err for line in ("new.wav is damaged", "east.wav is damaged", "dangling.wav cannot be read: No such file"))
    write(music, new="1 2 3")
    assert similar.build(bundle, music, index) == counts(added=1, unchanged=4, failed=2)


def test_only_audio_is_taken(bundle, music):
    """Neither covers nor hidden files, a pipe that would wait forever, the index itself, nor folders behind links; names may be any bytes."""
    (music / "cover.jpg").write_text("1 1 1")
    write(music, **{"._east": "broken", ".trash/old": "broken"})
    os.mkfifo(music / "pipe.wav")
    (music / "loop").symlink_to(music)
    (music / os.fsdecode(b"caf\xe9.FLAC")).write_text("1 2 3")
    assert similar.build(bundle, music) == counts(added=6)
    assert similar.build(bundle, music) == counts(unchanged=6)
    assert os.fsdecode(b"caf\xe9.FLAC") in contents(music / similar.DEFAULT_OUT)


def test_a_folder_with_any_bytes_in_its_name_is_asked_and_moved(bundle, music, tmp_path, capsys):
    odd = music.rename(tmp_path / os.fsdecode(b"m\xfcsic %41"))
    similar.build(bundle, odd, odd / "index")
    assert len(ask(odd / "index", odd / "east.wav", capsys=capsys)[0]) == 4
    similar.query(odd / "index", [odd / "east.wav"], 1)
    assert r"m\xfcsic %41/east_copy.wav" in capsys.readouterr().out
    moved = odd.rename(tmp_path / "moved")
    assert similar.build(bundle, moved, moved / "index") == counts(unchanged=5)
    assert ask(moved / "index", moved / "east.wav", top=1, capsys=capsys) == [[("east_copy.wav", 1.0)]]


def test_workers_share_the_files_and_each_predictor_serves_one_at_a_time(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(similar, "SEGMENT_FILES", 16)
    monkeypatch.setattr(similar.cli, "cores", lambda: 3)
    music = write(tmp_path / "music", **{f"{number:02d}": f"{number} 1 0" for number in range(40)})
    clashes, busy, calls = [], [], []

    def watched(self, path):
        clashes.extend(one for one in busy if one is self)
        busy.append(self)
        calls.append(self)
        time.sleep(0.002)
        busy.remove(self)
        return embed(path)

    monkeypatch.setattr(FakePredictor, "function", watched)
    assert similar.build(bundle, music, tmp_path / "index") == counts(added=40)
    assert not clashes and len(calls) == 40 and len(set(calls)) == 3
    assert list(contents(tmp_path / "index")) == [f"{number:02d}.wav" for number in range(40)]


# --- what goes wrong -----------------------------------------------------------------------------------------------------------------------
SLOW_BUILD = """
import json, pathlib, sys, time, types
sys.modules["export.predict"] = types.SimpleNamespace(Predictor=None)
import numpy as np
from export import similar

def embedding(path):
    time.sleep(0.03)
    vector = np.array(path.read_text().split(), np.float32)
    return vector / np.linalg.norm(vector)

similar.SEGMENT_FILES, similar.cli.cores = 3, lambda: 1
similar.load = lambda bundle, threads: (similar.Info.model_validate_json(sys.argv[1]), embedding)
similar.build(*map(pathlib.Path, sys.argv[2:]))
"""


def test_kill_9_loses_the_segment_in_work_only(bundle, tmp_path):
    music, index = write(tmp_path / "music", **{f"{number:02d}": f"{number} 1 0" for number in range(30)}), tmp_path / "index"
    process = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, similar.load(bundle)[0].model_dump_json(), bundle, music, index], cwd=ROOT)
    while not (index / store.INDEX).exists() or (index / store.INDEX).read_text().count(".npz") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(InputError, match="another build is at work"):
        similar.build(bundle, music, index)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(contents(index))
    assert 9 <= kept < 30 and kept % 3 == 0
    assert similar.build(bundle, music, index) == counts(added=30 - kept, unchanged=kept)
    similar.build(bundle, music, tmp_path / "fresh")
    assert store.read(index)[0] == store.read(tmp_path / "fresh")[0] and names(index) == named(index)


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_before_or_after_any_rename_leaves_an_index_that_goes_on(after, bundle, music, tmp_path, monkeypatch):
    """A build that drops, replaces, appends, merges and makes a graph renames: index.json; a segment and index.json; the merged segment, the
    graph and index.json. It is killed at each of the six; then the same command goes on."""
    monkeypatch.setattr(store, "APPROXIMATE_ITEMS", 3)
    monkeypatch.setattr(files.os, "fsync", lambda _: None)
    replace, renames = os.replace, []
    for step in range(7):
        index = tmp_path / f"index{step}"
        write(music, east="1 0 0", north="0 1 0")
        similar.build(bundle, music, index)
        (music / "north.wav").unlink()
        write(music, east="1 0 1")
        renames.clear()

        def counted(source, target):
            renames.append(target)
            if len(renames) == step + 1 and not after:  # noqa: B023
                raise Killed
            replace(source, target)
            if len(renames) == step + 1:  # noqa: B023
                raise Killed

        monkeypatch.setattr(os, "replace", counted)
        try:
            similar.build(bundle, music, index)
        except Killed:
            assert {"between.wav", "east_copy.wav", "west.wav", "east.wav"} <= set(contents(index))
            monkeypatch.setattr(os, "replace", replace)
            similar.build(bundle, music, index)
        else:
            assert step == 6
            monkeypatch.setattr(os, "replace", replace)
        assert set(contents(index)) == {"between.wav", "east_copy.wav", "west.wav", "east.wav"} and names(index) == named(index)
        assert contents(index)["east.wav"] == tuple(embed(music / "east.wav").tolist())
        assert len(named(index)) == 3


def test_ctrl_c_keeps_the_finished_segments_and_says_so(bundle, music, tmp_path, monkeypatch):
    monkeypatch.setattr(similar, "SEGMENT_FILES", 2)
    monkeypatch.setattr(similar.cli, "cores", lambda: 1)
    calls = []

    def interrupted(self, path):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return embed(path)

    monkeypatch.setattr(FakePredictor, "function", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the finished segments are kept"):
        similar.build(bundle, music, tmp_path / "index")
    assert similar.build(bundle, music, tmp_path / "index") == counts(added=3, unchanged=2)


@pytest.mark.parametrize("harm", ["cut", "flip", "delete"])
def test_a_damaged_segment_refuses_a_query_and_is_mended_by_a_build(harm, bundle, music, tmp_path, monkeypatch, capsys):
    """Of a build that was killed after two segments of two files."""
    index = tmp_path / "index"
    with monkeypatch.context() as patch:
        patch.setattr(similar, "SEGMENT_FILES", 2)
        patch.setattr(store, "finish", lambda *_: None)
        similar.build(bundle, music, index)
    path = index / store.read(index)[0].segments[1]
    content = bytearray(path.read_bytes())
    content[300] ^= 4
    {"cut": lambda: path.write_bytes(content[:-9]), "flip": lambda: path.write_bytes(content), "delete": path.unlink}[harm]()
    with pytest.raises(InputError, match=f"{path.name} (is damaged|cannot be read: No such file or directory); the build command mends it$"):
        similar.query(index, [music / "east.wav"])
    assert similar.build(bundle, music, index) == counts(added=2, unchanged=3)
    assert path.name in capsys.readouterr().err
    assert len(ask(index, music / "east.wav", capsys=capsys)[0]) == 4


def test_a_query_reads_on_while_a_build_replaces_the_segments(bundle, music, index, monkeypatch):
    read, again = store._read, []

    def late(*arguments):
        if not again:  # between index.json and its segments
            again.append(True)
            (music / "west.wav").unlink()
            similar.build(bundle, music, index)
        return read(*arguments)

    monkeypatch.setattr(store, "_read", late)
    info, items = store.read(index)
    assert again and len(items.paths) == 4 and names(index) == {store.INDEX, *info.segments}


def test_what_does_not_fit_is_one_line(bundle, music, index, tmp_path):
    empty, query = tmp_path / "empty", [music / "east.wav"]
    empty.mkdir()
    other = make_bundle(tmp_path / "other", "other weights")
    tags = make_bundle(tmp_path / "tags", outputs={"tags": 3})
    cases = {
        "must hold audio files, got none": lambda: similar.build(bundle, empty, tmp_path / "new"),
        "must be a folder": lambda: similar.build(bundle, tmp_path / "nowhere", tmp_path / "new"),
        "must have an embedding, got tags": lambda: similar.build(tags, music, tmp_path / "new"),
        "index is of another model than .*/other; name its": lambda: similar.build(other, music, index),
        "index is of another model than .*/other;": lambda: similar.query(index, query, bundle=other),
        "is the index of .*music; choose another": lambda: similar.build(bundle, write(tmp_path / "more", x="1 1 1"), index),
        "new or empty folder, got .*music with other": lambda: similar.build(bundle, music, music),
        "must be an index with index.json: No such file": lambda: similar.query(empty, query),
        "must be an index with index.json: Not a dir": lambda: similar.query(music / "east.wav", query),
        "needs an audio file or more": lambda: similar.query(index, []),
        "--top > 0, got 1 files and --top 0": lambda: similar.query(index, query, 0),
    }
    for message, act in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists() and len(contents(index)) == 5 and files.LOCK not in names(music)
    for text in ("{", "[]", '{"format": 2}', "\xff"):
        (index / store.INDEX).write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match="index.json is damaged or of another version; delete"):
            similar.query(index, query)


def test_another_pooling_is_another_model_and_a_copy_is_the_same(bundle, music, index, tmp_path):
    same = make_bundle(tmp_path / "same")
    assert similar.build(same, music, index) == counts(unchanged=5)
    assert store.read(index)[0].bundle.endswith("/same")
    for number, settings in enumerate(({"hop_s": 0.25}, {"short": "tile"}, {"sample_rate_hz": 16_000})):
        with pytest.raises(InputError, match="is of another model"):
            similar.build(make_bundle(tmp_path / f"other{number}", **settings), music, index)


def test_a_disk_that_fails_does_not_empty_the_index(bundle, music, index, monkeypatch):
    status = os.stat

    def failing(path, **options):
        if str(path).endswith("north.wav"):
            raise OSError(5, "Input/output error", path)
        return status(path, **options)

    monkeypatch.setattr(similar.os, "stat", failing)
    with pytest.raises(InputError, match="north.wav cannot be read: Input/output error"):
        similar.build(bundle, music, index)
    assert len(contents(index)) == 5


# --- with a real model ---------------------------------------------------------------------------------------------------------------------
def call(*arguments):
    return subprocess.run([sys.executable, "-m", "export", "similar", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def test_the_command_line_indexes_a_folder_and_finds_a_copy_of_a_file(trained, records, collection, tmp_path):
    """60 files of `collection` and a copy of one: equal scores of all but itself, and the embeddings are those that evaluation pools."""
    bundle, music, index = bundling.bundle(trained, tmp_path / "bundle"), tmp_path / "music", tmp_path / "index"
    shutil.copytree(collection, music)
    shutil.copy(music / "test/45.wav", music / "copy.wav")
    built = call("build", bundle, music, "--out", index)
    assert built.returncode == 0 and "61 added, 0 changed, 0 gone, 0 unchanged, 0 failed" in built.stdout, built.stderr

    asked = call("query", index, music / "test/45.wav", "--top", 100, "--json", "--bundle", bundle)
    assert asked.returncode == 0 and not asked.stderr
    ((answer),) = json.loads(asked.stdout)
    near = {Path(row["file"]): row["score"] for row in answer["neighbours"]}
    scores = list(near.values())
    assert set(near) == {path for path in music.rglob("*.*") if path.suffix in files.AUDIO_SUFFIXES} - {music / "test/45.wav"}
    assert next(iter(near)) == music / "copy.wav" and near[music / "copy.wav"] == pytest.approx(1, abs=1e-6)
    assert scores == sorted(scores, reverse=True) and -1 <= scores[-1] < 1 - 1e-3

    tracks = data.tracks(records, schema.read_manifest(records), "test")
    model = evaluate.load_best(trained)
    scored = evaluate.score_tracks(evaluate.scorer(model), tracks, EXPERIMENT.frontend, EXPERIMENT.evaluation)
    found = contents(index)
    expected = dict(zip(scored.ids, scored.outputs["embedding"], strict=True))
    assert len(expected) == 16
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), atol=1e-4)

    (music / "bad.wav").write_text("no audio")
    again = call("build", bundle, music, "--out", index)
    assert again.returncode == cli.FAILED and "61 unchanged, 1 failed" in again.stdout and "bad.wav" in again.stderr
