"""A class per folder: `AUDIO/dog/1.wav` has the label dog; deeper folders count to the class they lie in."""

from __future__ import annotations

from collections.abc import Iterator

from records.datasets.clip import AUDIO_SUFFIXES, Clip, Source
from tfmusic.config import InputError, printable


def read(source: Source) -> Iterator[Clip]:
    """One clip per audio file, labelled with its first folder; the split is a stable hash of the file's path.

    Raises:
        InputError: the folder is not there or holds no audio in class folders.
    """
    if not source.audio.is_dir():
        raise InputError(f"--audio must be a folder with one folder per class, got {source.audio}")
    found = False
    for path in sorted(source.audio.glob("*/**/*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
            found = True
            name = printable(path.relative_to(source.audio).as_posix())
            yield Clip(id=name, path=path, split=None, group=name, labels=(name.split("/")[0].strip(),))
    if not found:
        raise InputError(f"{source.audio} must hold audio files in one folder per class, got none ({' '.join(sorted(AUDIO_SUFFIXES))})")
