"""Looks into finished records: `check` re-reads every shard and says what must not be or may not be meant, `info` prints what is inside."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from records.selection import bar, histogram
from tfmusic import audio, cli, data, pictures, schema
from tfmusic.config import Data, Layout
from tfmusic.files import RemotePath
from tfmusic.labels import family_matrix

PICTURE = "labels.png"
SILENT_PEAK = 32  # of 32,768: -60 dBFS
CLIPPED_SHARE = 1e-3  # of a track's samples at full scale
READ_TOGETHER = 64  # records


@dataclasses.dataclass
class Findings:
    """What `check` found: errors make figures wrong or reading fail, notes are for a person to judge."""

    errors: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    tracks: int = 0
    damaged: bool = False  # whether an error is one that building again mends


@dataclasses.dataclass(slots=True)
class _Track:
    """One track while its shard is read, and what is kept of it."""

    id: str
    split: str
    group: str
    source: bytes
    origin: int
    samples: int
    parts: int
    labelled: bool
    chunks: set[int] = dataclasses.field(default_factory=set)  # numbers of those that were read
    digests: dict[int, bytes] = dataclasses.field(default_factory=dict)  # of each stretch of its payload
    key: bytes = b""  # digest of the digests: equal for equal audio
    peak: int = 0
    full_scale: float = 0.0  # share of the samples

    @property
    def end(self) -> int:
        """The sample behind its last in its source file."""
        return self.origin + self.samples


def check(directory: Path | RemotePath) -> Findings:
    """Re-reads every record.

    Errors: a shard whose size, hash, checksums, offsets or counts are not the manifest's; an id twice; a group in two splits; the same audio
    in two splits, whole or in part. Notes: the same audio under two ids of one split; a label that no track of a split has; silent and clipped
    tracks.

    Raises:
        InputError: there is no manifest, or it is of another format.
    """
    manifest = schema.read_manifest(directory, sizes=False)
    found, tracks, damaged = Findings(), [], set()
    counts = {name: np.zeros(len(manifest.labels), int) for name in manifest.splits}
    for shard in cli.progress(manifest.shards, unit="shard", desc="check"):
        try:
            complaints = [schema.wrong_size(directory, shard) or _wrong_hash(directory, shard)]
            if not complaints[0].endswith("no such file"):
                complaints += _read(directory, shard, manifest, tracks, counts[shard.split])
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, audio.AudioError) as error:
            complaints.append(f"{directory / shard.file} stops being readable: {_plain(error)}")
        complaints = [complaint for complaint in complaints if complaint]
        if complaints:
            damaged.add(shard.split)
        found.errors += complaints
    found.tracks, found.damaged = len(tracks), bool(damaged)
    for name, split in manifest.splits.items():
        if name in damaged:  # then the counts are too
            continue
        members = [track for track in tracks if track.split == name]
        found.errors += _wrong_counts(directory / schema.MANIFEST, name, split, members, counts[name])
        if members:
            absent = [label for label, count in zip(manifest.labels, counts[name], strict=True) if not count]
            found.notes += [f"no track of {name} has the label {label!r}" for label in absent]
    found.errors += _doubled(tracks)
    found.errors += [f"the group {group!r} lies in {' and '.join(sorted(splits))}" for group, splits in _homes(tracks).items() if len(splits) > 1]
    audible = [track for track in tracks if track.peak > SILENT_PEAK]
    for line, leaks in _same_audio(audible, manifest.layout.sample_rate_hz):
        (found.errors if leaks else found.notes).append(line)
    if manifest.layout.payload != "features":
        found.notes += [f"{track.id!r} ({track.split}) is silent: no sample above -60 dBFS" for track in tracks if track.peak <= SILENT_PEAK]
        found.notes += [
            f"{track.id!r} ({track.split}) is clipped: {track.full_scale:.1%} of its samples at full scale"
            for track in tracks
            if track.full_scale > CLIPPED_SHARE
        ]
    return found


def _plain(error: Exception) -> str:
    """An error of TensorFlow without the names of its nodes."""
    return re.sub(r"\{\{.*?\}\} ?|\[Op:.*", "", " ".join(str(error).split()))[:160].strip()


def _wrong_hash(directory: Path | RemotePath, shard: schema.Shard) -> str:
    digest = schema.sha256_of(directory / shard.file)
    return "" if digest == shard.sha256 else f"{directory / shard.file}: sha256 must be {shard.sha256}, got {digest}"


def _read(directory: Path | RemotePath, shard: schema.Shard, manifest: schema.Manifest, tracks: list[_Track], counts: np.ndarray) -> list[str]:
    """Reads one shard, appends its tracks, adds their labels to `counts`, and returns what is wrong with it."""
    path, layout = directory / shard.file, manifest.layout
    complaints, here, position = [], {}, 0
    places: dict[int, int] = {}  # byte offset -> parts of the track there
    chunked = any(runs.parts > 1 for runs in shard.runs)  # tracks that lie whole may be hours long
    blocks = tf.data.TFRecordDataset(str(path)).batch(READ_TOGETHER if chunked else 1)
    parsed = blocks.map(lambda block: {**schema.parse(block, len(manifest.labels), len(manifest.targets)), "bytes": tf.strings.length(block)})
    for block in parsed.prefetch(2).as_numpy_iterator():
        for row in range(len(block["bytes"])):
            record = {name: values[row] for name, values in block.items()}
            name, part, parts = record["id"].decode(), int(record["part"]), int(record["parts"])
            places[position] = parts
            position += int(record["bytes"]) + schema.RECORD_FRAME_BYTES
            track = here.get(name)
            if track is None:
                track = here[name] = _Track(
                    name, shard.split, record["group"].decode(), record["source_sha1"], int(record["origin"]),
                    int(record["samples"]), parts, bool(record["labels"].any()),
                )  # fmt: skip
                counts += record["labels"]
            elif part in track.chunks:
                complaints.append(f"{path}: the id {name!r} must be there once, got it twice")
                continue
            track.chunks.add(part)
            told = record["split"].decode()
            if told != shard.split:
                complaints.append(f"{path}: chunk {part} of {name!r} must say split {shard.split}, got {told}")
            payload = schema.unpack(record["payload"], layout, manifest.feature_dims)
            expected = schema.bounds(track.samples, layout, shard.split)
            if parts != len(expected) or not 0 <= part < parts:
                complaints.append(f"{path}: {name!r} must have {len(expected)} chunks, got number {part} of {parts}")
                continue
            if layout.payload == "features":
                track.digests[0] = hashlib.sha1(record["payload"]).digest()
                track.peak = 32_768 if len(payload) == 1 or np.ptp(payload, axis=0).any() else 0  # silence gives one vector again and again
                if not np.isfinite(payload).all():
                    complaints.append(f"{path}: the features of {name!r} must be finite, got nan or infinity")
                continue
            start, end = int(record["start"]), int(record["start"]) + len(payload)
            if (start, end) != expected[part]:
                complaints.append(f"{path}: chunk {part} of {name!r} must be samples {expected[part]}, got {(start, end)}")
            _listen(track, part, payload, layout)
    if position != shard.bytes:
        complaints.append(f"{path}: the records must fill {shard.bytes} bytes, got {position}")
    for runs in shard.runs:
        starts = [places.get(offset) for offset in runs.offsets]
        if starts != [runs.parts] * runs.parts:
            complaints.append(f"{path}: at the offsets of {runs.parts} runs must begin tracks of as many chunks, got {starts}")
    for track in here.values():
        if len(track.chunks) != track.parts:
            complaints.append(f"{path}: {track.id!r} must have all {track.parts} chunks, got {len(track.chunks)}")
        track.key = hashlib.sha1(b"".join(digest for _, digest in sorted(track.digests.items()))).digest()
        track.digests, track.chunks = {}, set()
    tracks += here.values()
    return complaints


def _listen(track: _Track, part: int, samples: np.ndarray, layout: Layout) -> None:
    """Adds one chunk's peak, clipping and digests to its track; a whole track is cut as a training one would be, so that both compare."""
    wide = samples.astype(np.int32)
    track.peak = max(track.peak, int(np.abs(wide).max(initial=0)))
    track.full_scale += float(np.mean((wide == 32_767) | (wide == -32_768))) / track.parts
    stretches = schema.chunk_bounds(track.samples, layout) if track.parts == 1 else [(0, len(samples))]
    for number, (start, end) in enumerate(stretches, start=part):
        track.digests[number] = hashlib.sha1(np.ascontiguousarray(samples[start:end])).digest()


