"""The ordered names a model scores: one file format, one fingerprint, the way from names to a row of zeros and ones and back, and families."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfmusic.config import InputError


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Ordered unique names; column i of every score and label array is `names[i]`.

    Args:
        names: the names in order; unique, not empty, without line breaks or outer spaces.

    Raises:
        InputError: a name is empty, doubled, or not one trimmed line.
    """

    names: tuple[str, ...]

    def __post_init__(self):
        for name in self.names:
            if not name or name != name.strip() or len(name.splitlines()) != 1:
                raise InputError(f"a label must be one line without outer spaces, got {name!r}")
        doubled = sorted({name for name in self.names if self.names.count(name) > 1})
        if doubled:
            raise InputError(f"labels must be unique, got {doubled[0]!r} more than once")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha1(self) -> str:
        """Fingerprint of names and order, in manifest, run and bundle."""
        return hashlib.sha1(self.text().encode()).hexdigest()

    def text(self) -> str:
        """labels.txt: one name a line, in order."""
        return "".join(f"{name}\n" for name in self.names)

    def encode(self, names: Iterable[str]) -> np.ndarray:
        """Names to 0/1 int64 `[shape=(len(self),)]`; a name that is not in the vocabulary is left out."""
        present = frozenset(names)
        return np.array([name in present for name in self.names], np.int64)

    def decode(self, row: np.ndarray) -> list[str]:
        """0/1 `[shape=(len(self),)]` to names, in the vocabulary's order."""
        return [name for name, present in zip(self.names, row, strict=True) if present]

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Reads labels.txt.

        Raises:
            InputError: the file is missing, empty or malformed.
        """
        try:
            names = tuple(path.read_text("utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} must be a text file with one label a line: {error}") from error
        if not names:
            raise InputError(f"{path} must hold one label a line, got an empty file")
        return cls(names)


def family_matrix(labels: Sequence[str], families: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Which label lies in which family; `y_true @ matrix > 0` says which families a row of labels has.

    >>> family_matrix(["cat", "hiss", "hum"], {"cat": ("Animal",), "hiss": ("Animal", "Things")})
    (('Animal', 'Things'), array([[1, 0],
           [1, 1],
           [0, 0]]))

    Args:
        labels: names in order.
        families: of each label; one that is not there has none.

    Returns:
        Names of the families in alphabetical order, and 0/1 int64 `[shape=(labels, families)]`.

    Raises:
        ValueError: a family list that is a string.
    """
    texts = [label for label in labels if isinstance(families.get(label), str)]
    if texts:
        raise ValueError(f"families of {texts[0]!r} must be a sequence of names, got {families[texts[0]]!r}")
    names = tuple(sorted({family for label in labels for family in families.get(label, ())}))
    matrix = [[family in families.get(label, ()) for family in names] for label in labels]
    return names, np.array(matrix, np.int64).reshape(len(labels), len(names))
