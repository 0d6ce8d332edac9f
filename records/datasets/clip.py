"""`Clip`: one item of a dataset, before any audio is read; `Source`: where a dataset lies; `Reader`: an entry of READERS."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from tfmusic.config import InputError, Settings
from tfmusic.files import Location

SPLITS = ("train", "valid", "test")
CELL_CHARACTERS = 1 << 24  # of the longest cell of a table that is read
JSON_KINDS = {dict: "object", list: "array"}


@dataclasses.dataclass(frozen=True, slots=True)
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
    """Where a dataset lies, and what of it is read."""

    dataset: str = pydantic.Field(
        description="Reader: csv (a list of files with tags), folders (a class per folder), or a dataset; `python -m records datasets` lists them."
    )
    audio: Location = pydantic.Field(description="The dataset's folder, local or gs://; of csv: the folder that the paths are relative to.")
    metadata: Location | None = pydantic.Field(None, description="Folder of the annotation files where they do not lie in --audio.")
    csv: Location | None = pydantic.Field(None, description="csv: columns path, tags (joined by |), optional split, group, start_s, duration_s.")
    tags_column: str = pydantic.Field("tags", description="csv: the column that holds the labels.")
    targets: tuple[str, ...] = pydantic.Field((), description="Numeric columns that become regression targets.")
    label_set: str | None = pydantic.Field(None, description="Which of the dataset's label sets (`records datasets`); none: its first.")
    protocol: str | None = pydantic.Field(None, description="Which of the dataset's published splits (`records datasets`); none: its first.")
    ontology: Location | None = pydantic.Field(None, description="fsd50k: the AudioSet ontology.json, for its families.")
    families: Location | None = pydantic.Field(None, description="csv, folders: a csv with columns label, family; several rows, several families.")


@dataclasses.dataclass(frozen=True)
class Reader:
    """A dataset that can be read: `READERS` has one by its name.

    Args:
        read: from a source, its label set and protocol filled in, to clips.
        label_sets: what --label-set may be, the default first; none: it takes no --label-set.
        protocols: what --protocol may be, the default first; none: it takes no --protocol.
        merges: named maps from an old to a new label, for --merge NAME.
        split_by: how clips without a split get one: "group" (a stable hash of the group) or "stratified" (equal shares of every label).
        divided: whether the official splits may divide a group; each part of it then is a group of its own, `NAME (split)`.
        takes: further fields of `Source` that it reads.
        families: from a source, filled in likewise, to the families of its labels (groups to sum figures up by, such as the top of an ontology);
            labels that have none or that no clip has may be in it. None: the dataset has no families.
    """

    read: Callable[[Source], Iterator[Clip]]
    label_sets: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    merges: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    split_by: str = "group"
    divided: bool = False
    takes: tuple[str, ...] = ()
    families: Callable[[Source], Mapping[str, tuple[str, ...]]] | None = None


def needed(path: Path, get: str) -> Path:
    """The path, when it is there.

    Args:
        path: file or folder that a reader cannot do without.
        get: what to download, and from where.

    Raises:
        InputError: it is missing.
    """
    if not path.exists():
        raise InputError(f"{path} is missing: {get}")
    return path


def table(path: Path, columns: Sequence[str], get: str, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a csv or tsv file with a header, each with its line number.

    Args:
        path: the file; utf-8, with or without byte order mark.
        columns: those that must be there; others are passed on.
        get: what to download when the file is missing.
        delimiter: between cells.

    Returns:
        (line number, cell by column name); cells beyond the header's last column are a list under the name "".

    Raises:
        InputError: the file is missing or not such a table, or a row has too few cells.
    """
    csv.field_size_limit(max(CELL_CHARACTERS, csv.field_size_limit()))  # biographies may pass the default of 131,072 characters
    try:
        with needed(path, get).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter, restkey="", restval=None)
            missing = [name for name in columns if name not in (rows.fieldnames or ())]
            if missing:
                raise InputError(f"{path} must have the column {missing[0]!r}, got {', '.join(list(rows.fieldnames or ['nothing'])[:12])}")
            for row in rows:
                if any(row[name] is None for name in columns):
                    raise InputError(f"{path} line {rows.line_num}: a row must have {len(rows.fieldnames)} cells, got fewer")
                yield rows.line_num, {name: "" if cell is None else cell for name, cell in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} must be a readable utf-8 table: {error}") from error


def families_of(source: Source) -> dict[str, tuple[str, ...]]:
    """The families of each label in the table --families; empty without one.

    Raises:
        InputError: the table is missing, lacks a column or has an empty cell.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line, row in table(source.families, ("label", "family"), "--families must be a file of yours") if source.families else ():
        label, family = row["label"].strip(), row["family"].strip()
        if not (label and family):
            raise InputError(f"{source.families} line {line}: {'family' if label else 'label'} must be a name, got an empty cell")
        found[label] = (*found.get(label, ()), family)
    return found


def document(path: Path, kind: type, get: str) -> Any:
    """The content of a JSON file.

    Args:
        path: the file; utf-8, with or without byte order mark.
        kind: dict or list, what the file must be at its outermost.
        get: what to download when the file is missing.

    Raises:
        InputError: the file is missing, or not such JSON.
    """
    needed(path, get)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a readable JSON file: {error}") from error
    if not isinstance(content, kind):
        raise InputError(f"{path} must hold a JSON {JSON_KINDS[kind]}, got {type(content).__name__}")
    return content
