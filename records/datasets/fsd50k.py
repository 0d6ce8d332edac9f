"""FSD50K: 51,197 Freesound clips of 200 sound classes, and the top-level AudioSet families of those classes.

108.3 hours, wav, 44.1 kHz, mono, 0.3 to 30 s; 40,966 clips for development (train and val), 10,231 for evaluation. From
https://zenodo.org/record/4060432; the set as a whole is CC BY 4.0, each clip has a licence of its own (CC0, BY, BY-NC or Sampling+, in
FSD50K.metadata). The ontology is ontology.json of https://github.com/audioset/ontology.

Layout and columns were checked against the set's README, the layout of the copy on Hugging Face (Fhrozen/FSD50k: labels, clips/dev,
clips/eval) against its file list, the format of the ontology against two pages of it, the names of the families against programs that list
them. The full csv and json files could not be read here.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from records.datasets.clip import Clip, Reader, Source, document, needed, table
from tfmusic.config import InputError

GET = "get FSD50K from https://zenodo.org/record/4060432 and unzip all its parts into one folder"
GET_ONTOLOGY = "get ontology.json from https://github.com/audioset/ontology"
GROUND_TRUTH = ("FSD50K.ground_truth", "labels")  # as published, and in the copy on Hugging Face
METADATA = ("FSD50K.metadata", "metadata")
AUDIO = {"dev": ("FSD50K.dev_audio", "clips/dev"), "eval": ("FSD50K.eval_audio", "clips/eval")}
COLUMNS = {"dev": ("fname", "labels", "mids", "split"), "eval": ("fname", "labels", "mids")}
DEV_SPLITS = {"train": "train", "val": "valid"}
FAMILIES = ("Human sounds", "Animal", "Music", "Natural sounds", "Sounds of things", "Source-ambiguous sounds")
LABEL_SETS = {"classes": (), "families6": FAMILIES, "families5": FAMILIES[:-1]}  # label set -> its families


def read(source: Source) -> Iterator[Clip]:
    """One clip per row of dev.csv and eval.csv; its id is the Freesound id.

    Labels: `classes` are the 200 classes as published, each clip's ancestors included. `families6` are the top-level classes above a clip's
    topmost classes, all of them when there are several: a clip labelled Hiss, Cat, Animal is of the family Animal, one labelled Hiss alone
    is of each family that the ontology puts Hiss in. `families5` leaves out the source-ambiguous sounds, the one that the set's README does
    not count among its main families; a clip of no other family has no label.

    Families of the 200 classes: those of `families6` that a class lies below or is, with --ontology; without it they have none.

    Group: the uploader. The evaluation set shares none with the rest, but train and val share some (the authors keep such sharing small,
    not at zero): such an uploader is one group in train and one in val (`Reader.divided`). Without FSD50K.metadata every clip is its own
    group.

    Raises:
        InputError: a file or folder is missing or malformed, a label is not in vocabulary.csv, or a class is not in the ontology.
    """
    annotations = source.metadata or source.audio
    truth = _first(annotations, GROUND_TRUTH)
    vocabulary = _vocabulary(truth / "vocabulary.csv")
    families = _Families.read(source) if LABEL_SETS[source.label_set] else None
    for part, columns in COLUMNS.items():
        audio, uploaders = _first(source.audio, AUDIO[part]), _uploaders(annotations, part)
        for line, row in table(truth / f"{part}.csv", columns, GET):
            where, name = f"{truth / part}.csv line {line}", row["fname"].strip()
            if not name:
                raise InputError(f"{where}: fname must name a clip, got an empty cell")
            labels = _names(row["labels"])
            unknown = [label for label in labels if label not in vocabulary]
            if unknown:
                raise InputError(f"{where}: labels must be classes of vocabulary.csv, got {unknown[0]!r}")
            yield Clip(
                id=name,
                path=audio / f"{name}.wav",
                split=_dev_split(row["split"], where) if part == "dev" else "test",
                group=uploaders.get(name) or name,
                labels=families.of(_names(row["mids"]), where) if families else labels,
            )


def class_families(source: Source) -> dict[str, tuple[str, ...]]:
    """The top-level AudioSet families above each of the 200 classes; empty without --ontology, and of labels that are families themselves.

    Raises:
        InputError: as of `read`.
    """
    if source.ontology is None or LABEL_SETS[source.label_set]:
        return {}
    path, families = _first(source.metadata or source.audio, GROUND_TRUTH) / "vocabulary.csv", _Families.read(source)
    return {name: families.of([mid], path) for name, mid in _vocabulary(path).items()}


def lineages(children: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Every class of an ontology to itself and all classes above it.

    Args:
        children: the classes right below each class; a class may lie below several.
    """
    parents = collections.defaultdict(list)
    for parent, below in children.items():
        for child in below:
            parents[child].append(parent)
    found = {}
    for name in children:
        lineage, todo = {name}, [name]
        while todo:
            above = [parent for parent in parents[todo.pop()] if parent not in lineage]
            lineage.update(above)
            todo += above
        found[name] = frozenset(lineage)
    return found


