"""`Clip`: one item of a dataset, before any audio is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pydantic

from tfmusic.config import Settings

SPLITS = ("train", "valid", "test")
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".au", ".aif", ".aiff"})


@dataclasses.dataclass(frozen=True)
class Clip:
    """One item from a reader.

    Args:
        id: unique and stable name; shard and default split hang on it.
        path: the audio file.
        split: "train", "valid", "test", or none: by a stable hash of `group`.
        group: artist or source; never in two splits.
        labels: names of the labels.
        targets: values of the regression targets, nan where unknown.
        start_s: where the clip begins in the file, in seconds.
        duration_s: its length in seconds; none: to the file's end.
    """

    id: str
    path: Path
    split: str | None
    group: str
    labels: tuple[str, ...]
    targets: tuple[float, ...] = ()
    start_s: float = 0.0
    duration_s: float | None = None


class Source(Settings):
    """Where a dataset lies and which of its columns count."""

    dataset: str = pydantic.Field(description="Reader: csv (a list of files with tags) or folders (a class per folder).")
    audio: Path = pydantic.Field(description="Folder that the paths are relative to.")
    csv: Path | None = pydantic.Field(None, description="csv: columns path, tags (joined by |), optional split, group, start_s, duration_s.")
    tags_column: str = pydantic.Field("tags", description="csv: the column that holds the labels.")
    targets: tuple[str, ...] = pydantic.Field((), description="csv: numeric columns that become regression targets.")
