"""Builds record shards: plan from headers, write each shard as one unit of work, write the manifest last.

A plan fixes the settings, how many shards each split has, and by a stable hash of the id which clips lie in each; it is written down in the
output directory, so that a shard can be made by any process that is told its name: a thread here or a worker of Apache Beam elsewhere. A
shard is written to a temporary name, renamed, and noted in a small file; a kill loses only the shards in work, and the same command goes on.
Whoever writes a shard has temporary files of its own, so two that write the same one (Beam may try twice) do no harm. Its bytes depend on its
clips and the settings alone, not on runner, workers or order.

Local workers are threads: decoding, resampling, hashing and writing all release the interpreter's lock, and a thread starts without importing
anything.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from records import datasets
from records.datasets.clip import SPLITS, Clip, Source
from records.selection import Selected, label_families, select, stable_hash
from records.settings import Selection, Work
from tfmusic import audio, cli, files, run, schema
from tfmusic.config import VERSION, InputError, Layout, Settings, printable
from tfmusic.files import RemotePath
from tfmusic.labels import Vocabulary

PLAN, PARTS, NOTES, QUARANTINE = "plan.json", "parts", "notes.json", "quarantine.csv"
SMALLEST_SHARD_CLIPS, FEWEST_SHARDS = 32, 8  # a small split still gives every core work, down to shards of this many clips
SAMPLE_BYTES = {"pcm16": 2, "flac": 1.2}  # about, of music
BLOCK_CLIPS = 4096  # looked at together by threads


class Plan(Settings):
    """plan.json: all that the bytes of the shards depend on, but for the lists of clips beside it."""

    fingerprint: str
    dataset: str
    layout: Layout
    labels: tuple[str, ...]
    targets: tuple[str, ...]
    min_s: float
    shards: tuple[str, ...]  # their files, in alphabetical order
    merges: dict[str, str]
    counts_before: dict[str, int]
    counts_after: dict[str, int]
    families: dict[str, tuple[str, ...]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """Shards of each split, those that no clip fell into included."""
        return {name.split("-")[0]: int(name.split("-")[-1].removesuffix(".tfrecord")) for name in self.shards}


def build(
    source: Source,
    out: Path | RemotePath,
    layout: Layout = Layout(),  # noqa: B008 (frozen)
    vocabulary: Vocabulary | None = None,
    selection: Selection = Selection(),  # noqa: B008
    work: Work = Work(),  # noqa: B008
) -> schema.Manifest:
    """Builds the records of a dataset, or goes on where an interrupted build of the same settings stopped.

    Args:
        source: the dataset.
        out: directory of the shards, local or gs://; made when missing.
        layout: rate, chunk, stride and payload.
        vocabulary: labels to encode; none: all labels of the selection in alphabetical order.
        selection: which clips, labels and splits.
        work: how shards are written.

    Returns:
        The manifest, as written.

    Raises:
        InputError: the source is unusable, or `out` holds something else.
        KeyboardInterrupt: Ctrl-C; the finished shards are kept.
    """
    if work.runner == "beam" and not importlib.util.find_spec("apache_beam"):
        raise InputError("--runner beam needs Apache Beam: pip install -r requirements/beam.txt")
    if work.beam_options and work.runner != "beam":
        raise InputError(f"--beam-options are for --runner beam, got them with {work.runner}: {work.beam_options}")
    reader = datasets.reader_of(source.dataset)
    selected = select(datasets.read(source), selection, reader, vocabulary and vocabulary.names)
    for note in selected.notes:
        print(note)
    vocabulary = vocabulary or Vocabulary(selected.labels)
    if not any(clip.labels for clip in selected.clips) or not len(vocabulary):
        raise InputError(f"no clip of {source.csv or source.audio} has a label")
    families = _families(source, vocabulary, selected.merges)
    if layout.features.run:  # a worker of Beam may stand elsewhere
        layout = layout.model_copy(update={"features": layout.features.model_copy(update={"run": layout.features.run.absolute()})})
    workers = work.workers or os.cpu_count() or 1
    made_here = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with files.locked(out):
            return _build(source, out, layout, vocabulary, selected, families, work, workers)
    except InputError:
        if made_here and isinstance(out, Path) and not any(out.iterdir()):
            out.rmdir()
        raise


def _families(source: Source, vocabulary: Vocabulary, merges: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Families of the labels that are built, where the dataset has any; says which labels have none.

    Raises:
        InputError: a file of families is unusable, or has rows for none of the labels.
    """
    given = datasets.families(source)
    families = label_families(given, vocabulary.names, merges)
    without = [label for label in vocabulary.names if label not in families]
    if source.families and not families:
        found = ", ".join(map(repr, list(given)[:3])) or "no rows"
        raise InputError(f"{source.families}: the column label must hold labels of the clips, such as {vocabulary.names[0]!r}, got {found}")
    if given and without:
        print(f"{len(without)} of {len(vocabulary)} labels have no family: {', '.join(without)}")
    return families


