"""NSynth: 305,979 notes of about a thousand instruments, each with its pitch, velocity, family, source and qualities.

4 s each, 16 kHz, mono; 289,205 train, 12,678 valid, 4,096 test; about 25 GB to download. From
https://magenta.tensorflow.org/datasets/nsynth, the json/wav archives; CC BY 4.0. Counts, split rules and archive names were checked against
copies of Magenta's README, fields and values against a real examples.json of the test set; the files of train and valid could not be read
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from records.datasets.clip import SPLITS, Clip, Reader, Source, document
from tfmusic.config import InputError

EXAMPLES = "examples.json"
SUFFIXES = (".wav", ".flac")  # as published, and as most people store it
GET = "get nsynth-train, nsynth-valid and nsynth-test (json/wav) from https://magenta.tensorflow.org/datasets/nsynth"
LABELS: dict[str, Callable[[Mapping[str, Any]], tuple[str, ...]]] = {  # label set -> labels of a note
    "tags": lambda note: (
        note["instrument_family_str"],
        f"source_{note['instrument_source_str']}",
        *(f"q_{quality}" for quality in note["qualities_str"]),
    ),
    "family": lambda note: (note["instrument_family_str"],),
    "source": lambda note: (note["instrument_source_str"],),
    "qualities": lambda note: tuple(note["qualities_str"]),
    "pitch": lambda note: (f"pitch_{note['pitch']:03d}",),  # a vocabulary is in alphabetical order: three digits make that the order of pitch
}


def read(source: Source) -> Iterator[Clip]:
    """One clip per note of examples.json; its id is the note's name.

    --audio is the folder above nsynth-train, nsynth-valid and nsynth-test, of which those are read that are there, or one folder with an
    examples.json: its split is the one that its name ends with (nsynth-valid, nsynth_test), which --split-by group divides by instrument as
    it does a folder of another name.

    Labels: `tags` are family, source and qualities together, `family` one of 11, `source` one of 3, `qualities` none or several of 10,
    `pitch` the MIDI number as pitch_060. Targets: any field of examples.json that is a number, such as pitch and velocity.

    Group: the instrument. Train shares none with the others, but nothing says so of valid and test: an instrument of both is one group in
    each (`Reader.divided`).

    Raises:
        InputError: no such folder, no audio in it, or an examples.json without the fields asked for.
    """
    for folder, split in _folders(source.audio):
        path = folder / EXAMPLES
        notes = document(path, dict, GET)
        suffix = _suffix(folder / "audio", notes)
        for name, note in notes.items():
            try:
                labels, group = LABELS[source.label_set](note), note["instrument_str"]
            except KeyError as error:
                raise InputError(f"{path} {name}: a note must have the field {error}, got {', '.join(note) or 'nothing'}") from error
            except (TypeError, ValueError) as error:
                raise InputError(f"{path} {name}: a note must have the fields of NSynth, got {str(note)[:100]}") from error
            targets = tuple(_number(note, field, f"{path} {name}") for field in source.targets)
            yield Clip(name, folder / "audio" / f"{name}{suffix}", split, group, tuple(dict.fromkeys(labels)), targets)


def split_of(name: str) -> str | None:
    """The split that a folder's name ends with."""
    return next((split for split in SPLITS if name.lower().endswith(split)), None)


def _folders(audio: Path) -> list[tuple[Path, str | None]]:
    if (audio / EXAMPLES).is_file():
        return [(audio, split_of(audio.absolute().name))]
    found = [(audio / f"nsynth-{split}", split) for split in SPLITS if (audio / f"nsynth-{split}").is_dir()]
    if not found:
        raise InputError(f"{audio} must hold {EXAMPLES} or one of {', '.join(f'nsynth-{split}' for split in SPLITS)}, got none: {GET}")
    return found


def _suffix(folder: Path, names: Mapping[str, Any]) -> str:
    """The suffix of the first audio file found; a whole train set is not asked for file by file."""
    for name in names:
        for suffix in SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return suffix
    raise InputError(f"{folder} must hold NAME{' or NAME'.join(SUFFIXES)} of {EXAMPLES}, got none of {len(names)}: {GET}")


def _number(note: Mapping[str, Any], field: str, where: str) -> float:
    value = note.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{where}: the target {field} must be a field with a number, got {'nothing' if value is None else repr(value)}")
    return float(value)


READER = Reader(read, label_sets=tuple(LABELS), divided=True, takes=("targets",))
