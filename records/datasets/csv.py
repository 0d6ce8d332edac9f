"""A list of files of one's own: a csv with the columns path and tags, and optionally split, group, start_s, duration_s and targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from records.datasets.clip import SPLITS, Clip, Reader, Source, families_of, table
from tfmusic import files
from tfmusic.config import InputError
from tfmusic.files import RemotePath

SPLIT_NAMES = {**{name: name for name in SPLITS}, "": None, "training": "train", "val": "valid", "validation": "valid"}


def read(source: Source) -> Iterator[Clip]:
    """One clip per row.

    The id is the path, with the start time where there is one, so that several stretches of a file are clips of their own; they share
    their group unless a column says otherwise. A path is relative to --audio, absolute, or gs://bucket/...

    A stretch of a WAV or FLAC file is sought. One of an MP3 or Ogg file is decoded from the file's beginning, so that many stretches of one
    long file cost a decode of all before it each: convert such a file to FLAC first. Licence and size are the collection's.

    Raises:
        InputError: the csv is missing, a column is missing, or a cell is not what its column asks for.
    """
    if source.csv is None:
        raise InputError("--dataset csv needs --csv FILE")
    for line, row in table(source.csv, ("path", source.tags_column, *source.targets), "--csv must be a file of yours"):
        yield _clip(source, row, f"{source.csv} line {line}")


def _clip(source: Source, row: dict[str, str], where: str) -> Clip:
    path = row["path"].strip()
    if not path:
        raise InputError(f"{where}: path must name a file, got an empty cell")
    split = row.get("split", "").strip().lower()
    if split not in SPLIT_NAMES:
        raise InputError(f"{where}: split must be one of {', '.join(SPLITS)}, got {split!r}")
    start_s = _number(row, "start_s", where, ">= 0", lambda value: value >= 0)
    duration_s = _number(row, "duration_s", where, "> 0", lambda value: value > 0)
    return Clip(
        id=f"{path}@{start_s}" if start_s is not None else path,
        path=_located(source.audio, path, where),
        split=SPLIT_NAMES[split],
        group=row.get("group", "").strip() or path,
        labels=tuple(dict.fromkeys(tag.strip() for tag in row[source.tags_column].split("|") if tag.strip())),
        targets=tuple(math.nan if (value := _number(row, name, where)) is None else value for name in source.targets),
        start_s=start_s or 0.0,
        duration_s=duration_s,
    )


def _located(audio: Path | RemotePath, cell: str, where: str) -> Path | RemotePath:
    """The file of a cell; one that is not relative need not lie where --audio does."""
    try:
        path = files.location(cell)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return path if path.is_absolute() or isinstance(path, RemotePath) else audio / path


def _number(row: dict[str, str], column: str, where: str, rule: str = "", allowed: Callable[[float], bool] = math.isfinite) -> float | None:
    """A cell as a finite number that is allowed, none when it is empty or not there."""
    text = (row.get(column) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and allowed(value)):
        raise InputError(f"{where}: {column} must be a number{' ' if rule else ''}{rule}, got {text!r}")
    return value


READER = Reader(read, takes=("csv", "tags_column", "targets", "families"), families=families_of)