def _build(
    source: Source,
    out: Path | RemotePath,
    layout: Layout,
    vocabulary: Vocabulary,
    selected: Selected,
    families: dict[str, tuple[str, ...]],
    work: Work,
    workers: int,
) -> schema.Manifest:
    """`build`, when nobody else is at it."""
    plan = _read_plan(out)
    fingerprint = _fingerprint(selected.clips, source, layout, vocabulary, families, work, workers)
    if plan:
        if plan.fingerprint != fingerprint:
            raise InputError(f"{out} was begun with other clips, files or settings; choose another --out or delete it")
        if (out / schema.MANIFEST).is_file() and not _reopened(out, work.repair):
            print(f"{out} is complete already")
            if (out / PARTS).is_dir():  # a kill came between the manifest and the end
                files.remove_tree(out / PARTS)
            return schema.read_manifest(out)
    elif not all(_is_ours(path) for path in out.iterdir()):
        raise InputError(f"--out must be a new or empty folder, got {out} with other files in it")
    (out / PARTS).mkdir(exist_ok=True)
    shards = _write_lists(selected.clips, plan.counts if plan else _count_shards(selected.clips, layout, work.shard_mb, workers), out)
    if not plan:
        plan = Plan(
            fingerprint=fingerprint,
            dataset=source.dataset,
            layout=layout,
            labels=vocabulary.names,
            targets=source.targets,
            min_s=work.min_s,
            shards=tuple(shards),
            merges=selected.merges,
            counts_before=selected.counts_before if selected.merges else {},
            counts_after=selected.counts_after if selected.merges else {},
            families=families,
        )
        files.write_text(out / PLAN, plan.model_dump_json(indent=1))
    selected.clips.clear()  # the lists are on disk now

    todo = [name for name in plan.shards if not is_done(out, name)]
    if work.runner == "beam":
        from records import beam

        beam.run(out, todo, work.beam_options, workers)
    else:
        _run_local(out, plan, shards, todo, workers)
    return _finish(out, plan, work.max_quarantined)


def convert(clip: Clip, layout: Layout, vocabulary: Vocabulary, min_s: float = 0.0) -> list[tuple[int, bytes]]:
    """A clip's audio file to its records: pure, the one way from file to shard.

    Args:
        clip: with its split.
        layout: rate, chunk, stride and payload.
        vocabulary: labels to encode.
        min_s: shortest clip that is taken.

    Returns:
        Samples of the chunk's track and record of every chunk, in order. Training tracks of audio are chunked, others whole.

    Raises:
        AudioError: the file cannot be used.
    """
    file, source_sha1 = _opened(clip.path)
    waveform = audio.load(file, layout.sample_rate_hz, clip.start_s, clip.duration_s, min_s)
    if layout.payload == "features":
        from records import features

        payloads = [((0, len(waveform)), features.compute(waveform, layout.sample_rate_hz, layout.features).tobytes())]
    else:
        stretches = schema.bounds(len(waveform), layout, clip.split)
        payloads = [((start, end), schema.pack(waveform[start:end], layout)) for start, end in stretches]
    labels, targets = vocabulary.encode(clip.labels), np.array(clip.targets, np.float32)
    return [
        (
            len(waveform),
            schema.encode(
                payload, track_id=clip.id, group=clip.group, split=clip.split, source_sha1=source_sha1,
                origin=round(clip.start_s * layout.sample_rate_hz), start=start, part=part, parts=len(payloads), samples=len(waveform),
                labels=labels, targets=targets,
            ),
        )
        for part, ((start, _), payload) in enumerate(payloads)
    ]  # fmt: skip


