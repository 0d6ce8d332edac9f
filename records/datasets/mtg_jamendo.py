"""MTG-Jamendo: 55,525 whole tracks of Jamendo with 183 tags of genre, instrument and mood or theme, in five published splits.

Clone https://github.com/MTG/mtg-jamendo-dataset for the lists (CC BY-NC-SA 4.0) and run its `scripts/download/download.py` for the audio:
mp3 of 320 kbit/s (508 GB), or `--type audio-low`, mono mp3 of a lower rate (156 GB); the mood/theme subset alone is 152 or 46 GB. Every
track has its own Creative Commons licence (`audio_licenses.txt`); the whole is for non-commercial research.
D. Bogdanov et al., "The MTG-Jamendo dataset for automatic music tagging", ML4MD workshop, ICML 2019.

Label sets are the published subsets, in tracks before the splits dropped rare tags: `top50tags` 54,380, `genre` 55,215, `instrument`
25,135, `moodtheme` 18,486 (the MediaEval task), and `all`. A subset has only its own tags and only tracks with one of them. A label is the
tag as published, `genre---rock`: results are reported by category, and the name tells it.

Protocols `0` to `4` are the splits split-0 to split-4, about 60 / 20 / 20 % of the artists each; the authors' baseline takes 0 unless told
otherwise. Their script divides artists, so an artist is in one split and is the group here. 990 tracks have the same bytes as another one
(issue 52 of the repository); where the two have different artists, they may be in two splits.

Not checked, for the files were not at hand: the number of tracks of each split and subset.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from records.datasets.clip import Clip, Reader, Source, table
from tfmusic.config import InputError

HOME = "https://github.com/MTG/mtg-jamendo-dataset"
GET_LISTS = f"git clone {HOME} and name the clone with --metadata"
GET_AUDIO = f"download the audio with scripts/download/download.py --unpack of {HOME}"
PARTS = {"train": "train", "valid": "validation", "test": "test"}  # split -> end of the list's name
LABEL_SETS = {"top50tags": "_top50tags", "genre": "_genre", "instrument": "_instrument", "moodtheme": "_moodtheme", "all": ""}
LIST_FOLDERS = ("data/splits", "splits", "")  # below --metadata: a clone, its data, or the folder with the splits
AUDIO_FOLDERS = ("", "audio", "audio-low")  # below --audio: where the script unpacked, or the folder above
COLUMNS = ("TRACK_ID", "ARTIST_ID", "PATH", "TAGS")
PATH = re.compile(r"\d\d/\d+\.mp3")


def read(source: Source) -> Iterator[Clip]:
    """One clip per row of the three lists of a split; the id is the TRACK_ID.

    A track that is there only as `NN/ID.low.mp3` is read from that; where both are, from the better one.

    Raises:
        InputError: a list or all of the folders 00 to 99 are missing, or a cell is not what its column asks for.
    """
    home, lists = _audio_home(source.audio), _lists(source)
    names = functools.cache(_names)  # 100 listings instead of 55,000 questions
    for split, part in PARTS.items():
        path = lists / f"autotagging{LABEL_SETS[source.label_set]}-{part}.tsv"
        for line, row in table(path, COLUMNS, GET_LISTS, "\t"):
            yield _clip(home, names, row, split, f"{path} line {line}")


def _clip(home: Path, names: Callable[[Path], frozenset[str]], row: dict, split: str, where: str) -> Clip:
    track, artist, path = (row[column].strip() for column in ("TRACK_ID", "ARTIST_ID", "PATH"))
    if not PATH.fullmatch(path):
        raise InputError(f"{where}: PATH must be NN/ID.mp3, got {path!r}")
    if not (track and artist):
        raise InputError(f"{where}: TRACK_ID and ARTIST_ID must not be empty, got {track!r} and {artist!r}")
    tags = (tag.strip() for tag in (row["TAGS"], *row.get("", ())))  # every tag has a cell of its own, the header names only the first
    return Clip(id=track, path=_file(home / path, names), split=split, group=artist, labels=tuple(dict.fromkeys(tag for tag in tags if tag)))


def _file(path: Path, names: Callable[[Path], frozenset[str]]) -> Path:
    """The track in the form that is there; a missing one keeps its published name, which quarantine then reports."""
    low, there = f"{path.stem}.low.mp3", names(path.parent)
    return path.parent / low if low in there and path.name not in there else path


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def _lists(source: Source) -> Path:
    """The folder of the split's lists; where there is none, the one in which a clone would have them, for the error."""
    folders = [base / name / f"split-{source.protocol}" for base in (source.metadata, source.audio) if base is not None for name in LIST_FOLDERS]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _audio_home(audio: Path) -> Path:
    """The folder in which 00 to 99 lie; one of them suffices, for a part of the set is a set."""
    for name in AUDIO_FOLDERS:
        if any((audio / name / f"{number:02d}").is_dir() for number in range(100)):
            return audio / name
    raise InputError(f"{audio} must hold the folders 00 to 99 of mp3s, got none of them: {GET_AUDIO}")


READER = Reader(read, label_sets=tuple(LABEL_SETS), protocols=("0", "1", "2", "3", "4"), takes=("metadata",))
