"""A class per folder: `AUDIO/dog/1.wav` has the label dog, `AUDIO/train/dog/1.wav` lies in train besides; deeper folders count to their class."""

from __future__ import annotations

from collections.abc import Iterator

from records.datasets.clip import Clip, Reader, Source, families_of
from tfmusic import files
from tfmusic.config import InputError, printable

SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


def read(source: Source) -> Iterator[Clip]:
    """One clip per audio file of a collection of one's own; licence and size are the collection's.

    The first folder is the class, and the split a stable hash of the file's path. Where all first folders with audio are named like splits,
    in capitals or not (train, training; valid, val, validation, dev; test, testing, eval, evaluation), they are the splits and the class is
    the folder below; where only some are, all are classes. eval is a test set as in FSD50K and AudioSet, unless a folder test lies beside
    it. Splits that are not there stay empty; --split-by group or stratified deals all clips anew.

    Files that lie beside the class folders are ignored, and so is all whose name begins with a dot: hidden files and folders, and the
    `._1.wav` that macOS leaves beside 1.wav. Files named like audio that cannot be decoded, such as .m4a, end in quarantine with the reason.

    Raises:
        InputError: the folder holds no audio in class folders.
    """
    found = []
    for path in files.walk(source.audio):
        parts = printable(path.relative_to(source.audio).as_posix()).split("/")
        if path.suffix.lower() in files.AUDIO_SUFFIXES and len(parts) > 1 and not any(part.startswith(".") for part in parts):
            found.append((path, parts))
    splits = _splits({parts[0] for _, parts in found})
    depth = 1 if splits else 0  # of the class among the folders
    found = [(path, parts) for path, parts in found if len(parts) > depth + 1]
    if not found:
        place = f" in {', '.join(sorted(splits))}" if splits else ""
        raise InputError(f"{source.audio} must hold audio files in one folder per class{place}, got none ({' '.join(sorted(files.AUDIO_SUFFIXES))})")
    for path, parts in found:
        name = "/".join(parts)
        yield Clip(id=name, path=path, split=splits.get(parts[0]), group=name, labels=(parts[depth].strip(),))


def _splits(folders: set[str]) -> dict[str, str]:
    """Split by folder, when all are named like splits."""
    named = {folder: SPLIT_FOLDERS.get(folder.lower()) for folder in folders}
    if None in named.values():
        return {}
    tested = any(folder.lower().startswith("test") for folder in folders)
    return {folder: "valid" if tested and folder.lower().startswith("eval") else split for folder, split in named.items()}


READER = Reader(read, takes=("families",), families=families_of)
