"""An index of a folder of audio, and its tracks nearest to a file: exact to 20,000 items, by voyager's graph beyond. No TensorFlow.

index.json is the whole truth of an index: the model, the folder, and the sha256 of each segment (embeddings, and path, size and time of
their files; a path stands in one row only) and of the graph, with the fingerprint of the segments it is made of. It is replaced in one step
after what it names is written: a kill leaves the state before or the state after, and files without a name in it, which the next build
deletes. A row has a number that is never given again, its name in the graph, to which new rows are added and in which old ones are marked.

Why voyager and not usearch, on 50,000 x 128 in 500 clusters, 2 cores, 200 and 256 candidates: recall@10 .9996 and 1.0, made in 5.5 and
4.4 s, .30 and .49 ms a query; but a wheel of .3 MB without dependencies, one for all Pythons from 3.12, against 57 MB on disk. What usearch
has more, memory mapping and true removal, matters little where segments give the scores and the graph is made anew when a fifth is dead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import queue
import stat
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from export.predict import Predictor
from tfmusic import audio, cli, files
from tfmusic.config import InputError, Settings, printable

INDEX, LOCK, DEFAULT_OUT = "index.json", ".lock", "similar.index"
OURS = (f".{INDEX}.", "segment-", ".segment-", "graph-", ".graph-")  # how the names of an index's files begin
AUDIO_SUFFIXES = frozenset(".wav .flac .ogg .oga .opus .mp3 .au .aif .aiff .caf .m4a .aac .wma .mp4 .webm".split())  # the last five: to say they fail
SEGMENT_FILES, MAX_SEGMENTS = 128, 64  # a kill loses the files of one; more are put into one
APPROXIMATE_ITEMS = 20_000  # from here on a query asks the graph; exact search of 50,000 x 128 takes 1.3 ms
LINKS, CANDIDATES = 16, 200  # of the graph: links of a node, nodes that stay in the race
DEAD = 0.2  # share of the graph's nodes without a row from which it is made anew
MARGIN = 8  # items asked for beyond the wanted ones, for links to the query itself

Embedder = Callable[[Path], np.ndarray]
Search = Callable[[np.ndarray, int], np.ndarray]


class Info(Settings):
    """index.json. Places are file: addresses, for a path need not be text."""

    format: Literal[1] = 1
    bundle: str
    directory: str
    model_sha256: str  # of the .tflite
    dims: int = pydantic.Field(gt=0)
    segments: dict[str, str] = {}  # file -> sha256, oldest first
    graph: dict[str, str] = {}
    graph_of: str = ""  # fingerprint of the segments it was made of
    rows_made: int = 0

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(self.segments.values()).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Items:
    """Rows of an index."""

    paths: tuple[str, ...]  # relative to the folder
    status: np.ndarray  # (items, 2): size, mtime_ns
    embeddings: np.ndarray  # (items, dims), float32, of unit length
    numbers: np.ndarray  # (items,), int64, increasing


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a build did, in files."""

    added: int
    changed: int
    gone: int
    unchanged: int
    failed: int


# --- build --------------------------------------------------------------------------------------------------------------------------------
def build(bundle: Path, directory: Path, out: Path | None = None) -> Counts:
    """Makes the index of a folder, or brings it up to date: embeds new and changed files, drops those that are gone.

    Args:
        bundle: directory that `python -m export bundle` wrote, of a model with an embedding.
        directory: folder of audio; names that begin with a dot are left out, links to folders not followed.
        out: directory of the index. Default: DIRECTORY/similar.index.

    Returns:
        Counts; files that failed have a line each on stderr and are tried again next time.

    Raises:
        InputError: no audio, an index of another model or folder, another build at work.
        KeyboardInterrupt: Ctrl-C; the finished segments are kept.
    """
    with cli.hush():
        predictors = [Predictor(bundle, threads=1) for _ in range(os.cpu_count() or 1)]  # the interpreter lets other threads run
    return update([one.embedding for one in predictors], identity(bundle, predictors[0]), directory, out or Path(directory) / DEFAULT_OUT)


