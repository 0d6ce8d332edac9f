"""Looks into finished records: `check` re-reads every shard against the manifest, `info` prints what is inside."""

from __future__ import annotations

import collections
import hashlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmusic import cli, report, schema
from tfmusic.config import InputError

BAR = 40  # characters of the longest bar
PICTURE = "labels.png"


def check(directory: Path) -> schema.Manifest:
    """Re-reads every record: checksums, counts, lengths, labels and the byte offsets of all runs.

    Raises:
        InputError: the first difference from the manifest, with file and field.
    """
    manifest = schema.read_manifest(directory)
    found = {name: collections.Counter() for name in manifest.splits}
    labels = {name: np.zeros(len(manifest.labels), int) for name in manifest.splits}
    for shard in cli.progress(manifest.shards, unit="shard", desc="check"):
        path = directory / shard.file
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        _equal(path, "sha256", digest, shard.sha256)
        position, seen = 0, collections.defaultdict(set)
        places = {}  # byte offset -> parts of the track there
        for record in tf.data.TFRecordDataset(str(path)):
            example = schema.parse(record, len(manifest.labels), len(manifest.targets))
            track, part, parts = example["id"].numpy(), int(example["part"]), int(example["parts"])
            places[position] = parts
            position += len(record.numpy()) + schema.RECORD_FRAME_BYTES
            samples, start = int(example["samples"]), int(example["start"])
            bounds = schema.chunk_bounds(samples, manifest.layout) if shard.split == "train" else [(0, samples)]
            _equal(path, f"parts of {track.decode()}", parts, len(bounds))
            length = len(example["audio"].numpy()) // 2
            _equal(path, f"chunk {part} of {track.decode()}", (start, start + length), bounds[part])
            if not seen[track]:
                found[shard.split].update(tracks=1, samples=samples, unlabelled=int(not example["labels"].numpy().any()))
                labels[shard.split] += example["labels"].numpy()
            seen[track].add(part)
            if len(seen[track]) == parts:
                found[shard.split].update(complete=1)
        _equal(path, "bytes", position, shard.bytes)
        for runs in shard.runs:
            _equal(path, f"offsets of {runs.parts} parts", [places.get(offset) for offset in runs.offsets], [runs.parts] * runs.parts)
    for name, split in manifest.splits.items():
        where = directory / schema.MANIFEST
        _equal(where, f"{name} tracks", (found[name]["tracks"], found[name]["complete"]), (split.tracks, split.tracks))
        _equal(where, f"{name} seconds", round(found[name]["samples"] / manifest.layout.sample_rate_hz, 2), round(split.seconds, 2))
        _equal(where, f"{name} unlabelled", found[name]["unlabelled"], split.unlabelled)
        _equal(where, f"{name} label_counts", tuple(labels[name].tolist()), split.label_counts)
    return manifest


def _equal(path: Path, field: str, found: object, expected: object) -> None:
    if found != expected:
        raise InputError(f"{path}: {field} must be {expected}, got {found}; delete the directory and build it again")


def info(directory: Path) -> str:
    """What the records hold, as text with a bar per label; writes the same as a picture, labels.png, into the directory."""
    manifest = schema.read_manifest(directory)
    layout = manifest.layout
    report.label_counts(manifest).savefig(directory / PICTURE, dpi=110)
    lines = [
        f"{directory}: reader {manifest.dataset}, {layout.sample_rate_hz} Hz mono int16, training chunks of {layout.chunk_s:g} s every "
        f"{layout.stride_s:g} s (windows up to {layout.widest_window_samples / layout.sample_rate_hz:g} s)",
        f"{len(manifest.shards)} shards, {sum(shard.bytes for shard in manifest.shards) / 1e6:.1f} MB; {manifest.quarantined} files quarantined",
    ]
    for name, split in manifest.splits.items():
        lines.append(f"{name:6} {split.tracks:7} tracks  {split.seconds / 3600:8.2f} h  {split.unlabelled} without a label")
    totals = [sum(split.label_counts[i] for split in manifest.splits.values()) for i in range(len(manifest.labels))]
    width = max(map(len, manifest.labels))
    for i in sorted(range(len(totals)), key=lambda i: -totals[i]):
        counts = " / ".join(str(split.label_counts[i]) for split in manifest.splits.values())
        lines.append(f"{manifest.labels[i]:{width}} {'█' * max(1, round(BAR * totals[i] / max(totals)))} {counts}")
    return "\n".join([*lines, f"picture: {directory / PICTURE}"])
