"""ESC-50: 2,000 environmental sounds of 5 s in 50 classes, 40 each, in five folds; ESC-10 is its subset of ten classes.

wav, 44.1 kHz, mono, about 600 MB. From https://github.com/karolpiczak/ESC-50 (Download ZIP); CC BY-NC 3.0, its ESC-10 subset CC BY.
Layout, columns, groups and licence were checked against the set's README; another layout, with esc50.csv at the top and the files in
audio/audio/44100 (a copy on Kaggle), against programs that read it. The full csv could not be read here. The first edition has no csv but
folders of ogg files; those of ESC-10 were read here, and folds, recordings and classes of 62 of them compared with a part of the csv. The
folders of the others, such as "101 - Dog", are for the reader `folders`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from records.datasets.clip import Clip, Reader, Source, needed, table
from tfmusic.config import InputError

GET = "get ESC-50 from https://github.com/karolpiczak/ESC-50 and unzip it"
GET_FIRST = "the first edition of ESC-10 has ten folders, 001 - Dog bark to 010 - Fire crackling"
LISTS = ("meta/esc50.csv", "esc50.csv")
AUDIO = ("audio", "audio/audio/44100", "audio/audio", "")  # the last of the first edition, whose rows name the folders
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file")
FOLDS = ("1", "2", "3", "4", "5")
GROUPS = (  # classes 0 to 9, 10 to 19, ...
    "Animals",
    "Natural soundscapes & water sounds",
    "Human, non-speech sounds",
    "Interior/domestic sounds",
    "Exterior/urban noises",
)
TARGETS = {str(target): GROUPS[target // 10] for target in range(50)}
BOOLEANS = {"True": True, "False": False}
FIRST_EDITION = {  # folder of ESC-10 -> the class's target and category in esc50.csv
    "001 - Dog bark": ("0", "dog"),
    "002 - Rain": ("10", "rain"),
    "003 - Sea waves": ("11", "sea_waves"),
    "004 - Baby cry": ("20", "crying_baby"),
    "005 - Clock tick": ("38", "clock_tick"),
    "006 - Person sneeze": ("21", "sneezing"),
    "007 - Helicopter": ("40", "helicopter"),
    "008 - Chainsaw": ("41", "chainsaw"),
    "009 - Rooster": ("1", "rooster"),
    "010 - Fire crackling": ("12", "crackling_fire"),
}
FIRST_NAME = re.compile(r"([1-5])-(\d+)-([A-Z])\.ogg")  # fold, recording, take


def read(source: Source) -> Iterator[Clip]:
    """One clip per row of esc50.csv; its id is the file's name. For `esc10` without a csv, one per file of the first edition's ten folders.

    The protocol is the fold to test on; the fold before it (5 before 1) is for validation, the other three for training. The published
    figure is the mean over the five. Labels: `categories` are the 50 classes, `groups` the five groups of ten, `esc10` the ten classes of
    ESC-10 without the clips of the others.

    Families: the group of each of the classes.

    Group: the Freesound recording that a clip was cut from. The README says that no recording is in two folds, and the 304 recordings of
    ESC-10 are not; a csv in which one is (an edited one) is refused when the records are built.

    Raises:
        InputError: the csv or all audio is missing, or a cell is not what its column asks for.
    """
    rows = _rows(source)
    folder = _audio_folder(source.audio, [row["filename"].strip() for _, row in rows])
    splits = splits_of(source.protocol)
    for where, row in rows:
        name = row["filename"].strip()
        if not name:
            raise InputError(f"{where}: filename must name a file, got an empty cell")
        split = splits[_cell(row, "fold", FOLDS, "1 to 5", where)]
        group_label = _group(row, where)
        in_esc10 = BOOLEANS[_cell(row, "esc10", BOOLEANS, "True or False", where)]
        if source.label_set == "esc10" and not in_esc10:
            continue
        label = group_label if source.label_set == "groups" else row["category"].strip()
        if not label:
            raise InputError(f"{where}: category must name a class, got an empty cell")
        yield Clip(id=name, path=folder / name, split=split, group=row["src_file"].strip() or name, labels=(label,))


def class_families(source: Source) -> dict[str, tuple[str, ...]]:
    """The group of each class; empty where the groups are the labels.

    Raises:
        InputError: as of `read`.
    """
    return {} if source.label_set == "groups" else {row["category"].strip(): (_group(row, where),) for where, row in _rows(source)}


def splits_of(test_fold: str) -> dict[str, str]:
    """Fold to split when `test_fold` is tested on: the fold before it, 5 before 1, validates."""
    before = FOLDS[FOLDS.index(test_fold) - 1]
    return {fold: {test_fold: "test", before: "valid"}.get(fold, "train") for fold in FOLDS}


def _rows(source: Source) -> list[tuple[str, dict[str, str]]]:
    """Rows of esc50.csv, or as they would be for the first edition of ESC-10, each with its place."""
    annotations = source.metadata or source.audio
    found = [annotations / name for name in LISTS if (annotations / name).is_file()]
    if not found and source.label_set == "esc10" and any((source.audio / folder).is_dir() for folder in FIRST_EDITION):
        return list(_first_edition(source.audio))
    path = found[0] if found else needed(annotations / LISTS[0], GET)
    return [(f"{path} line {line}", row) for line, row in table(path, COLUMNS, GET)]


def _first_edition(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for folder, (target, category) in FIRST_EDITION.items():
        for path in sorted(needed(root / folder, GET_FIRST).iterdir(), key=str):
            if path.suffix != ".ogg":
                continue
            name = FIRST_NAME.fullmatch(path.name)
            if not name:
                raise InputError(f"{path} must be named FOLD-RECORDING-TAKE.ogg with a fold of 1 to 5, got another name")
            cells = (f"{folder}/{path.name}", name[1], target, category, "True", name[2])
            yield str(path), dict(zip(COLUMNS, cells, strict=True))


def _group(row: dict[str, str], where: str) -> str:
    return TARGETS[_cell(row, "target", TARGETS, "0 to 49", where)]


def _audio_folder(root: Path, names: Sequence[str]) -> Path:
    """The folder that holds files of the list."""
    folders = [root / folder for folder in AUDIO]
    for folder in (folder for folder in folders if folder.is_dir()):
        if any(name and (folder / name).is_file() for name in names):
            return folder
    raise InputError(f"{folders[0]} must hold the files that esc50.csv lists, got none of {len(names)}: {GET}")


def _cell(row: dict[str, str], column: str, allowed: Collection[str], rule: str, where: str) -> str:
    text = row[column].strip()
    if text not in allowed:
        raise InputError(f"{where}: {column} must be {rule}, got {text!r}")
    return text


READER = Reader(read, label_sets=("categories", "groups", "esc10"), protocols=("5", "1", "2", "3", "4"), takes=("metadata",), families=class_families)