def identity(bundle: Path, predictor: Predictor) -> Info:
    """What an index must say of a bundle's model; the folder is empty yet.

    Raises:
        InputError: the model has no embedding.
    """
    info, place = predictor.info, Path(bundle)
    dims = info.outputs.get("embedding", 0)
    if not dims:
        raise InputError(f"the model of {printable(bundle)} must have an embedding, got tags only; train one with --task similarity")
    sha256 = hashlib.sha256((place / info.files["float32"]).read_bytes()).hexdigest()
    return Info(bundle=place.resolve().as_uri(), directory="", model_sha256=sha256, dims=dims)


def update(embedders: Sequence[Embedder], model: Info, directory: Path, out: Path) -> Counts:
    """`build` with functions from path to embedding `[shape=(dims,)]`, each called by one thread at a time, and the `identity` behind them."""
    found, unseen = scan(directory)
    if not found:
        raise InputError(f"{printable(directory)} must hold audio files, got none that can be read ({' '.join(sorted(AUDIO_SUFFIXES))})")
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        info = _begun(out, model.model_copy(update={"directory": directory.resolve().as_uri()}))
        items, damaged = read_items(out, info, mend=True)
        kept = np.array([found.get(path) == (size, time_ns) for path, (size, time_ns) in zip(items.paths, items.status.tolist(), strict=True)], bool)
        if damaged or not kept.all():
            info = _rewritten(out, info, items, kept)
        _publish(out, info)
        known, left = set(items.paths), {items.paths[row] for row in np.flatnonzero(kept)}
        done: set[str] = set()
        try:
            for segment in _embed(embedders, directory, {path: found[path] for path in found if path not in left}):
                info = _appended(out, info, segment)
                _publish(out, info)
                done.update(segment.paths)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the finished segments are kept, the same command goes on") from None
        if len(info.segments) > MAX_SEGMENTS:
            items, _ = read_items(out, info)
            info = _rewritten(out, info, items, np.ones(len(items.paths), bool))
            _publish(out, info)
        _publish(out, _with_graph(out, info))
    changed = len(known & done)
    counts = Counts(len(done) - changed, changed, len(known - set(found)), len(left), unseen + len(found) - len(left) - len(done))
    print(f"{printable(out)}: {', '.join(f'{count:,} {name}' for name, count in dataclasses.asdict(counts).items())}")
    return counts


