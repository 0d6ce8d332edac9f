"""GTZAN (Tzanetakis and Cook, 2002): 1,000 excerpts of 30 s, 100 of each of ten genres, 22,050 Hz mono, 1.2 GB.

The original site is gone; mirrors: huggingface.co/datasets/marsyas/gtzan (genres.tar.gz) and, on Kaggle, the dataset
andradaolteanu/gtzan-dataset-music-genre-classification (Data/genres_original). It carries no licence: the excerpts are of commercial
recordings, for research only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from records.datasets.clip import Clip, Reader, Source, needed
from tfmusic import files
from tfmusic.config import InputError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
LABEL_SETS = {"genres10": GENRES, "genres8": tuple(genre for genre in GENRES if genre not in ("blues", "rock"))}
TRACKS_PER_GENRE = 100
LAYOUTS = ("", "genres", "genres_original", "Data/genres_original")  # where the genre folders lie below --audio: the folder itself, then the mirrors'
LISTS = {"train": "train_filtered.txt", "valid": "valid_filtered.txt", "test": "test_filtered.txt"}
TRACK = re.compile(rf"(?:.*/)?((?:{'|'.join(GENRES)})\.\d{{5}})(?:\.\w+)?")
GET_AUDIO = "get genres.tar.gz from https://huggingface.co/datasets/marsyas/gtzan"
GET_LISTS = "get the three *_filtered.txt from GTZAN_split in https://github.com/jongpillee/music_dataset_split and name their folder with --metadata"


def read(source: Source) -> Iterator[Clip]:
    """One clip per track, labelled with its genre; id and group are the track's name, such as blues.00029, whatever the mirror's suffix.

    Protocol `stratified` leaves the split to the builder, with equal shares of every genre. It keeps the windows of a track together but not
    the tracks of an artist, and GTZAN repeats artists and even recordings (35 excerpts of reggae are Bob Marley: Sturm, "An analysis of the
    GTZAN music genre dataset", 2012), so its scores flatter. `fault_filtered` is the published remedy (Kereliuk, Sturm and Larsen, "Deep
    learning and music adversaries", 2015): lists of 443 / 197 / 290 tracks that repeat no artist across splits. Tracks in no list are left
    out; listed ones without a file end in the builder's quarantine. The lists are read as they are published: names with .wav, with .au or
    without suffix, or the numbers 1 to 1000 of the first repository, coreyker/dnn-mgr.

    jazz.00054.wav of the usual mirrors is not audio: the builder puts it into quarantine, which leaves 442 tracks of the training list.
    Where .au and .wav of a track lie side by side, the .au is taken.

    Not checked: the audio, and the text of the lists in the repository that the error line names; those of coreyker/dnn-mgr,
    jordipons/sklearn-audio-transfer-learning and torchaudio agree with each other and with the counts. Sturm's index of artists has no file
    format in common use and is not read.

    Raises:
        InputError: no tracks, or a list is missing or malformed.
    """
    root = _root(source.audio)
    genres = LABEL_SETS[source.label_set]
    found = _tracks(root, genres)
    if not found:
        raise InputError(f"{source.audio} must hold genres/blues/blues.00000.wav and so on, got none: {GET_AUDIO}")
    splits = _filtered(source, root) if source.protocol == "fault_filtered" else dict.fromkeys(found)
    for track, split in splits.items():
        genre = track.split(".")[0]
        if genre in genres:
            path = found.get(track) or root / genre / f"{track}.wav"
            yield Clip(id=track, path=path, split=split, group=track, labels=(genre,))


def _root(audio: Path) -> Path:
    """The folder of the genre folders: one of the mirrors' layouts, or `audio` itself."""
    places = (audio / layout for layout in LAYOUTS)
    return next((place for place in places if any((place / genre).is_dir() for genre in GENRES)), audio)


def _tracks(root: Path, genres: tuple[str, ...]) -> dict[str, Path]:
    """Path by track name; what is not named like a track (._blues.00000.wav of macOS, .mf, .png) is no track."""
    found: dict[str, Path] = {}
    for folder in (root / genre for genre in genres):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = TRACK.fullmatch(path.name)
            if match and path.suffix.lower() in files.AUDIO_SUFFIXES:
                found.setdefault(match[1], path)  # .au sorts before .wav
    return found


def _filtered(source: Source, root: Path) -> dict[str, str]:
    """Split by track name, from the published lists."""
    places = (source.metadata, source.metadata / "GTZAN_split") if source.metadata else (source.audio, root, root.parent)
    folder = next((place for place in places if (place / LISTS["train"]).exists()), places[0])
    splits: dict[str, str] = {}
    for split, name in LISTS.items():
        try:
            lines = needed(folder / name, GET_LISTS).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{folder / name} must be a readable text file: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                track = _track(line.strip(), f"{folder / name} line {number}")
                if track in splits:
                    raise InputError(f"{folder / name} line {number}: a track must be listed once, got {track} again (in {splits[track]})")
                splits[track] = split
    return splits


def _track(text: str, where: str) -> str:
    """A track's name from a line of a list: a file name, or the number of the track, from 1, in the order of GENRES."""
    if text.isdecimal() and 1 <= int(text) <= len(GENRES) * TRACKS_PER_GENRE:
        genre, number = divmod(int(text) - 1, TRACKS_PER_GENRE)
        return f"{GENRES[genre]}.{number:05d}"
    match = TRACK.fullmatch(text)
    if not match:
        raise InputError(f"{where}: a line must name a track, such as blues/blues.00029.wav, got {text[:80]!r}")
    return match[1]


READER = Reader(read, label_sets=tuple(LABEL_SETS), protocols=("stratified", "fault_filtered"), split_by="stratified", takes=("metadata",))
