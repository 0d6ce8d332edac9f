"""The directory of an index: embeddings of a folder's audio files, written so that a kill leaves the state before or the state after.

index.json is the whole truth: the model, the folder, and the names of the segments (embeddings, with path, size and time of their files) and
of the graph over them. The names hold the sha256 of the content; index.json is replaced in one step after what it names is written, and what
it does not name was left by a kill and goes with the next build. A build appends segments, and puts them into one in the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from tfmusic import files
from tfmusic.config import InputError, Settings, printable

INDEX = "index.json"
OURS = (f".{INDEX}.", "segment-", ".segment-", "graph-", ".graph-")  # how the names of an index's files begin
APPROXIMATE_ITEMS = 20_000  # from here on there is a graph
LINKS, CANDIDATES = 16, 200  # of the graph: links of a node, nodes that stay in the race

Status = tuple[int, int]  # of a file: size, mtime_ns
Search = Callable[[np.ndarray, int], np.ndarray]


class Info(Settings):
    """index.json. Places are file: addresses, for a path need not be text."""

    format: Literal[1] = 1
    bundle: str
    directory: str = ""
    model_sha256: str  # of all that decides an embedding
    dims: int
    segments: tuple[str, ...] = ()  # a file's row in a later one replaces its row in an earlier one
    graph: str = ""  # over the rows of just these segments


@dataclasses.dataclass(frozen=True)
class Items:
    """Rows of an index, a file each."""

    paths: tuple[str, ...]  # relative to the folder
    status: np.ndarray  # (items, 2)
    embeddings: np.ndarray  # (items, dims), float32, of unit length

    def take(self, rows: list[int]) -> Items:
        return Items(tuple(self.paths[row] for row in rows), self.status[rows], self.embeddings[rows])


def path_of(address: str) -> Path:
    """The path of a file: address."""
    return Path(os.fsdecode(urllib.parse.unquote_to_bytes(address.removeprefix("file://"))))


# --- read ---------------------------------------------------------------------------------------------------------------------------------
def read(index: Path) -> tuple[Info, Items]:
    """index.json and its rows, also while a build replaces both.

    Raises:
        InputError: not an index, or a damaged one.
    """
    info = _read_info(index)
    while True:
        try:
            return info, _read_items(index, info)
        except InputError:
            if info == (info := _read_info(index)):
                raise


def _read_info(index: Path) -> Info:
    try:
        return Info.model_validate_json((index / INDEX).read_bytes())
    except OSError as error:
        raise InputError(f"{printable(index)} must be an index with {INDEX}: {error.strerror}; make one: python -m export similar build") from error
    except ValueError as error:
        raise InputError(f"{printable(index / INDEX)} is damaged or of another version; delete {printable(index)} and build it again") from error


def _read_items(index: Path, info: Info) -> Items:
    """All rows, in the order of the segments."""
    paths, status, embeddings = [], [np.empty((0, 2), np.int64)], [np.empty((0, info.dims), np.float32)]
    for name in info.segments:
        with np.load(io.BytesIO(_read(index, name)), allow_pickle=False) as segment:
            paths += map(os.fsdecode, segment["paths"].tobytes().split(b"\0"))
            status.append(segment["status"])
            embeddings.append(segment["embeddings"])
    items = Items(tuple(paths), np.concatenate(status), np.concatenate(embeddings))
    last = {path: row for row, path in enumerate(paths)}
    return items if len(last) == len(paths) else items.take(list(last.values()))


def searcher(index: Path, info: Info, items: Items) -> Search:
    """A function from an embedding `[shape=(dims,)]` and a number to as many nearest rows, in any order."""

    def exact(vector: np.ndarray, number: int) -> np.ndarray:
        return np.argpartition(-(items.embeddings @ vector), number - 1)[:number]

    def approximate(vector: np.ndarray, number: int) -> np.ndarray:
        try:
            return graph.query(vector, number, query_ef=max(CANDIDATES, 2 * number))[0].astype(np.int64)
        except voyager.RecallError:  # it met fewer
            return exact(vector, number)

    if len(items.paths) < APPROXIMATE_ITEMS or not info.graph:  # a build at work names none
        return exact
    import voyager

    try:
        graph = voyager.Index.load(io.BytesIO(_read(index, info.graph)))
        return approximate
    except (ValueError, RuntimeError) as error:  # ours, or voyager's of another version's file
        print(f"note: searching exactly: {error}", file=sys.stderr)
        return exact


def _read(index: Path, name: str) -> bytes:
    """The very bytes that were written, so that numpy and voyager, which can crash on others, may trust them."""
    try:
        content = (index / name).read_bytes()
    except OSError as error:
        raise InputError(f"{printable(index / name)} cannot be read: {error.strerror}; the build command mends it") from error
    if hashlib.sha256(content).hexdigest() not in name:
        raise InputError(f"{printable(index / name)} is damaged; the build command mends it")
    return content


def check_model(index: Path, info: Info, model: Info) -> None:
    """Refuses a model other than that of the index."""
    if info.model_sha256 != model.model_sha256:
        raise InputError(f"{printable(index)} is of another model than {printable(path_of(model.bundle))}; name its bundle, or build another index")


# --- write, by who holds the lock ---------------------------------------------------------------------------------------------------------
def begin(out: Path, wanted: Info) -> tuple[Info, Items]:
    """A new index, or what is there of an old one; what of it is missing or damaged costs a line each on stderr.

    Raises:
        InputError: an index of another model or folder, or a folder with other files.
    """
    info = wanted
    if (out / INDEX).exists():
        old = _read_info(out)
        check_model(out, old, wanted)
        if old.directory != wanted.directory and path_of(old.directory).exists():  # if it is not there, it was moved
            raise InputError(f"{printable(out)} is the index of {printable(path_of(old.directory))}; choose another --out or delete it")
        segments = tuple(name for name in old.segments if _is_sound(out, name))
        graph = old.graph if segments == old.segments and old.graph and _is_sound(out, old.graph) else ""
        info = wanted.model_copy(update={"segments": segments, "graph": graph})
    elif not all(path.name == files.LOCK or path.name.startswith(f".{INDEX}.") for path in out.iterdir()):
        raise InputError(f"--out must be an index, or a new or empty folder, got {printable(out)} with other files in it")
    return _publish(out, info), _read_items(out, info)


def append(out: Path, info: Info, items: Items) -> Info:
    """One segment more."""
    return _publish(out, info.model_copy(update={"segments": (*info.segments, _write_segment(out, items)), "graph": ""}))


def finish(out: Path, info: Info, found: dict[str, Status]) -> None:
    """One segment of the rows whose files are in `found` with the same status, in its order, and where they are many a graph."""
    items = _read_items(out, info)
    row_of = {(path, *status): row for row, (path, status) in enumerate(zip(items.paths, items.status.tolist(), strict=True))}
    rows = [row_of[file] for file in ((path, *status) for path, status in found.items()) if file in row_of]
    if len(info.segments) > 1 or len(rows) < len(items.paths):
        items = items.take(rows)
        info = info.model_copy(update={"segments": (_write_segment(out, items),) if rows else (), "graph": ""})
    if len(rows) >= APPROXIMATE_ITEMS and not info.graph:
        info = info.model_copy(update={"graph": _write_graph(out, items.embeddings)})
    _publish(out, info)


def _write_segment(out: Path, items: Items) -> str:
    content = io.BytesIO()
    paths = b"\0".join(map(os.fsencode, items.paths))
    np.savez(content, paths=np.frombuffer(paths, np.uint8), status=items.status, embeddings=items.embeddings)
    return _write(out, "segment-{}.npz", content.getbuffer())


def _write_graph(out: Path, embeddings: np.ndarray) -> str:
    """By voyager, one wheel of .3 MB without dependencies; usearch, the other choice, brings 57 MB."""
    import voyager

    print(f"making the graph of {len(embeddings):,} items", file=sys.stderr)
    graph = voyager.Index(voyager.Space.Cosine, embeddings.shape[1], LINKS, CANDIDATES, random_seed=1, max_elements=len(embeddings))
    graph.add_items(embeddings, np.arange(len(embeddings)), num_threads=1)  # equal rows, equal bytes: more threads link in any order
    return _write(out, "graph-{}.voy", graph.as_bytes())


def _write(out: Path, pattern: str, content: bytes | memoryview) -> str:
    name = pattern.format(hashlib.sha256(content).hexdigest())
    temporary = out / f".{name}.tmp"
    temporary.write_bytes(content)
    files.publish(temporary, out / name)
    return name


def _is_sound(index: Path, name: str) -> bool:
    try:
        return bool(_read(index, name))
    except InputError as error:
        print(f"note: {error}", file=sys.stderr)
        return False


def _publish(out: Path, info: Info) -> Info:
    """Writes index.json, then deletes what it does not name."""
    files.write_text(out / INDEX, info.model_dump_json(indent=1))
    for path in out.iterdir():
        if path.name.startswith(OURS) and path.name not in (*info.segments, info.graph):
            path.unlink()
    return info
