"""The training tracks as a table: what a sampler must know of each, and where each of its chunks lies.

The stream of `tfmusic.data` reads shards in sequence and sees a track when its turn comes. Metric learning chooses its tracks, so here every
record has its place: the files are walked by the lengths that frame the records, and each track's labels come from its first chunk alone. On a
local disk little else is read; gs:// reads a buffer around every length.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmusic import schema
from tfmusic.config import InputError
from tfmusic.files import RemotePath

HEADER = struct.Struct("<QI")  # of a TFRecord: length and its checksum; behind the record lies another checksum


@dataclasses.dataclass(frozen=True)
class Track:
    """A whole track."""

    id: str
    group: str
    waveform: np.ndarray  # int16 (samples,)
    labels: np.ndarray  # 0/1 (labels,)
    targets: np.ndarray  # float32 (targets,)


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """All training tracks; row i of each array is one of them."""

    ids: list[str]
    groups: list[str]
    labels: np.ndarray  # uint8 (tracks, labels)
    targets: np.ndarray  # float32 (tracks, targets)
    files: list[str]
    file: np.ndarray  # int64 (tracks,): row of `files`
    offsets: np.ndarray  # int64 (chunks,): byte offsets, the chunks of a track side by side
    first: np.ndarray  # int64 (tracks + 1,): where those of each track begin

    def __len__(self) -> int:
        return len(self.ids)


def read(directory: Path | RemotePath, manifest: schema.Manifest) -> Catalogue:
    """The catalogue of a directory of records.

    Args:
        directory: of the records.
        manifest: of the records.

    Raises:
        InputError: there is no training track, or a shard is damaged.
    """
    manifest.split("train")
    shards = [shard for shard in manifest.shards if shard.split == "train"]
    files = [str(directory / shard.file) for shard in shards]
    file, counts, offsets = [], [], []
    for number, shard in enumerate(shards):
        for chunks in _chunks(directory, shard):
            offsets.append(chunks.ravel())
            counts += [chunks.shape[1]] * len(chunks)
            file += [number] * len(chunks)
    examples = list(_first_runs(files, shards, manifest))
    return Catalogue(
        ids=[name.decode() for block in examples for name in block["id"]],
        groups=[name.decode() for block in examples for name in block["group"]],
        labels=np.concatenate([block["labels"] for block in examples]).astype(np.uint8),
        targets=np.concatenate([block["targets"] for block in examples]),
        files=files,
        file=np.array(file, np.int64),
        offsets=np.concatenate(offsets),
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def _chunks(directory: Path | RemotePath, shard: schema.Shard) -> Iterator[np.ndarray]:
    """Byte offsets of the chunks of its tracks, one run after the other, int64 `[shape=(tracks, parts)]`."""
    starts = list(_record_starts(directory / shard.file))
    places = {offset: place for place, offset in enumerate(starts)}
    for runs in shard.runs:  # each of them holds the same tracks in the same order, another chunk of each
        yield np.array([starts[places[offset] : places[offset] + runs.tracks] for offset in runs.offsets], np.int64).T


def limited(directory: Path | RemotePath, manifest: schema.Manifest, limit: int | None) -> schema.Manifest:
    """A look at a few tracks of records as if there were no others; the records stay as they are.

    Tracks are drawn once and for all, so that a lower limit has some of those of a higher one, and keep the order of the records.

    Args:
        directory: of the records.
        manifest: of all of them.
        limit: tracks of each split at most `int > 0`; none: all.

    Returns:
        A manifest of the same shards with these tracks, their counts and their lengths alone. It is of no other records: what stands in a run is the
        sha1 of the whole one.
    """
    if limit is None:
        return manifest
    shards, splits = [], dict(manifest.splits)
    for name, split in manifest.splits.items():
        own = [shard for shard in manifest.shards if shard.split == name]
        if split.tracks <= limit:
            shards += own
            continue
        tracks = [(shard, row.tolist()) for shard in own for chunks in _chunks(directory, shard) for row in chunks]
        chosen = [tracks[place] for place in sorted(np.random.default_rng(0).permutation(len(tracks))[:limit])]
        runs: dict[str, list[schema.Runs]] = {}
        for shard, offsets in chosen:
            runs.setdefault(shard.file, []).append(schema.Runs(parts=len(offsets), tracks=1, offsets=tuple(offsets)))
        shards += [shard.model_copy(update={"runs": tuple(runs[shard.file])}) for shard in own if shard.file in runs]
        samples, unlabelled, counts = 0, 0, np.zeros(len(manifest.labels), np.int64)
        for example in _examples([(str(directory / shard.file), offsets[0]) for shard, offsets in chosen], manifest):
            samples, unlabelled, counts = samples + int(example["samples"]), unlabelled + int(not example["labels"].any()), counts + example["labels"]
        splits[name] = schema.Split(tracks=limit, samples=samples, unlabelled=unlabelled, label_counts=tuple(counts.tolist()))
    return manifest.model_copy(update={"shards": tuple(shards), "splits": splits})


def _first_runs(files: list[str], shards: list[schema.Shard], manifest: schema.Manifest) -> Iterator[dict[str, np.ndarray]]:
    """What the first chunk of every track says, in blocks, without its audio."""
    rows = [(path, runs.offsets[0], runs.tracks) for path, shard in zip(files, shards, strict=True) for runs in shard.runs]
    records = tf.data.Dataset.from_tensor_slices(tuple(np.array(column) for column in zip(*rows, strict=True))).flat_map(
        lambda path, offset, tracks: schema.records_at(path, tf.cast(offset, tf.int64)).take(tf.cast(tracks, tf.int64))
    )
    parsed = records.batch(64).map(lambda block: schema.parse(block, len(manifest.labels), len(manifest.targets), ("id", "group")))
    yield from parsed.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def sources(directory: Path | RemotePath, manifest: schema.Manifest, splits: Collection[str]) -> set[bytes]:
    """sha1 of every audio file that these splits were made from."""
    files = [str(directory / shard.file) for shard in manifest.shards if shard.split in splits]
    records = tf.data.TFRecordDataset(files, buffer_size=schema.READ_BUFFER_BYTES).batch(64)
    parsed = records.map(lambda block: schema.parse(block, len(manifest.labels), len(manifest.targets), ("source_sha1",))["source_sha1"])
    return {sha1 for block in parsed.prefetch(2).as_numpy_iterator() for sha1 in block}


def waveform(catalogue: Catalogue, manifest: schema.Manifest, row: int) -> np.ndarray:
    """A whole training track, put together again from its chunks.

    Args:
        catalogue: of the records.
        manifest: of the records.
        row: of the catalogue.

    Returns:
        int16 `[shape=(samples,)]`.
    """
    return next(_waveforms(catalogue, manifest, [row]))


def tracks(catalogue: Catalogue, manifest: schema.Manifest) -> Iterator[Track]:
    """All of them whole, in order."""
    for row, whole in enumerate(_waveforms(catalogue, manifest, range(len(catalogue)))):
        yield Track(catalogue.ids[row], catalogue.groups[row], whole, catalogue.labels[row], catalogue.targets[row])


def _waveforms(catalogue: Catalogue, manifest: schema.Manifest, rows: Sequence[int]) -> Iterator[np.ndarray]:
    chunks = [range(catalogue.first[row], catalogue.first[row + 1]) for row in rows]
    places = [(catalogue.files[catalogue.file[row]], catalogue.offsets[chunk]) for row, of_row in zip(rows, chunks, strict=True) for chunk in of_row]
    examples = _examples(places, manifest)
    for of_row in chunks:
        whole = None
        for _ in of_row:
            example = next(examples)
            whole = np.zeros(example["samples"], np.int16) if whole is None else whole
            chunk = schema.unpack(example["payload"], manifest.layout)
            whole[example["start"] : example["start"] + len(chunk)] = chunk
        yield whole


def _examples(places: list[tuple[str, int]], manifest: schema.Manifest) -> Iterator[dict[str, np.ndarray]]:
    """Parsed records at these files and offsets; their checksums are looked at."""
    if not places:
        return
    files, offsets = zip(*places, strict=True)

    def read(file, offset):
        record = schema.records_at(file, offset).take(1).get_single_element()
        return schema.parse(record, len(manifest.labels), len(manifest.targets), ("id", "group", "payload"))

    records = tf.data.Dataset.from_tensor_slices((list(files), np.array(offsets, np.int64)))
    yield from records.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(8).as_numpy_iterator()


def whole_tracks(directory: Path | RemotePath, manifest: schema.Manifest, split: str, rows: Collection[int]) -> dict[int, Track]:
    """A few tracks of the validation or test split, by their place in `data.tracks`; nothing else is read."""
    places, first = {}, 0
    for shard in manifest.shards:
        if shard.split == split:
            starts = [int(chunks[0]) for of_run in _chunks(directory, shard) for chunks in of_run]
            places |= {row: (str(directory / shard.file), starts[row - first]) for row in rows if first <= row < first + len(starts)}
            first += len(starts)
    return {
        row: Track(
            example["id"].decode(),
            example["group"].decode(),
            schema.unpack(example["payload"], manifest.layout),
            example["labels"],
            example["targets"],
        )
        for row, example in zip(places, _examples(list(places.values()), manifest), strict=True)
    }


def numbers(groups: list[str]) -> np.ndarray:
    """Names of groups as numbers from 0, int64 `[shape=(len(groups),)]`; -1 for the empty name."""
    order = {name: number for number, name in enumerate(sorted({*groups} - {""}))}
    return np.array([order.get(name, -1) for name in groups], np.int64)


def _record_starts(path: Path | RemotePath) -> Iterator[int]:
    """Byte offsets of a TFRecord file's records."""
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            yield offset
            header = file.read(HEADER.size)
            if len(header) < HEADER.size or offset + HEADER.unpack(header)[0] + schema.RECORD_FRAME_BYTES > size:
                raise InputError(f"{path} is cut off; what else is damaged says: python -m records check {path.parent}")
            offset += HEADER.unpack(header)[0] + schema.RECORD_FRAME_BYTES
