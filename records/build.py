"""Builds record shards: plan from headers, convert each shard as one unit of work, write the manifest last.

A plan fixes how many shards each split has; a stable hash of the id puts each clip into one. A shard is written by one worker to a
temporary name, renamed, and noted in a small file beside the plan; a kill loses only the shards in work, and the same command goes on.
Workers are threads: decoding, resampling, hashing and writing all release the interpreter's lock, and a thread starts without importing
anything. The bytes of a shard depend on its clips and the settings alone, not on workers or order.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import tensorflow as tf

from records.datasets import READERS
from records.datasets.clip import SPLITS, Clip, Source
from tfmusic import audio, cli, run, schema
from tfmusic.config import VERSION, InputError, Layout, printable
from tfmusic.labels import Vocabulary

PLAN, PARTS, QUARANTINE = "plan.json", "parts", "quarantine.csv"
SPLIT_SHARES = (0.8, 0.9)  # of the hash range: below is train, between is valid, above is test
SMALLEST_SHARD_CLIPS, FEWEST_SHARDS = 32, 8  # a small split still gives every core work, down to shards of this many clips


def build(
    source: Source,
    out: Path,
    layout: Layout = Layout(),  # noqa: B008 (frozen)
    vocabulary: Vocabulary | None = None,
    min_s: float = 0.1,
    shard_bytes: int = 128 * 2**20,
    workers: int | None = None,
) -> schema.Manifest:
    """Builds the records of a dataset, or goes on where an interrupted build of the same settings stopped.

    Args:
        source: the dataset.
        out: directory of the shards; made when missing.
        layout: rate, chunk and stride.
        vocabulary: labels to encode; none: all labels of the dataset in alphabetical order.
        min_s: shorter files are quarantined `float >= 0`.
        shard_bytes: about the size of a shard `int > 0`.
        workers: threads; none: one per core. Each holds the shard it works on in memory.

    Returns:
        The manifest, as written.

    Raises:
        InputError: the source is unusable, or `out` holds something else.
        KeyboardInterrupt: Ctrl-C; the finished shards are kept.
    """
    if source.dataset not in READERS:
        raise InputError(f"--dataset must be one of {', '.join(READERS)}, got {source.dataset!r}")
    clips = with_splits(READERS[source.dataset](source))
    vocabulary = vocabulary or Vocabulary(tuple(sorted({label for clip in clips for label in clip.labels})))
    if not any(clip.labels for clip in clips) or not len(vocabulary):
        raise InputError(f"no clip of {source.csv or source.audio} has a label")
    fingerprint = _fingerprint(clips, source, layout, vocabulary, min_s, shard_bytes)
    workers = workers or os.cpu_count() or 1

    made_here = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    if (out / PLAN).is_file():
        if not _is_json(out / PLAN):
            raise InputError(f"{out / PLAN} is damaged; delete {out} and build it again")
        plan = json.loads((out / PLAN).read_text("utf-8"))
        if plan["fingerprint"] != fingerprint:
            raise InputError(f"{out} was begun with other clips, files or settings; choose another --out or delete it")
        if (out / schema.MANIFEST).is_file():
            try:
                manifest = schema.read_manifest(out)
                print(f"{out} is complete already")
                return manifest
            except InputError as error:
                print(f"{error}; building it again")
                (out / schema.MANIFEST).unlink()
    else:
        if any(path.name != f".{PLAN}.tmp" for path in out.iterdir()):  # what a kill while the plan is written leaves
            raise InputError(f"--out must be a new or empty folder, got {out} with other files in it")
        plan = {"fingerprint": fingerprint, "shards": _count_shards(clips, layout, shard_bytes, workers)}
        run.write_text(out / PLAN, json.dumps(plan, indent=1))
    (out / PARTS).mkdir(exist_ok=True)

    shards = collections.defaultdict(list)
    for clip in clips:
        number, of = _hash(clip.id) % plan["shards"][clip.split], plan["shards"][clip.split]
        shards[f"{clip.split}-{number:05d}-of-{of:05d}.tfrecord"].append(clip)
    parts = _write_shards(shards, out, layout, vocabulary, min_s, workers)

    if not any(part["counts"]["tracks"] for part in parts):
        first = next(row for part in parts for row in part["quarantine"])
        for path in (out / PLAN, *(out / name for name in shards)):
            path.unlink(missing_ok=True)
        shutil.rmtree(out / PARTS)
        if made_here:
            out.rmdir()
        raise InputError(f"no clip could be read; the first of {len(clips)}: {first['path']}: {first['reason']}")
    quarantine = sorted((row for part in parts for row in part["quarantine"]), key=lambda row: row["id"])
    manifest = schema.Manifest(
        format=schema.FORMAT,
        code_version=VERSION,
        dataset=source.dataset,
        layout=layout,
        labels=vocabulary.names,
        vocabulary_sha1=vocabulary.sha1,
        targets=source.targets,
        splits={name: _total([part["counts"] for part in parts if part["shard"]["split"] == name], len(vocabulary)) for name in SPLITS},
        shards=tuple(schema.Shard.model_validate(part["shard"]) for part in parts),
        quarantined=len(quarantine),
    )
    run.write_csv(out / QUARANTINE, quarantine, ["id", "path", "reason"])
    run.write_text(out / schema.MANIFEST, manifest.model_dump_json(indent=1))
    shutil.rmtree(out / PARTS)
    return manifest


def with_splits(clips: Iterable[Clip]) -> list[Clip]:
    """Clips in the reader's order, each with its split: given, or by a stable hash of its group.

    A hash sends about 80 / 10 / 10 % of the groups to train / valid / test whatever else is in the set; when that leaves a split of an
    unsplit set empty, the training groups with the highest hashes fill it.

    Raises:
        InputError: no clips, an id twice, or a group in two splits.
    """
    clips = list(clips)
    if not clips:
        raise InputError("the dataset has no clips")
    doubled = [clip_id for clip_id, count in collections.Counter(clip.id for clip in clips).items() if count > 1]
    if doubled:
        raise InputError(f"every clip must be listed once, got {doubled[0]!r} {sum(c.id == doubled[0] for c in clips)} times")

    splits = {}
    for group in {clip.group for clip in clips if clip.split is None}:
        share = _hash(group) / 2**64
        splits[group] = SPLITS[sum(share >= bound for bound in SPLIT_SHARES)]
    if all(clip.split is None for clip in clips):
        for name in [name for name in SPLITS[:0:-1] if name not in splits.values()]:
            train = sorted((group for group, split in splits.items() if split == "train"), key=_hash)
            if len(train) > 1:
                splits[train[-1]] = name
    clips = [clip if clip.split else dataclasses.replace(clip, split=splits[clip.group]) for clip in clips]

    homes: dict[str, str] = {}
    for clip in clips:
        if homes.setdefault(clip.group, clip.split) != clip.split:
            raise InputError(f"a group must lie in one split, got {clip.group!r} in {homes[clip.group]} and {clip.split}")
    return clips


def convert(clip: Clip, layout: Layout, vocabulary: Vocabulary, min_s: float = 0.0) -> list[tuple[int, bytes]]:
    """A clip's audio file to its records: pure, the one way from file to shard.

    Args:
        clip: with its split.
        layout: rate, chunk and stride.
        vocabulary: labels to encode.
        min_s: shortest clip that is taken.

    Returns:
        Samples of the chunk's track and record of every chunk, in order. Training tracks are chunked, others whole.

    Raises:
        AudioError: the file cannot be used.
    """
    waveform = audio.load(clip.path, layout.sample_rate_hz, clip.start_s, clip.duration_s, min_s)
    bounds = schema.chunk_bounds(len(waveform), layout) if clip.split == "train" else [(0, len(waveform))]
    labels, targets = vocabulary.encode(clip.labels), np.array(clip.targets, np.float32)
    return [
        (
            len(waveform),
            schema.encode(
                clip.id, clip.group, waveform[start:end],
                start=start, part=part, parts=len(bounds), samples=len(waveform), labels=labels, targets=targets,
            ),
        )
        for part, (start, end) in enumerate(bounds)
    ]  # fmt: skip


def _write_shards(shards: dict[str, list[Clip]], out: Path, layout: Layout, vocabulary: Vocabulary, min_s: float, workers: int) -> list[dict]:
    """Writes every shard that is not there yet; returns the notes of all, by name."""
    notes = {name: out / PARTS / f"{name}.json" for name in sorted(shards)}
    todo = [name for name in notes if not _is_json(notes[name])]
    stop = threading.Event()
    progress = cli.progress(total=sum(map(len, shards.values())), unit="clip", desc="records", smoothing=0.05)
    progress.update(sum(len(clips) for name, clips in shards.items() if name not in todo))

    def work(name: str) -> None:
        note = _write_shard(out / name, shards[name], layout, vocabulary, min_s, progress.update, stop)
        if note:
            run.write_text(notes[name], json.dumps(note))

    with progress, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, name) for name in todo]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the finished shards are kept, the same command goes on") from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()
    return [json.loads(path.read_text("utf-8")) for path in notes.values()]


def _write_shard(
    path: Path, clips: list[Clip], layout: Layout, vocabulary: Vocabulary, min_s: float, advance: Callable[[], object], stop: threading.Event
) -> dict | None:
    """One shard, under its name only when complete; none when stopped before that."""
    quarantine = []
    tracks: dict[int, list[tuple[Clip, int, list[bytes]]]] = collections.defaultdict(list)  # by number of chunks
    for clip in sorted(clips, key=lambda clip: _hash(clip.id)):  # a stable order that keeps an artist's clips apart
        if stop.is_set():
            return None
        try:
            samples, records = zip(*convert(clip, layout, vocabulary, min_s), strict=True)
            tracks[len(records)].append((clip, samples[0], list(records)))
        except audio.AudioError as error:
            quarantine.append({"id": clip.id, "path": printable(clip.path), "reason": str(error)})
        advance()

    runs, position = [], 0
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for parts, members in sorted(tracks.items()):
                offsets = []
                for visit in range(parts):
                    offsets.append(position)
                    for clip, _, records in members:
                        record = records[(visit + schema.rotation(clip.id)) % parts]
                        writer.write(record)
                        position += len(record) + schema.RECORD_FRAME_BYTES
                runs.append(schema.Runs(parts=parts, tracks=len(members), offsets=offsets))
    except tf.errors.OpError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.message}") from error
    with open(temporary, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    os.replace(temporary, path)

    written = [(clip, samples) for members in tracks.values() for clip, samples, _ in members]
    encoded = [vocabulary.encode(clip.labels) for clip, _ in written]
    split = clips[0].split
    shard = schema.Shard(split=split, file=path.name, bytes=position, sha256=digest, runs=runs)
    counts = schema.Split(
        tracks=len(written),
        seconds=sum(samples for _, samples in written) / layout.sample_rate_hz,
        unlabelled=sum(not row.any() for row in encoded),
        label_counts=np.sum(encoded, axis=0, dtype=int).tolist() if encoded else [0] * len(vocabulary),
    )
    return {"shard": shard.model_dump(), "counts": counts.model_dump(), "quarantine": quarantine}


def _total(counts: list[dict], labels: int) -> schema.Split:
    """Sum of the counts of a split's shards."""
    return schema.Split(
        tracks=sum(part["tracks"] for part in counts),
        seconds=round(sum(part["seconds"] for part in counts), 3),
        unlabelled=sum(part["unlabelled"] for part in counts),
        label_counts=[sum(part["label_counts"][i] for part in counts) for i in range(labels)],
    )


