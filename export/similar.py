"""An index of a folder of audio, and its tracks nearest to a file: exact below 20,000 items, by a graph from there on. No TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from export import index as store
from export.index import Info, Items, Search, Status
from export.predict import Predictor
from tfmusic import audio, cli, files
from tfmusic.config import InputError, printable

DEFAULT_OUT = "similar.index"
SEGMENT_FILES = 128  # a kill loses the files of one segment
MARGIN = 8  # items asked for beyond the wanted ones, for links to the query itself

Embed = Callable[[Path], np.ndarray]


def load(bundle: Path, threads: int | None = None) -> tuple[Info, Embed]:
    """What an index must say of a bundle's model, and its function from path to unit vector `[shape=(dims,)]`, for one thread at a time.

    Raises:
        InputError: not a bundle, or a model without embedding.
    """
    with cli.hush():
        predictor = Predictor(bundle, threads=threads)
    info = predictor.info
    if "embedding" not in info.outputs:
        raise InputError(f"the model of {printable(bundle)} must have an embedding, got {', '.join(info.outputs)}")
    about = f"{info.sample_rate_hz} {info.hop_s} {info.short}"  # how a file becomes windows
    sha256 = hashlib.sha256((bundle / info.files["float32"]).read_bytes() + about.encode()).hexdigest()

    def embed(path: Path) -> np.ndarray:
        vector = predictor.embedding(path)
        if not (np.isfinite(vector).all() and vector.any()):
            raise audio.AudioError(f"{printable(path)} has an embedding without direction: zero or not finite")
        return vector

    return Info(bundle=bundle.resolve().as_uri(), model_sha256=sha256, dims=info.outputs["embedding"]), embed


# --- build --------------------------------------------------------------------------------------------------------------------------------
def build(bundle: Path, directory: Path, out: Path | None = None) -> dict[str, int]:
    """Makes the index of a folder, or brings it up to date: embeds new and changed files, drops those that are gone.

    Args:
        bundle: directory that `python -m export bundle` wrote, of a model with an embedding.
        directory: folder of audio; names that begin with a dot are left out, links to folders not followed.
        out: directory of the index. Default: DIRECTORY/similar.index.

    Returns:
        Numbers of files added, changed, gone, unchanged and failed, the last with a line each on stderr; they are tried again next time.

    Raises:
        InputError: no audio, an index of another model or folder, another build at work.
        KeyboardInterrupt: Ctrl-C; the finished segments are kept.
    """
    loaded = [load(bundle, threads=1) for _ in range(cli.cores())]  # the interpreter lets other threads run
    out = out or directory / DEFAULT_OUT
    found, unseen = scan(directory)
    if not found:
        raise InputError(f"{printable(directory)} must hold audio files, got none that can be read ({' '.join(sorted(files.AUDIO_SUFFIXES))})")
    out.mkdir(parents=True, exist_ok=True)
    with files.locked(out):
        info, items = store.begin(out, loaded[0][0].model_copy(update={"directory": directory.resolve().as_uri()}))
        known = dict(zip(items.paths, map(tuple, items.status.tolist()), strict=True))
        todo = {path: status for path, status in found.items() if known.get(path) != status}
        done: set[str] = set()
        try:
            for segment in _segments([embed for _, embed in loaded], directory, todo):
                info = store.append(out, info, segment)
                done.update(segment.paths)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the finished segments are kept, the same command goes on") from None
        store.finish(out, info, found)
    counts = {
        "added": len(done - set(known)),
        "changed": len(done & set(known)),
        "gone": len(set(known) - set(found)),
        "unchanged": len(found) - len(todo),
        "failed": unseen + len(todo) - len(done),
    }
    print(f"{printable(out)}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")
    return counts


def scan(directory: Path) -> tuple[dict[str, Status], int]:
    """Audio files below a folder, sorted by their paths relative to it; and how many files and folders cannot be read, a line each on stderr.

    Raises:
        InputError: not a folder, or its disk or network failed.
    """
    if not directory.is_dir():
        raise InputError(f"{printable(directory)} must be a folder of audio files")
    found, failures = {}, []

    def failed(error: OSError) -> None:
        reason = audio.unreadable(printable(error.filename), error)
        if isinstance(reason, audio.UnreadableError):  # a mount that fails must not empty the index
            raise reason
        print(f"error: {reason}", file=sys.stderr)
        failures.append(reason)

    for folder, folders, names in os.walk(directory, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if os.path.splitext(name)[1].lower() in files.AUDIO_SUFFIXES and not name.startswith("."):
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                    if stat.S_ISREG(status.st_mode):
                        found[os.path.relpath(path, directory)] = status.st_size, status.st_mtime_ns
                except OSError as error:
                    failed(error)
    return dict(sorted(found.items())), len(failures)


def _segments(embedders: Sequence[Embed], directory: Path, todo: dict[str, Status]) -> Iterator[Items]:
    """Embeds files in threads; a file that fails has a line on stderr."""
    thread, left = threading.local(), list(embedders)

    def embed(path: str) -> np.ndarray | audio.AudioError:
        try:
            return thread.embed(directory / path)
        except audio.AudioError as error:
            return error

    names, pool = list(todo), ThreadPoolExecutor(len(left), initializer=lambda: setattr(thread, "embed", left.pop()))
    with cli.progress(total=len(todo), unit="file", desc="embed", disable=not todo) as bar:
        try:
            for first in range(0, len(names), SEGMENT_FILES):
                paths, vectors = names[first : first + SEGMENT_FILES], {}
                for path, vector in zip(paths, pool.map(embed, paths), strict=True):
                    bar.update()
                    if isinstance(vector, audio.AudioError):
                        bar.write(f"error: {vector}", file=sys.stderr)
                    else:
                        vectors[path] = vector
                if vectors:
                    yield Items(tuple(vectors), np.array([todo[path] for path in vectors], np.int64), np.stack(list(vectors.values())))
        finally:
            pool.shutdown(cancel_futures=True)


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
    if not audio_files or top < 1:
        raise InputError(f"similar query needs an audio file or more and --top > 0, got {len(audio_files)} files and --top {top}")
    info, items = store.read(index)
    if not items.paths:
        raise InputError(f"{printable(index)} must hold at least one item, got none")
    bundle = bundle or store.path_of(info.bundle)
    if not bundle.is_dir():
        raise InputError(f"the bundle {printable(bundle)} that the index was built with is gone; name it with --bundle")
    model, embed = load(bundle)
    store.check_model(index, info, model)
    directory, search = store.path_of(info.directory), store.searcher(index, info, items)
    document = []
    for path in audio_files:
        try:
            with cli.hush():
                vector = embed(path)
        except audio.AudioError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        near = [(printable(directory / items.paths[row]), score) for row, score in nearest(vector, items, search, top, directory, path)]
        document.append({"file": printable(path), "neighbours": [{"file": name, "score": round(score, 6)} for name, score in near]})
        if not json_output:
            print("\n".join([printable(path), *(f"  {score:6.3f}  {name}" for name, score in near)]))
    if json_output:
        print(json.dumps(document, indent=1))
    return len(audio_files) - len(document)


def nearest(vector: np.ndarray, items: Items, search: Search, top: int, directory: Path, path: Path) -> list[tuple[int, float]]:
    """Rows and cosine similarities of the items nearest to an embedding, nearest first; `path` itself and links to it are left out."""
    asked, own = top + MARGIN, os.path.realpath(path)
    while True:
        rows = search(vector, min(asked, len(items.paths)))
        scores = np.clip(items.embeddings[rows] @ vector, -1, 1)
        ranked = [(int(rows[place]), float(scores[place])) for place in np.lexsort((rows, -scores))]
        others = [(row, score) for row, score in ranked if os.path.realpath(directory / items.paths[row]) != own]
        if len(others) >= top or asked >= len(items.paths):
            return others[:top]
        asked *= 4
