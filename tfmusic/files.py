"""Where files are, here or in a bucket, and how they are written so that a kill leaves no half one.

A location is a `pathlib.Path`, or a `RemotePath` with the same methods on tf.io.gfile, so most code needs not know which it has.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import re
import shutil
import threading
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import pydantic

from tfmusic.config import InputError, printable

AUDIO_SUFFIXES = frozenset({
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".au", ".aif", ".aiff", ".caf",
    ".m4a", ".aac", ".wma", ".mp4", ".webm",  # libsndfile reads none of these: listed, so that a line says it
})  # fmt: skip
SCHEMES = ("gs", "ram")  # what TensorFlow 2.21 opens by itself; ram:// lives as long as the process and is for tests
LOCK = ".lock"

PAUSES_S = (1.0, 3.0)  # before a bucket is asked again


class RemotePath(PurePosixPath):
    """A path such as gs://bucket/folder, with the part of `pathlib.Path` that tfmusic uses."""

    def __str__(self) -> str:
        return re.sub(r"^(\w+):/(?=[^/])", r"\1://", super().__str__())

    def __fspath__(self) -> str:
        return str(self)

    def __reduce__(self):
        return location, (str(self),)

    def open(self, mode: str = "r", encoding: str = "utf-8", newline: str | None = None) -> Any:
        """A seekable binary ("rb") or text ("r") file to read from.

        Raises:
            FileNotFoundError: it is not there.
            OSError: the bucket cannot be reached.
        """
        buffered = io.BufferedReader(_RemoteFile(self), 256 * 1024)
        return buffered if mode == "rb" else io.TextIOWrapper(buffered, encoding, newline=newline)

    def read_bytes(self) -> bytes:
        """The whole content; a bucket that fails is asked again, twice."""
        for pause_s in PAUSES_S:
            try:
                return self._read()
            except FileNotFoundError:
                raise
            except OSError:
                time.sleep(pause_s)
        return self._read()

    def _read(self) -> bytes:
        with self.open("rb") as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        with self.open("r", encoding) as file:
            return file.read()

    def exists(self) -> bool:
        return _do(self, "exists")

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def is_dir(self) -> bool:
        return _do(self, "isdir")

    def iterdir(self) -> Iterator[RemotePath]:
        return (self / name.rstrip("/") for name in _do(self, "listdir"))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        _do(self, "makedirs")

    def stat(self) -> types.SimpleNamespace:
        found = _do(self, "stat")
        return types.SimpleNamespace(st_size=found.length, st_mtime_ns=found.mtime_nsec)

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.exists():
            _do(self, "remove")

    def resolve(self) -> RemotePath:
        return self

    def absolute(self) -> RemotePath:
        return self


def location(text: str | os.PathLike) -> Path | RemotePath:
    """A path in the shape its place needs.

    Args:
        text: a local path, or gs://bucket/...; `Path("gs://bucket")`, which pathlib writes as gs:/bucket, is understood as well.

    Raises:
        InputError: another scheme, such as s3://.
    """
    if isinstance(text, RemotePath):
        return text
    scheme = re.match(r"([A-Za-z][\w+.-]+)://" if isinstance(text, str) else r"([A-Za-z][\w+.-]+):/", os.fspath(text))
    if not scheme:
        return Path(text)
    if scheme[1] not in SCHEMES:
        url = re.sub(r":/(?=[^/])", "://", os.fspath(text), count=1)  # as the user typed it
        raise InputError(f"a path must be local or begin with gs://, got {url}: TensorFlow opens no {scheme[1]}://; mount or copy it")
    return RemotePath(text)


Location = Annotated[Path, pydantic.PlainValidator(location), pydantic.PlainSerializer(str)]  # field type; the flags' parser sees Path


def walk(directory: Path | RemotePath) -> Iterator[Path | RemotePath]:
    """All files below a directory, sorted by path; links to directories are not followed."""
    if isinstance(directory, RemotePath):
        found = [folder + "/" + name for folder, _, names in _do(directory, "walk") for name in names]
        return iter(sorted(RemotePath(name) for name in found))
    return iter(sorted(path for path in directory.rglob("*") if path.is_file()))


def remove_tree(directory: Path | RemotePath) -> None:
    """Deletes a directory and everything in it."""
    if isinstance(directory, RemotePath):
        _do(directory, "rmtree")
    else:
        shutil.rmtree(directory)


@contextlib.contextmanager
def locked(directory: Path | RemotePath) -> Iterator[None]:
    """One build at a time in a local directory; the system frees the lock of a dead process, and a bucket knows no locks.

    Raises:
        InputError: another process builds there.
    """
    if isinstance(directory, RemotePath):
        yield
        return
    import fcntl  # which Windows has not: predict imports this module there

    path = directory / LOCK
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another build is at work in {printable(directory)}") from None
        except OSError:  # a mount without locks
            pass
        if not (path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))):  # its owner has just left with it
            raise InputError(f"another build was at work in {printable(directory)} until now; the same command goes on")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def publish(temporary: Path, path: Path | RemotePath) -> None:
    """Moves a complete local file to its final name: a rename here, an upload to a bucket, where an object appears when it is complete."""
    if isinstance(path, RemotePath):
        with _os_errors(path), open(temporary, "rb") as file, _do(path, "GFile", "wb") as target:
            shutil.copyfileobj(file, target, 1 << 20)
        temporary.unlink()
    else:
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # a power cut after the rename must not find it empty
        os.replace(temporary, path)


def write_npz(path: Path, **arrays: object) -> None:
    """Writes a local .npz file under its name only when complete."""
    import numpy as np  # here, so that --help does without

    with _complete(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def write_text(path: Path | RemotePath, text: str) -> None:
    """Writes a file under its name only when complete."""
    if isinstance(path, RemotePath):
        with _os_errors(path), _do(path, "GFile", "w") as file:
            file.write(text)
        return
    with _complete(path) as temporary:
        temporary.write_text(text, "utf-8")


@contextlib.contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """A temporary name beside a local path, this thread's own; what was written under it is published at the end, or removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path | RemotePath, values: Any) -> None:
    """`write_text` of JSON; nan and infinity become null, for JSON has neither."""
    write_text(path, json.dumps(_finite(values), indent=1))


def write_csv(path: Path | RemotePath, rows: list[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """`write_text` of rows; columns: those of the first row unless given."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _do(path: RemotePath, function: str, *arguments: Any) -> Any:
    """A function of tf.io.gfile."""
    import tensorflow as tf

    with _os_errors(path):
        return getattr(tf.io.gfile, function)(str(path), *arguments)


@contextlib.contextmanager
def _os_errors(path: os.PathLike) -> Iterator[None]:
    """TensorFlow's file errors as the OSError that local files raise."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "No such file", str(path)) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, " ".join(error.message.split())[:200], str(path)) from error


class Content(io.BytesIO):
    """Bytes of a file that was read whole, with its name for messages."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


class _RemoteFile(io.RawIOBase):
    """A tf.io.gfile file as Python's own kind of raw file."""

    def __init__(self, path: RemotePath):
        self.name = str(path)
        self._size = path.stat().st_size
        self._position = 0
        self._file = _do(path, "GFile", "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        if self._position >= self._size:
            return 0
        with _os_errors(self.name):
            self._file.seek(self._position)  # of the same place it costs nothing
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file, beyond the end too, which gfile's own refuses."""
        self._position = max(0, {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()
