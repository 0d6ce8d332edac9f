"""What each payload of the records costs: bytes a clip, and the training stream's speed and CPU time, from a warm page cache.

`python -m tests.benchmarks.payloads` (`--audio DIR` for real files in place of synthesised music, whose noise MP3 keeps at great cost)

Bytes: the same 29 s clips as records (16 kHz mono; pcm16 and flac in chunks as the training split has them and whole as the others, features
whole) and as source files in MP3 and FLAC at their own rate and channels, all against .npy files of the whole clips, int16 at 16 kHz. Record
framing, names and labels are in our figure, the .npy header in the peer's; the MP3 comes from libsndfile's encoder at its default quality.

Streams of audio: as in `pipeline`, one random window of 59,049 samples of every track an epoch, batches of 16 of int16 windows and float32 labels.
The peers are torch DataLoaders with no and with two worker processes, over memory-mapped .npy files, and for flac over .flac files too, in which
soundfile seeks. Streams of features: whole sequences, in batches of 16 padded to the longest, float32, with mask and labels; the peer loads and pads
.npy files of the same float16 numbers. Ours sorts them by length, shuffles all of an epoch, and hands out an epoch's rests as smaller batches. Both
sides make what they can on all cores but for the DataLoader without workers, which has one. CPU time counts the workers.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pydantic
import soundfile
import tensorflow as tf

from records.build import build
from records.datasets.clip import Source
from tests.benchmarks import common
from tests.benchmarks.pipeline import BATCH, FRONTEND, LABELS, RATE_HZ, measured, rows_of, stream, windows_of
from tests.conftest import write_csv
from tfmusic import audio, cli, data, files, schema
from tfmusic.config import Experiment, Features, Fit, InputError, Layout

PAYLOADS = {  # name -> layout of the records
    "pcm16": Layout(sample_rate_hz=RATE_HZ),
    "flac": Layout(sample_rate_hz=RATE_HZ, payload="flac"),
    "log_mel": Layout(sample_rate_hz=RATE_HZ, payload="features", features=Features(kind="log_mel")),
    "beat_mel": Layout(sample_rate_hz=RATE_HZ, payload="features", features=Features(kind="beat_mel")),
}
SOURCES = ("mp3", "flac")
SYNTHESISED_HZ = 44_100
WORKERS = (0, 2) if common.torch else (0,)
Clip = tuple[np.ndarray, int]  # int16 (samples, channels), rate in Hz


class Sizes(common.Sizes):
    """Storage and streams of pcm16, flac and features."""

    audio: Path | None = pydantic.Field(None, description="Folder of real audio files, cut or joined to clips; none: synthesised music.")
    clips: int = pydantic.Field(32, gt=0, description="Clips whose bytes are counted.")
    tracks: int = pydantic.Field(256, gt=BATCH, description="Tracks of a stream: the clips over and over.")
    track_s: float = pydantic.Field(29.0, gt=4, description="Their length in seconds.")
    batches: int = pydantic.Field(96, gt=0, description="Batches a measurement.")


def measure(sizes: Sizes, directory: Path) -> list[common.Row]:
    """Rows of bytes, then of streams."""
    if not common.torch:
        print("torch is not installed (requirements/bench.txt): the peer is a numpy loop without workers", file=sys.stderr)
    source, tracks, labels, source_bytes = _material(directory / "tracks", sizes)
    npy_bytes = sum(path.stat().st_size for path in tracks) / len(tracks)
    name = sizes.audio.name if sizes.audio else "synthesised"

    def row(what: str, clip_bytes: float) -> common.Row:
        return common.compare(f"storage, {what} ({name})", "kB a clip", [clip_bytes / 1e3], ".npy, int16", [npy_bytes / 1e3], higher=False)

    storage, streams = [row(f"source as {suffix}", clip_bytes) for suffix, clip_bytes in source_bytes.items()], []
    for payload, layout in PAYLOADS.items():
        out = directory / payload
        manifest = _build(source, out, layout)
        if layout.payload == "features":
            storage.append(row(payload, _clip_bytes(manifest)))
            streams += _sequence_rows(payload, out, manifest, labels, sizes)
        else:
            whole = layout.model_copy(update={"chunk_s": 2 * sizes.track_s, "stride_s": sizes.track_s})
            storage.append(row(f"{payload} in chunks", _clip_bytes(manifest)))
            storage.append(row(f"{payload} whole", _clip_bytes(_build(source, directory / "whole", whole))))
            shutil.rmtree(directory / "whole")
            streams += _window_rows(payload, out, manifest, tracks, labels, sizes)
        shutil.rmtree(out)
    return storage + streams


# --- streams ------------------------------------------------------------------------------------------------------------------------------
def _window_rows(payload: str, out: Path, manifest: schema.Manifest, tracks: list[Path], labels: np.ndarray, sizes: Sizes) -> list[common.Row]:
    """Rows of the stream of random windows."""
    items = {"memmap": windows_of(tracks, labels)}
    if payload == "flac":
        items[".flac files"] = _flac_windows_of(tracks, labels)
    peers = {_peer(kind, workers): common.loader(item, len(tracks), BATCH, workers) for kind, item in items.items() for workers in WORKERS}
    experiment = Experiment(recipe="benchmark", frontend=FRONTEND, fit=Fit(batch_size=BATCH, epochs=1_000_000))
    bars = {_peer("memmap", 0): (1.0, 1.0)} if payload == "pcm16" else {}
    return _rows(f"stream of {payload}", "windows", stream(out, manifest, experiment).as_numpy_iterator(), peers, sizes, bars)


def _sequence_rows(payload: str, out: Path, manifest: schema.Manifest, labels: np.ndarray, sizes: Sizes) -> list[common.Row]:
    """Rows of the stream of padded sequences."""
    tracks = [out / f"{number:05d}.npy" for number in range(sizes.tracks)]
    for sequence in data.sequences(out, manifest, "train"):
        np.save(out / Path(sequence.id).with_suffix(".npy"), sequence.features)

    def item(number: int) -> common.Item:
        return np.load(tracks[number]), labels[number]

    peers = {_peer(".npy", workers): common.loader(item, len(tracks), BATCH, workers, _padded) for workers in WORKERS}
    epochs = tf.data.Dataset.range(1_000_000).flat_map(lambda epoch: data.sequence_batches(out, manifest, BATCH, 0, epoch))
    return _rows(f"stream of {payload}", "clips", epochs.as_numpy_iterator(), peers, sizes)


def _rows(what: str, unit: str, ours: Iterator, peers: dict[str, Iterator], sizes: Sizes, bars: dict[str, tuple] = {}) -> list[common.Row]:  # noqa: B006
    runs: dict[str, Callable] = {name: measured(batches, sizes.batches) for name, batches in peers.items()}  # workers fork before our threads start
    found = common.alternate({"ours": measured(ours, sizes.batches), **runs}, sizes.rounds)
    return [row for name in peers for row in rows_of(what, found["ours"], name, found[name], bars.get(name, (None, None)), unit)]


def _peer(kind: str, workers: int) -> str:
    return f"{kind}, {common.LOADER}{f', {workers} workers' if workers else ''}"


def _flac_windows_of(tracks: list[Path], labels: np.ndarray) -> Callable[[int], common.Item]:
    """`windows_of` from the .flac files beside the tracks."""
    random = np.random.default_rng(0)

    def item(number: int) -> common.Item:
        with soundfile.SoundFile(tracks[number].with_suffix(".flac")) as sound:
            sound.seek(int(random.integers(0, sound.frames - FRONTEND.window_samples + 1)))
            return sound.read(FRONTEND.window_samples, dtype="int16"), labels[number]

    return item


def _padded(items: Sequence[common.Item]) -> common.Item:
    """A batch of sequences: features float32 with zeros behind them, labels, mask."""
    features, labels = zip(*items, strict=True)
    lengths = np.array([len(rows) for rows in features])
    batch = np.zeros((len(features), lengths.max(), features[0].shape[1]), np.float32)
    for row, values in zip(batch, features, strict=True):
        row[: len(values)] = values
    return batch, np.stack(labels), np.arange(lengths.max()) < lengths[:, None]


# --- the set ------------------------------------------------------------------------------------------------------------------------------
def _material(directory: Path, sizes: Sizes) -> tuple[Source, list[Path], np.ndarray, dict[str, float]]:
    """The set for both: .wav files with their list for the builder, .npy, .flac and a label matrix for the peers; and bytes of a source file."""
    directory.mkdir()
    waveforms, source_bytes = [], {suffix: [] for suffix in SOURCES}
    for waveform, rate_hz in _recorded(sizes) if sizes.audio else _synthesised(sizes):
        for suffix in SOURCES:
            path = directory / f"source.{suffix}"
            soundfile.write(path, waveform, rate_hz)
            source_bytes[suffix].append(path.stat().st_size)
        waveforms.append(audio.convert(waveform, rate_hz, RATE_HZ))
    tracks, rows = [directory / f"{number:05d}.npy" for number in range(sizes.tracks)], []
    for number, path in enumerate(tracks):
        waveform = waveforms[number % len(waveforms)]
        np.save(path, waveform)
        soundfile.write(path.with_suffix(".wav"), waveform, RATE_HZ, subtype="PCM_16")
        soundfile.write(path.with_suffix(".flac"), waveform, RATE_HZ)
        rows.append({"path": f"{number:05d}.wav", "split": "train", "tags": f"tag{number % LABELS:02d}"})
    labels = np.eye(LABELS, dtype=np.float32)[np.arange(sizes.tracks) % LABELS]
    source = Source(dataset="csv", csv=write_csv(directory / "clips.csv", rows), audio=directory)
    return source, tracks, labels, {suffix: float(np.mean(found)) for suffix, found in source_bytes.items()}


def _synthesised(sizes: Sizes) -> Iterator[Clip]:
    for seed in range(sizes.clips):
        yield (common.music(sizes.track_s, SYNTHESISED_HZ, seed=seed) * 32_767).astype(np.int16), SYNTHESISED_HZ


def _recorded(sizes: Sizes) -> Iterator[Clip]:
    """Clips from files in random order: long ones are cut, the rests and short ones of one rate and number of channels joined."""
    paths = [path for path in files.walk(sizes.audio) if path.suffix.lower() in files.AUDIO_SUFFIXES]
    pending: dict[tuple[int, int], np.ndarray] = {}
    found = 0
    for index in np.random.default_rng(0).permutation(len(paths)):
        try:
            floats, rate_hz = soundfile.read(paths[index], dtype="float32", always_2d=True)  # int16 reads of Vorbis wrap around
        except soundfile.LibsndfileError:  # .m4a and whatever else it cannot read
            continue
        waveform = (np.clip(floats, -1, 1) * 32_767).astype(np.int16)
        kind, samples = (rate_hz, waveform.shape[1]), round(sizes.track_s * rate_hz)
        pending[kind] = np.concatenate([pending[kind], waveform]) if kind in pending else waveform
        while len(pending[kind]) >= samples:
            yield pending[kind][:samples], rate_hz
            pending[kind] = pending[kind][samples:]
            found += 1
            if found == sizes.clips:
                return
    if not found:
        raise InputError(f"--audio must hold {sizes.track_s:g} s of audio of one rate at least, got {len(paths)} files in {sizes.audio}")


def _build(source: Source, out: Path, layout: Layout) -> schema.Manifest:
    with common.quiet():
        return build(source, out, layout)


def _clip_bytes(manifest: schema.Manifest) -> float:
    return sum(shard.bytes for shard in manifest.shards) / manifest.split("train").tracks


if __name__ == "__main__":
    cli.main(lambda: common.run(Sizes, measure))