def read_plan(out: Path | RemotePath) -> Plan:
    """The plan that `build` wrote into `out`.

    Raises:
        InputError: it is missing or damaged.
    """
    plan = _read_plan(out)
    if plan is None:
        raise InputError(f"{out / PLAN} is missing")
    return plan


def write_shard(
    out: Path | RemotePath, name: str, plan: Plan, advance: Callable[[], object] = lambda: None, stop: threading.Event | None = None
) -> dict | None:
    """Writes one shard, under its name only when complete, and its note.

    Args:
        out: directory of the build.
        name: file of the shard.
        plan: of the build.
        advance: called after every clip.
        stop: when set, the shard is given up.

    Returns:
        Counts and quarantine of the shard, as noted; none when stopped.

    Raises:
        InputError: a file could not be read for a reason outside it, or the shard could not be written.
    """
    vocabulary, quarantine = Vocabulary(plan.labels), []
    written: list[tuple[np.ndarray, int]] = []  # labels and samples of each track
    tracks: dict[int, list[tuple[int, list[tuple[int, int]]]]] = collections.defaultdict(list)  # by chunks: rotation, place of each record
    split = name.split("-")[0]
    # Local temporary files lie where a rename can publish them; a bucket takes an upload from the system's own.
    with tempfile.TemporaryDirectory(dir=None if isinstance(out, RemotePath) else out / PARTS, ignore_cleanup_errors=True) as folder:
        temporary, spooled = Path(folder) / "shard", Path(folder) / "spool"
        with open(spooled, "wb") as spool:  # in order of clips; memory holds one track, not the shard
            for clip in _read_list(out, name):
                if stop is not None and stop.is_set():
                    return None
                try:
                    samples, records = zip(*convert(clip, plan.layout, vocabulary, plan.min_s), strict=True)
                except audio.UnreadableError as error:
                    raise InputError(f"{error}; the finished shards are kept, the same command goes on") from error
                except audio.AudioError as error:
                    quarantine.append({"id": clip.id, "path": printable(clip.path), "reason": str(error)})
                else:
                    places = [(spool.tell() + sum(map(len, records[:part])), len(record)) for part, record in enumerate(records)]
                    spool.writelines(records)
                    tracks[len(records)].append((schema.rotation(clip.id), places))
                    written.append((vocabulary.encode(clip.labels), samples[0]))
                advance()
        with open(spooled, "rb") as spool:
            runs = _write_runs(spool, tracks, temporary, out / name)
        digest = schema.sha256_of(temporary)
        size = temporary.stat().st_size
        files.publish(temporary, out / name)
    shard = schema.Shard(split=split, file=name, bytes=size, sha256=digest, runs=runs)
    counts = schema.Split(
        tracks=len(written),
        samples=sum(samples for _, samples in written),
        unlabelled=sum(not labels.any() for labels, _ in written),
        label_counts=np.sum([labels for labels, _ in written], axis=0, dtype=int).tolist() if written else [0] * len(vocabulary),
    )
    note = {"shard": shard.model_dump(), "counts": counts.model_dump(), "quarantine": quarantine}
    files.write_text(_note(out, name), json.dumps(note))
    return note


