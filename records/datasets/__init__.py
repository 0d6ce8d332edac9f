"""Readers: one module per dataset, each a function from a `Source` to `Clip`s. A reader looks at lists and folder names, never into audio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from records.datasets import csv, esc50, fma, folders, fsd50k, gtzan, magnatagatune, mtg_jamendo, nsynth
from records.datasets.clip import Clip, Reader, Source
from tfmusic.config import InputError
from tfmusic.files import RemotePath

READERS: dict[str, Reader] = {
    "csv": csv.READER,
    "esc50": esc50.READER,
    "fma": fma.READER,
    "folders": folders.READER,
    "fsd50k": fsd50k.READER,
    "gtzan": gtzan.READER,
    "magnatagatune": magnatagatune.READER,
    "mtg_jamendo": mtg_jamendo.READER,
    "nsynth": nsynth.READER,
}
_OPTIONS = {"label_set": "label_sets", "protocol": "protocols"}  # field of Source -> field of Reader with its allowed values
_PARTICULAR = ("metadata", "csv", "tags_column", "targets", "ontology", "families")  # fields that only readers with them in `takes` look at


def read(source: Source) -> Iterator[Clip]:
    """Clips of a dataset.

    Args:
        source: label set and protocol may be none: the reader's first.

    Raises:
        InputError: no such dataset, label set or protocol, an option that the reader does not take, or a file that is missing or malformed.
    """
    return reader_of(source.dataset).read(_filled(source))


def families(source: Source) -> Mapping[str, tuple[str, ...]]:
    """Families of a dataset's labels; empty when it has none.

    Args:
        source: as of `read`.

    Raises:
        InputError: as of `read`.
    """
    reader = reader_of(source.dataset)
    return reader.families(_filled(source)) if reader.families else {}


def _filled(source: Source) -> Source:
    """The source with its reader's defaults, checked."""
    reader = reader_of(source.dataset)
    filled = {}
    for field, allowed in _OPTIONS.items():
        value, choices = getattr(source, field), getattr(reader, allowed)
        if value is not None and value not in choices:
            rule = f"one of {', '.join(choices)}" if choices else "left out"
            raise InputError(f"--{field.replace('_', '-')} of {source.dataset} must be {rule}, got {value!r}")
        filled[field] = value or (choices[0] if choices else None)
    for field in _PARTICULAR:
        if getattr(source, field) != Source.model_fields[field].default and field not in reader.takes:
            raise InputError(f"--dataset {source.dataset} takes no --{field.replace('_', '-')}, got {getattr(source, field)}")
    if not source.audio.is_dir():
        if isinstance(source.audio, RemotePath):
            source.audio.stat()  # raises what hides behind the answer no
        raise InputError(f"--audio must be a folder, got {source.audio}")
    return source.model_copy(update=filled)


def reader_of(dataset: str) -> Reader:
    """The reader of that name.

    Raises:
        InputError: there is none.
    """
    if dataset not in READERS:
        raise InputError(f"--dataset must be one of {', '.join(READERS)}, got {dataset!r}")
    return READERS[dataset]
