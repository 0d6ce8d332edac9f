"""A class per folder: `AUDIO/dog/1.wav` has the label dog; deeper folders count to the class they lie in."""

from __future__ import annotations

from collections.abc import Iterator

from records.datasets.clip import AUDIO_SUFFIXES, Clip, Reader, Source
from tfmusic import files
from tfmusic.config import InputError, printable


def read(source: Source) -> Iterator[Clip]:
    """One clip per audio file, labelled with its first folder; the split is a stable hash of the file's path.

    Raises:
        InputError: the folder holds no audio in class folders.
    """
    found = False
    for path in files.walk(source.audio):
        name = printable(path.relative_to(source.audio).as_posix())
        if path.suffix.lower() in AUDIO_SUFFIXES and "/" in name:
            found = True
            yield Clip(id=name, path=path, split=None, group=name, labels=(name.split("/")[0].strip(),))
    if not found:
        raise InputError(f"{source.audio} must hold audio files in one folder per class, got none ({' '.join(sorted(AUDIO_SUFFIXES))})")


READER = Reader(read)