def _write_runs(spool: BinaryIO, tracks: dict, temporary: Path, path: Path | RemotePath) -> list[schema.Runs]:
    """The spooled records in the order of `schema`: run v has chunk (v + rotation) mod K of every track of K chunks."""
    runs, position = [], 0
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for parts, members in sorted(tracks.items()):
                offsets = []
                for visit in range(parts):
                    offsets.append(position)
                    for rotation, places in members:
                        first, length = places[(visit + rotation) % parts]
                        writer.write(os.pread(spool.fileno(), length, first))
                        position += length + schema.RECORD_FRAME_BYTES
                runs.append(schema.Runs(parts=parts, tracks=len(members), offsets=offsets))
    except tf.errors.OpError as error:
        raise InputError(f"{path} cannot be written: {error.message}") from error
    return runs


def _run_local(out: Path | RemotePath, plan: Plan, clips: dict[str, int], todo: list[str], workers: int) -> None:
    """Writes the shards in threads, with a bar over clips."""
    stop = threading.Event()
    progress = cli.progress(total=sum(clips.values()), unit="clip", desc="records", smoothing=0.05)
    progress.update(sum(count for name, count in clips.items() if name not in todo))
    with progress, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(write_shard, out, name, plan, progress.update, stop) for name in todo]
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


def _finish(out: Path | RemotePath, plan: Plan, max_quarantined: float) -> schema.Manifest:
    """From the notes of all shards to the manifest."""
    missing = [name for name in plan.shards if not is_done(out, name)]
    if missing:
        raise InputError(f"{len(missing)} of {len(plan.shards)} shards are missing, {out / missing[0]} for one; the same command goes on")
    parts = [json.loads(_note(out, name).read_text("utf-8")) for name in plan.shards]
    if (out / schema.MANIFEST).is_file():
        before = {shard.file: shard.sha256 for shard in schema.read_manifest(out, sizes=False).shards}
        changed = [part["shard"]["file"] for part in parts if part["shard"]["sha256"] != before.get(part["shard"]["file"])]
        if changed:
            raise InputError(
                f"{out / changed[0]} is not what it was: the audio files or the libraries that read them have changed; "
                f"delete {out} and build it again, or bring the old ones back"
            )
    quarantine = sorted((row for part in parts for row in part["quarantine"]), key=lambda row: row["id"])
    if not any(part["counts"]["tracks"] for part in parts):
        for path in (out / PLAN, out / QUARANTINE, out / NOTES, *(out / name for name in plan.shards)):
            path.unlink(missing_ok=True)
        files.remove_tree(out / PARTS)
        raise InputError(f"no clip could be read; the first of {len(quarantine)}: {quarantine[0]['path']}: {quarantine[0]['reason']}")
    files.write_csv(out / QUARANTINE, quarantine, ["id", "path", "reason"])
    clips = len(quarantine) + sum(part["counts"]["tracks"] for part in parts)
    if len(quarantine) > max_quarantined * clips:
        for name, part in zip(plan.shards, parts, strict=True):
            if part["quarantine"]:
                _note(out, name).unlink()
        raise InputError(
            f"{len(quarantine)} of {clips} clips could not be used, the first: {quarantine[0]['reason']}; see {out / QUARANTINE}. "
            f"Mend them, delete {out} and build again, or go on without them by a higher --max-quarantined"
        )
    feature_dims = 0
    if plan.layout.payload == "features":
        from records import features

        feature_dims = features.dims(plan.layout.features)
    manifest = schema.Manifest(
        format=schema.FORMAT,
        code_version=VERSION,
        dataset=plan.dataset,
        layout=plan.layout,
        labels=plan.labels,
        vocabulary_sha1=Vocabulary(plan.labels).sha1,
        targets=plan.targets,
        splits={name: _total([part["counts"] for part in parts if part["shard"]["split"] == name], len(plan.labels)) for name in SPLITS},
        shards=tuple(schema.Shard.model_validate(part["shard"]) for part in parts),
        quarantined=len(quarantine),
        feature_dims=feature_dims,
        merges=plan.merges,
        counts_before=plan.counts_before,
        counts_after=plan.counts_after,
        families=plan.families,
    )
    files.write_text(out / NOTES, json.dumps(dict(zip(plan.shards, parts, strict=True))))
    files.write_text(out / schema.MANIFEST, manifest.model_dump_json(indent=1))
    files.remove_tree(out / PARTS)
    return manifest