def topmost(names: Iterable[str], above: Mapping[str, frozenset[str]]) -> list[str]:
    """The classes of a clip that lie below none of its others.

    Labels come with their ancestors, so that these know which of several parents a clip's class was heard under.
    """
    names = tuple(names)
    return [name for name in names if not any(other in above[name] for other in names if other != name)]


@dataclasses.dataclass(frozen=True)
class _Families:
    """The families of a label set, all of them for `classes`, and where each class of the ontology lies."""

    path: Path
    names: Mapping[str, str]  # id of a family -> its name, in the order of `FAMILIES`
    above: Mapping[str, frozenset[str]]

    @classmethod
    def read(cls, source: Source) -> _Families:
        if source.ontology is None:
            raise InputError(f"--label-set {source.label_set} of fsd50k needs --ontology FILE: {GET_ONTOLOGY}")
        entries = document(source.ontology, list, GET_ONTOLOGY)
        try:
            ids = {entry["name"]: entry["id"] for entry in entries}
            above = lineages({entry["id"]: entry["child_ids"] for entry in entries})
        except (KeyError, TypeError) as error:
            raise InputError(f"{source.ontology} must be a list of classes with id, name and child_ids: {GET_ONTOLOGY}") from error
        missing = [name for name in FAMILIES if name not in ids]
        if missing:
            raise InputError(f"{source.ontology} must hold the top-level class {missing[0]!r}: {GET_ONTOLOGY}")
        return cls(source.ontology, {ids[name]: name for name in LABEL_SETS[source.label_set] or FAMILIES}, above)

    def of(self, mids: Sequence[str], where: str | Path) -> tuple[str, ...]:
        unknown = [mid for mid in mids if mid not in self.above]
        if unknown:
            raise InputError(f"{where}: mids must be classes of {self.path}, got {unknown[0]!r}")
        reached = frozenset().union(*(self.above[mid] for mid in topmost(mids, self.above)))
        return tuple(name for family, name in self.names.items() if family in reached)


def _first(root: Path, names: Sequence[str]) -> Path:
    """The first of these folders that is there."""
    found = [root / name for name in names if (root / name).is_dir()]
    return found[0] if found else needed(root / names[0], GET)


def _vocabulary(path: Path) -> dict[str, str]:
    """Classes of vocabulary.csv and their ids in the ontology: rows of index, label, mid, without a header."""
    needed(path, GET)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} must be a readable utf-8 table: {error}") from error
    short = [number for number, row in enumerate(rows, 1) if len(row) < 3]
    if short or not rows:
        raise InputError(f"{path} must have rows of index,label,mid, got {rows[short[0] - 1] if short else 'none'}")
    return {row[1].strip(): row[2].strip() for row in rows}


def _uploaders(root: Path, part: str) -> dict[str, str]:
    """Uploader by clip; empty where the metadata were not downloaded."""
    paths = [root / name / f"{part}_clips_info_FSD50K.json" for name in METADATA]
    for path in paths:
        if path.is_file():
            clips = document(path, dict, GET)
            return {name: str(clip.get("uploader") or "").strip() for name, clip in clips.items() if isinstance(clip, dict)}
    return {}


def _dev_split(cell: str, where: str) -> str:
    if cell.strip() not in DEV_SPLITS:
        raise InputError(f"{where}: split must be one of {', '.join(DEV_SPLITS)}, got {cell!r}")
    return DEV_SPLITS[cell.strip()]


def _names(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in cell.split(",") if name.strip()))


READER = Reader(read, label_sets=tuple(LABEL_SETS), divided=True, takes=("metadata", "ontology"), families=class_families)