def scan(directory: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """Audio files below a folder: relative path to (size, mtime_ns), sorted; and how many files and folders cannot be read, a line each.

    Raises:
        InputError: not a folder, or its disk or network failed.
    """
    if not directory.is_dir():
        raise InputError(f"{printable(directory)} must be a folder of audio files")
    found, failures, below = {}, [], len(os.path.join(directory, ""))

    def failed(error: OSError) -> None:
        reason = audio.unreadable(printable(error.filename), error)
        if isinstance(reason, audio.UnreadableError):  # a mount that fails must not empty the index
            raise reason
        failures.append(reason)

    for folder, folders, names in os.walk(directory, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith("."):
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except OSError as error:
                    failed(error)
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[path[below:]] = status.st_size, status.st_mtime_ns
    for reason in failures:
        print(f"error: {reason}", file=sys.stderr)
    return dict(sorted(found.items())), len(failures)


def _embed(embedders: Sequence[Embedder], directory: Path, todo: dict[str, tuple[int, int]]) -> Iterator[Items]:
    """Embeds files in threads and yields segments; a file that fails has a line on stderr."""
    idle: queue.SimpleQueue[Embedder] = queue.SimpleQueue()
    for embedder in embedders:
        idle.put(embedder)

    def embed(path: str) -> np.ndarray | audio.AudioError:
        embedder = idle.get()
        try:
            return _directed(embedder, directory / path)
        except audio.AudioError as error:
            return error
        finally:
            idle.put(embedder)

    if not todo:
        return
    names, pool = list(todo), ThreadPoolExecutor(len(embedders))
    with cli.progress(total=len(todo), unit="file", desc="embed") as bar:
        try:
            for first in range(0, len(todo), SEGMENT_FILES):
                rows, paths = [], names[first : first + SEGMENT_FILES]
                for path, vector in zip(paths, pool.map(embed, paths), strict=True):
                    bar.update()
                    if isinstance(vector, audio.AudioError):
                        bar.write(f"error: {vector}", file=sys.stderr)
                    else:
                        rows.append((path, todo[path], vector))
                if rows:
                    segment, status, vectors = zip(*rows, strict=True)
                    yield Items(segment, np.array(status, np.int64), np.stack(vectors), np.arange(len(segment)))
        finally:
            pool.shutdown(cancel_futures=True)


def _directed(embed: Embedder, path: Path) -> np.ndarray:
    vector = np.asarray(embed(path), np.float32)
    if not (np.isfinite(vector).all() and vector.any()):
        raise audio.AudioError(f"{printable(path)} has an embedding without direction: zero or not finite")
    return vector


def _with_graph(out: Path, info: Info) -> Info:
    """index.json with a graph of the present segments, where they have rows enough for one."""
    with contextlib.suppress(InputError):
        if info.graph_of == info.fingerprint and [_read(out, *graph) for graph in info.graph.items()]:
            return info
    items, _ = read_items(out, info)
    if len(items.paths) < APPROXIMATE_ITEMS:
        return info.model_copy(update={"graph": {}, "graph_of": ""})
    try:
        import voyager
    except ImportError:
        print("note: voyager is not installed, so queries will search exactly; pip install voyager", file=sys.stderr)
        return info
    try:
        graph = _read_graph(out, info)
        dead = set(graph.ids) - set(items.numbers.tolist())
    except (InputError, RuntimeError):
        graph = None
    if graph is None or len(dead) > DEAD * len(graph):
        graph, dead = voyager.Index(voyager.Space.Cosine, info.dims, LINKS, CANDIDATES, random_seed=1, max_elements=len(items.paths)), set()
    for number in dead:
        with contextlib.suppress(RuntimeError):  # marked by an earlier build
            graph.mark_deleted(number)
    new = ~np.isin(items.numbers, np.fromiter(graph.ids, np.int64))
    print(f"adding {new.sum():,} items to the graph for queries", file=sys.stderr)
    if new.any():  # in threads: which few neighbours the graph misses varies, the scores do not
        graph.add_items(items.embeddings[new], items.numbers[new])
    name, sha256 = _write(out, f"graph-{_number(info):06d}.voy", graph.as_bytes())
    return info.model_copy(update={"graph": {name: sha256}, "graph_of": info.fingerprint})


def _read_graph(index: Path, info: Info) -> Any:
    """The graph of any segments; voyager is there.

    Raises:
        InputError: none, or a damaged one.
        RuntimeError: voyager's, of another version's file.
    """
    import voyager

    if not info.graph:
        raise InputError("its graph is not made yet")
    [(name, sha256)] = info.graph.items()
    return voyager.Index.load(io.BytesIO(_read(index, name, sha256)))


# --- query --------------------------------------------------------------------------------------------------------------------------------
def query(index: Path, audio_files: Sequence[Path], top: int = 10, json_output: bool = False, bundle: Path | None = None) -> int:
    """Prints the tracks of an index nearest to each file, by cosine similarity in [-1, 1]; of a file in the index, itself is left out.

    Args:
        index: directory that `build` wrote.
        audio_files: what to find neighbours of.
        top: tracks for each `int > 0`.
        json_output: one JSON document instead of text.
        bundle: of the model that built the index. Default: where it lay then.

    Returns:
        Number of files that could not be used, each with a line on stderr.

    Raises:
        InputError: not an index, a damaged one, or one of another model.
    """
    info = read_info(index)
    bundle = bundle or _path(info.bundle)
    with cli.hush():
        predictor = Predictor(bundle)
    _check_model(index, info, identity(bundle, predictor))

    def embed(path: Path) -> np.ndarray:
        with cli.hush():
            return predictor.embedding(path)

    return answer(embed, index, audio_files, top, json_output)


def answer(embed: Embedder, index: Path, audio_files: Sequence[Path], top: int, json_output: bool) -> int:
    """`query` with any function from path to embedding."""
    if not audio_files or top < 1:
        raise InputError(f"similar query needs an audio file or more and --top > 0, got {len(audio_files)} files and --top {top}")
    info, items = _read_settled(index)
    if not items.paths:
        raise InputError(f"{printable(index)} must hold at least one item, got none")
    directory, search = _path(info.directory), searcher(index, info, items)
    document, failed = [], 0
    for path in audio_files:
        try:
            vector = _directed(embed, path)
        except audio.AudioError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        near = [(printable(directory / items.paths[row]), score) for row, score in nearest(vector, items, search, top, directory, path)]
        document.append({"file": printable(path), "neighbours": [{"file": name, "score": round(score, 6)} for name, score in near]})
        if not json_output:
            print("\n".join([printable(path), *(f"  {score:6.3f}  {name}" for name, score in near)]))
    if json_output:
        json.dump(document, sys.stdout, indent=1)
        print()
    return failed


def nearest(vector: np.ndarray, items: Items, search: Search, top: int, directory: Path, path: Path) -> list[tuple[int, float]]:
    """Rows and cosine similarities of the items nearest to an embedding, nearest first; `path` itself and links to it are left out."""
    asked, own = top + MARGIN, os.path.realpath(path)
    while True:
        rows = search(vector, min(asked, len(items.paths)))
        scores = np.clip(items.embeddings[rows] @ vector, -1, 1)
        order = np.lexsort((rows, -scores))
        others = [place for place in order if os.path.realpath(directory / items.paths[rows[place]]) != own]
        if len(others) >= top or asked >= len(items.paths):
            return [(int(rows[place]), float(scores[place])) for place in others[:top]]
        asked *= 4


def searcher(index: Path, info: Info, items: Items) -> Search:
    """A function from an embedding `[shape=(dims,)]` and a number to as many nearest rows, in any order."""

    def exact(vector: np.ndarray, number: int) -> np.ndarray:
        return np.argpartition(-(items.embeddings @ vector), number - 1)[:number]

    if len(items.paths) < APPROXIMATE_ITEMS:
        return exact
    try:
        import voyager

        graph = _read_graph(index, info)
        if info.graph_of != info.fingerprint:
            raise InputError("its graph is of an earlier state; the build command brings it up to date")
    except (ImportError, InputError, RuntimeError) as error:
        print(f"note: searching exactly: {error}", file=sys.stderr)
        return exact

    def approximate(vector: np.ndarray, number: int) -> np.ndarray:
        try:
            return np.searchsorted(items.numbers, graph.query(vector, number, query_ef=max(CANDIDATES, 2 * number))[0].astype(np.int64))
        except voyager.RecallError:  # it met fewer
            return exact(vector, number)

    return approximate


# --- files --------------------------------------------------------------------------------------------------------------------------------
def read_info(index: Path) -> Info:
    """Reads index.json.

    Raises:
        InputError: not an index, or one that cannot be read.
    """
    try:
        return Info.model_validate_json((index / INDEX).read_bytes())
    except OSError as error:
        hint = "make one with: python -m export similar build BUNDLE DIR"
        raise InputError(f"{printable(index)} must be an index with {INDEX}: {error.strerror}; {hint}") from error
    except ValueError as error:
        raise InputError(f"{printable(index / INDEX)} is damaged or of another version; delete {printable(index)} and build it again") from error


def read_items(index: Path, info: Info, mend: bool = False) -> tuple[Items, int]:
    """All rows in the order of the segments, and how many segments are missing or damaged: with `mend` a line each, otherwise an error.

    Raises:
        InputError: a segment is missing or damaged.
    """
    paths: list[str] = []
    status, embeddings = [np.empty((0, 2), np.int64)], [np.empty((0, info.dims), np.float32)]
    numbers, damaged = [np.empty(0, np.int64)], 0
    for name, sha256 in info.segments.items():
        try:
            content = _read(index, name, sha256)
        except InputError as error:
            if not mend:
                raise
            print(f"note: {error}", file=sys.stderr)
            damaged += 1
            continue
        with np.load(io.BytesIO(content), allow_pickle=False) as segment:
            paths += map(os.fsdecode, segment["paths"].tobytes().split(b"\0"))
            status.append(segment["status"])
            embeddings.append(segment["embeddings"])
            numbers.append(segment["numbers"])
    return Items(tuple(paths), *map(np.concatenate, (status, embeddings, numbers))), damaged


def _read_settled(index: Path) -> tuple[Info, Items]:
    """index.json and its rows, also while a build replaces both."""
    info = read_info(index)
    while True:
        try:
            return info, read_items(index, info)[0]
        except InputError:
            before, info = info, read_info(index)
            if before == info:
                raise


def _begun(out: Path, wanted: Info) -> Info:
    """index.json as it stands, with the present places in it, or a new one."""
    if not (out / INDEX).exists():
        if not all(path.name == LOCK or path.name.startswith(f".{INDEX}.") for path in out.iterdir()):
            raise InputError(f"--out must be an index, or a new or empty folder, got {printable(out)} with other files in it")
        return wanted
    info = read_info(out)
    _check_model(out, info, wanted)
    if info.directory != wanted.directory and _path(info.directory).exists():  # if it is not there, it was moved
        raise InputError(f"{printable(out)} is the index of {printable(_path(info.directory))}; choose another --out or delete it")
    return info.model_copy(update={"directory": wanted.directory, "bundle": wanted.bundle})


def _rewritten(out: Path, info: Info, items: Items, kept: np.ndarray) -> Info:
    """The kept rows in one segment in place of all."""
    rows, segments = np.flatnonzero(kept), {}
    if len(rows):
        paths = tuple(items.paths[row] for row in rows)
        name, sha256 = _segment(out, info, Items(paths, items.status[rows], items.embeddings[rows], items.numbers[rows]))
        segments = {name: sha256}
    return info.model_copy(update={"segments": segments})


def _appended(out: Path, info: Info, items: Items) -> Info:
    """One segment more, of new rows, which get their numbers here."""
    name, sha256 = _segment(out, info, dataclasses.replace(items, numbers=info.rows_made + np.arange(len(items.paths))))
    return info.model_copy(update={"segments": {**info.segments, name: sha256}, "rows_made": info.rows_made + len(items.paths)})


def _segment(out: Path, info: Info, items: Items) -> tuple[str, str]:
    content = io.BytesIO()
    paths = np.frombuffer(b"\0".join(map(os.fsencode, items.paths)), np.uint8)
    np.savez(content, paths=paths, status=items.status, embeddings=items.embeddings, numbers=items.numbers)
    return _write(out, f"segment-{_number(info) + 1:06d}.npz", content.getvalue())


def _number(info: Info) -> int:
    """Of the newest segment: higher ones are free, also for who still reads an earlier index.json."""
    return max((int(name[8:-4]) for name in info.segments), default=0)


def _write(out: Path, name: str, content: bytes) -> tuple[str, str]:
    temporary = out / f".{name}.tmp"
    temporary.write_bytes(content)
    files.publish(temporary, out / name)
    return name, hashlib.sha256(content).hexdigest()


def _read(index: Path, name: str, sha256: str) -> bytes:
    """The very bytes that were written, so that numpy and voyager, which can crash on others, may trust them."""
    try:
        content = (index / name).read_bytes()
    except OSError as error:
        raise InputError(f"{printable(index / name)} cannot be read: {error.strerror}; the build command mends it") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{printable(index / name)} is damaged; the build command mends it")
    return content


def _publish(out: Path, info: Info) -> None:
    """Writes index.json where it says something new, then deletes what it does not name."""
    if not (out / INDEX).exists() or read_info(out) != info:
        files.write_text(out / INDEX, info.model_dump_json(indent=1))
    for path in out.iterdir():
        if path.name.startswith(OURS) and path.name not in {*info.segments, *info.graph}:
            path.unlink()


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One build at a time; the system frees the lock of a dead process, and the file stays.

    Raises:
        InputError: another process builds there.
    """
    with open(out / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another build is at work in {printable(out)}") from None
        except OSError:  # a mount without locks
            pass
        yield


def _check_model(index: Path, info: Info, model: Info) -> None:
    if (info.model_sha256, info.dims) != (model.model_sha256, model.dims):
        raise InputError(
            f"{printable(index)} was built with the model of sha256 {info.model_sha256[:12]}, got {model.model_sha256[:12]} of"
            f" {printable(_path(model.bundle))}; name the right bundle, or build another index"
        )


def _path(address: str) -> Path:
    return Path(os.fsdecode(urllib.parse.unquote_to_bytes(address.removeprefix("file://"))))