def _total(counts: list[dict], labels: int) -> schema.Split:
    """Sum of the counts of a split's shards."""
    return schema.Split(
        tracks=sum(part["tracks"] for part in counts),
        samples=sum(part["samples"] for part in counts),
        unlabelled=sum(part["unlabelled"] for part in counts),
        label_counts=[sum(part["label_counts"][i] for part in counts) for i in range(labels)],
    )


# --- the plan ---------------------------------------------------------------------------------------------------------------------------
def _count_shards(clips: list[Clip], layout: Layout, shard_mb: float, workers: int) -> dict[str, int]:
    """Shards per split, from the durations in the files' headers; a file without a readable one counts nothing here."""
    if layout.payload == "features":
        from records import features

    def size(clip: Clip) -> int:
        try:
            duration_s = clip.duration_s or audio.probe(clip.path)[0] - clip.start_s
        except audio.UnreadableError as error:
            raise InputError(str(error)) from error
        except audio.AudioError:
            return 0
        samples = round(max(duration_s, 0) * layout.sample_rate_hz)
        if layout.payload == "features":
            return features.estimated_bytes(samples, layout.sample_rate_hz, layout.features)
        return round(SAMPLE_BYTES[layout.payload] * sum(end - start for start, end in schema.bounds(samples, layout, clip.split)))

    sizes = list(cli.progress(_threaded(size, clips, workers), total=len(clips), unit="header", desc="plan"))
    shards = {}
    for name in SPLITS:
        members = [size for clip, size in zip(clips, sizes, strict=True) if clip.split == name]
        if members:
            shards[name] = max(-(-sum(members) // round(shard_mb * 2**20)), min(FEWEST_SHARDS, -(-len(members) // SMALLEST_SHARD_CLIPS)))
    return shards


def _write_lists(clips: list[Clip], shards: dict[str, int], out: Path | RemotePath) -> dict[str, int]:
    """Writes the list of each shard's clips, in a stable order that keeps an artist's clips apart; returns their number by the shard's name."""
    members: dict[str, list[tuple[int, Clip]]] = collections.defaultdict(list)
    for clip in clips:
        key, of = stable_hash(clip.id), shards[clip.split]
        members[f"{clip.split}-{key % of:05d}-of-{of:05d}.tfrecord"].append((key, clip))
    for name, found in members.items():
        found.sort(key=lambda member: member[0])
        files.write_text(out / PARTS / f"{name}.clips", "".join(f"{json.dumps(_to_json(clip))}\n" for _, clip in found))
    return {name: len(members[name]) for name in sorted(members)}


def _read_list(out: Path | RemotePath, name: str) -> Iterator[Clip]:
    with (out / PARTS / f"{name}.clips").open(encoding="utf-8") as file:
        for line in file:
            clip = json.loads(line)
            clip["targets"], clip["labels"] = tuple(clip["targets"]), tuple(clip["labels"])
            yield Clip(**{**clip, "path": files.location(clip["path"])})


def _to_json(clip: Clip) -> dict:
    return {**dataclasses.asdict(clip), "path": str(clip.path.absolute())}


def _note(out: Path | RemotePath, name: str) -> Path | RemotePath:
    return out / PARTS / f"{name}.json"


def _read_plan(out: Path | RemotePath) -> Plan | None:
    if not (out / PLAN).is_file():
        return None
    try:
        return Plan.model_validate_json((out / PLAN).read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{out / PLAN} is damaged or of another version; delete {out} and build it again") from error


def _reopened(out: Path | RemotePath, hashes: bool) -> bool:
    """Takes a finished set up again when shards of it are missing, cut or (with `hashes`) altered; the others keep their notes.

    The manifest stays, for `_finish` to compare what is written now with what was written then.
    """
    manifest = schema.read_manifest(out, sizes=False)
    wrong = []
    for shard in cli.progress(manifest.shards, unit="shard", desc="compare") if hashes else manifest.shards:
        if schema.wrong_size(out, shard) or (hashes and schema.sha256_of(out / shard.file) != shard.sha256):
            wrong.append(shard.file)
    if not wrong:
        return False
    print(f"{len(wrong)} of {len(manifest.shards)} shards are not what was built; writing them anew")
    (out / PARTS).mkdir(exist_ok=True)
    try:
        notes = json.loads((out / NOTES).read_text("utf-8"))
    except (OSError, ValueError):
        notes = {}  # then every shard is written anew
    for name, note in notes.items():
        if name not in wrong:
            files.write_text(_note(out, name), json.dumps(note))
    return True


def _fingerprint(
    clips: list[Clip],
    source: Source,
    layout: Layout,
    vocabulary: Vocabulary,
    families: dict[str, tuple[str, ...]],
    work: Work,
    workers: int,
) -> str:
    """Of all that decides the shards' bytes and the manifest; of the audio its files' sizes and times."""

    def about(path: Path | RemotePath) -> bytes:
        try:
            status = path.stat()
        except OSError as error:
            if error.errno in audio.LASTING:  # a missing file is quarantined later
                return b""
            raise InputError(f"{printable(path)} cannot be read: {error.strerror or error}") from error
        return f"{status.st_size} {status.st_mtime_ns}".encode()

    numbers = (work.min_s, work.shard_mb)
    digest = hashlib.sha1(f"{schema.FORMAT} {source.dataset} {source.targets} {layout!r} {vocabulary.sha1} {numbers}".encode())
    if families:
        digest.update(repr(sorted(families.items())).encode())
    if layout.features.run:
        digest.update(about(layout.features.run / run.BEST))
    for clip, status in zip(clips, _threaded(lambda clip: about(clip.path), clips, workers), strict=True):
        digest.update(repr(dataclasses.replace(clip, path=None)).encode() + status)
    return digest.hexdigest()


def _threaded(function: Callable[[Clip], Any], clips: list[Clip], workers: int) -> Iterator[Any]:
    """`map` in threads, in blocks: an executor's own map keeps a future for every item of 100,000."""
    pool = ThreadPoolExecutor(workers)
    try:
        for first in range(0, len(clips), BLOCK_CLIPS):
            yield from pool.map(function, clips[first : first + BLOCK_CLIPS])
    finally:
        pool.shutdown(cancel_futures=True)


# --- files ------------------------------------------------------------------------------------------------------------------------------
def _opened(path: Path | RemotePath) -> tuple[Path | files.Content, bytes]:
    """An audio file as `audio.load` takes it, and the sha1 of its bytes; out of a bucket it is fetched once, whole.

    Raises:
        AudioError: it is not there; an UnreadableError where another try may help.
    """
    try:
        if isinstance(path, RemotePath):
            content = path.read_bytes()
            return files.Content(content, str(path)), hashlib.sha1(content).digest()
        status = path.stat()
        return path, _sha1(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise audio.unreadable(printable(path), error) from error


@functools.lru_cache(maxsize=64)  # many clips of one long file lie in several shards; size and time tell a rewritten file
def _sha1(path: Path, _size: int, _time: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha1").digest()


def _is_ours(path: Path | RemotePath) -> bool:
    """Whether it is something that a kill leaves while the plan is written; whatever else is called `parts` is not ours to delete."""
    if path.name == PARTS:
        return path.is_dir() and all(part.name.endswith((".tfrecord.clips", ".tmp")) for part in path.iterdir())
    return path.name == files.LOCK or path.name.startswith(f".{PLAN}.")


def noted(out: Path | RemotePath) -> set[str]:
    """Names of the shards that have a note."""
    return {path.name.removesuffix(".json") for path in (out / PARTS).iterdir() if path.name.endswith(".tfrecord.json")}


def is_done(out: Path | RemotePath, name: str) -> bool:
    """Whether a shard is there with a whole note about it."""
    try:
        note = json.loads(_note(out, name).read_text("utf-8"))
        return (out / name).stat().st_size == note["shard"]["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