def _wrong_counts(path: Path, name: str, split: schema.Split, members: list[_Track], counts: np.ndarray) -> list[str]:
    found = {
        "tracks": (len(members), split.tracks),
        "samples": (sum(track.samples for track in members), split.samples),
        "unlabelled": (sum(not track.labelled for track in members), split.unlabelled),
        "label_counts": (tuple(counts.tolist()), split.label_counts),
    }
    return [f"{path}: {name} {field} must be {held}, got {said}" for field, (held, said) in found.items() if held != said]


def _doubled(tracks: list[_Track]) -> list[str]:
    places: dict[str, list[str]] = collections.defaultdict(list)
    for track in tracks:
        places[track.id].append(track.split)
    return [f"the id {name!r} must be there once, got it in {' and '.join(splits)}" for name, splits in places.items() if len(splits) > 1]


def _homes(tracks: list[_Track]) -> dict[str, set[str]]:
    homes: dict[str, set[str]] = collections.defaultdict(set)
    for track in tracks:
        homes[track.group].add(track.split)
    return homes


def _same_audio(tracks: list[_Track], rate_hz: int) -> Iterator[tuple[str, bool]]:
    """Lines about audio under two ids, and whether it lies in two splits."""
    equal: dict[bytes, _Track] = {}
    told = set()
    for track in tracks:
        first = equal.setdefault(track.key, track)
        if first is not track and first.id != track.id:
            told |= {(first.id, track.id), (track.id, first.id)}
            yield f"{first.id!r} ({first.split}) and {track.id!r} ({track.split}) are the same audio", first.split != track.split
    sources: dict[bytes, list[_Track]] = collections.defaultdict(list)
    for track in tracks:
        sources[track.source].append(track)
    for members in sources.values():  # stretches of one file, by their beginning
        furthest: dict[str, _Track] = {}  # of each split so far, the one that ends last
        for track in sorted(members, key=lambda track: (track.origin, track.id)):
            for split, other in furthest.items():
                shared = min(other.end, track.end) - track.origin
                if split != track.split and shared > 0 and (other.id, track.id) not in told:
                    yield f"{other.id!r} ({split}) and {track.id!r} ({track.split}) share {shared / rate_hz:.2f} s of one file", True
            if track.split not in furthest or track.end > furthest[track.split].end:
                furthest[track.split] = track