def _count_shards(clips: list[Clip], layout: Layout, shard_bytes: int, workers: int) -> dict[str, int]:
    """Shards per split, from the durations in the files' headers; a file without a readable one counts nothing here."""

    def size(clip: Clip) -> int:
        try:
            duration_s = clip.duration_s or audio.probe(clip.path)[0] - clip.start_s
        except audio.AudioError:
            return 0
        samples = round(max(duration_s, 0) * layout.sample_rate_hz)
        return 2 * (sum(end - start for start, end in schema.chunk_bounds(samples, layout)) if clip.split == "train" else samples)

    with ThreadPoolExecutor(workers) as pool:
        sizes = list(cli.progress(pool.map(size, clips), total=len(clips), unit="header", desc="plan"))
    shards = {}
    for name in SPLITS:
        members = [size for clip, size in zip(clips, sizes, strict=True) if clip.split == name]
        if members:
            shards[name] = max(-(-sum(members) // shard_bytes), min(FEWEST_SHARDS, -(-len(members) // SMALLEST_SHARD_CLIPS)))
    return shards


def _hash(text: str) -> int:
    """A stable 64-bit hash."""
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big")


def _fingerprint(clips: list[Clip], source: Source, layout: Layout, vocabulary: Vocabulary, *numbers: float) -> str:
    """Of all that decides the shards' bytes; of the audio its files' sizes and times."""
    digest = hashlib.sha1(f"{schema.FORMAT} {source.dataset} {source.targets} {layout!r} {vocabulary.sha1} {numbers}".encode())
    for clip in clips:
        digest.update(repr(dataclasses.replace(clip, path=None)).encode())
        with contextlib.suppress(OSError):  # a missing file is quarantined later
            status = clip.path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _is_json(path: Path) -> bool:
    """Whether a file of ours is there and whole."""
    try:
        json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True
