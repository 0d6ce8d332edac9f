"""Readers: one module per dataset, each a function from a `Source` to `Clip`s. A reader looks at lists and folder names, never into audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from records.datasets import csv, folders
from records.datasets.clip import Clip, Source

READERS: dict[str, Callable[[Source], Iterator[Clip]]] = {"csv": csv.read, "folders": folders.read}