def info(directory: Path | RemotePath) -> str:
    """What the records hold, as text with a bar per label; writes the same as a picture, labels.png, into a local directory."""
    manifest = schema.read_manifest(directory)
    layout = manifest.layout
    held = {
        "features": f"{layout.features.kind} vectors of {manifest.feature_dims} numbers, {layout.features.dtype}",
        "pcm16": "int16 samples",
        "flac": "FLAC",
    }[layout.payload]
    lines = [
        f"{directory}: reader {manifest.dataset}, {layout.sample_rate_hz} Hz mono as {held}"
        + (
            ""
            if layout.payload == "features"
            else f", training chunks of {layout.chunk_s:g} s every {layout.stride_s:g} s "
            f"(windows up to {layout.widest_window_samples / layout.sample_rate_hz:g} s)"
        ),
        f"{len(manifest.shards)} shards, {sum(shard.bytes for shard in manifest.shards) / 1e6:.1f} MB; {manifest.quarantined} files quarantined",
    ]
    for name, split in manifest.splits.items():
        lines.append(f"{name:6} {split.tracks:7} tracks  {manifest.hours(name):8.2f} h  {split.unlabelled} without a label")
    lines.append(shuffle_quality(directory, manifest))
    if manifest.families:
        names, lies_in = family_matrix(manifest.labels, manifest.families)
        counts = ", ".join(f"{name} {count}" for name, count in zip(names, lies_in.sum(axis=0), strict=True))
        without = [label for label in manifest.labels if label not in manifest.families]
        lines.append(f"labels of each family: {counts}" + (f"; of none: {len(without)} ({', '.join(without)})" if without else ""))
    if manifest.merges:
        lines.append(histogram(manifest.counts_before, manifest.counts_after, manifest.merges) + "\nlabels of the records, train / valid / test:")
    totals = manifest.label_counts
    width = max(map(len, totals))
    for label, total in totals.items():
        counts = " / ".join(str(split.label_counts[manifest.labels.index(label)]) for split in manifest.splits.values())
        lines.append(f"{label:{width}} {bar(total, max(totals.values()))} {counts}")
    if not isinstance(directory, RemotePath):
        pictures.label_counts(manifest).savefig(directory / PICTURE, dpi=110)
        lines.append(f"picture: {directory / PICTURE}")
    return "\n".join(lines)


def shuffle_quality(directory: Path | RemotePath, manifest: schema.Manifest, buffer: int = Data().shuffle_buffer) -> str:
    """How far the labels of the first shuffle buffer are from those of the whole training split, as a line.

    The mean over labels of `|p_buffer - p_whole|`, divided by what a buffer drawn at random without replacement would show on average,
    `sqrt(2 / pi * p (1 - p) / n * (N - n) / (N - 1))`: 1 is as good as random, several times that is a set whose order shows.
    """
    split = manifest.splits["train"]
    if split.tracks <= buffer:
        return f"shuffle: the training tracks fit into one buffer of {buffer}"
    first = np.array(list(itertools.islice(data.label_order(directory, manifest), buffer)))
    found = deviation(first, np.array(split.label_counts) / split.tracks, split.tracks)
    return f"shuffle: the first {buffer} training tracks as read deviate in their labels {found:.2f} times as much as a random draw would (1: ideal)"


def deviation(labels: np.ndarray, shares: np.ndarray, tracks: int) -> float:
    """The figure of `shuffle_quality`.

    Args:
        labels: 0/1 of the first buffer `[shape=(buffer, labels)]`.
        shares: of each label in the whole `[shape=(labels,)]`.
        tracks: in the whole `int > buffer`.

    Returns:
        `float >= 0`; nan when every label is on all tracks or on none.
    """
    buffer = len(labels)
    expected = math.sqrt(2 / math.pi) * np.sqrt(shares * (1 - shares) / buffer * (tracks - buffer) / (tracks - 1))
    return float(np.abs(labels.mean(axis=0) - shares).sum() / expected.sum()) if expected.any() else math.nan
