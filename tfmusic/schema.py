"""The record: how a track is cut into chunks, encoded and parsed, and the manifest that makes a folder of shards a data set.

A training track lies as overlapping chunks, so that a random window reads a little more than itself and not the whole track, and yet every
start position stays reachable. With L samples in the track, the widest window W = chunk - stride and stride S, there are
K = ceil((L - W + 1) / S) chunks, and chunk k owns the starts k (L - w + 1) / K .. (k + 1) (L - w + 1) / K of ANY window w <= W: equal
shares, so that one chunk drawn at random and one start drawn in its share is one start drawn uniformly from the track.

A shard holds runs: run v of the tracks with K chunks has one chunk of each of those tracks. Pass v over the data reads run v mod K and
nothing else, so a pass takes exactly one window from every track, reads about one chunk for it, and reads it in sequence. Runs are found
by the byte offsets in the manifest; each file is also an ordinary TFRecord file. Validation and test tracks lie whole (K = 1).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmusic.config import InputError, Layout, Settings
from tfmusic.labels import Vocabulary

MANIFEST = "manifest.json"
RECORD_FRAME_BYTES = 16  # a TFRecord frames each record with its length and two checksums
FORMAT = 1  # of records and manifest together; another number is another layout


class Runs(Settings):
    """Where one shard keeps the tracks of `parts` chunks: `parts` runs of `tracks` records each."""

    parts: int
    tracks: int
    offsets: tuple[int, ...]  # bytes; run v begins at offsets[v]


class Shard(Settings):
    """One TFRecord file."""

    split: str
    file: str
    bytes: int
    sha256: str
    runs: tuple[Runs, ...]


class Split(Settings):
    """Counts of one split, from what was really written."""

    tracks: int
    seconds: float
    unlabelled: int  # tracks without any label
    label_counts: tuple[int, ...]  # in the vocabulary's order


class Manifest(Settings):
    """What a folder of shards holds; written last, so its presence says that the build is complete."""

    format: int
    code_version: str
    dataset: str
    layout: Layout
    labels: tuple[str, ...]
    vocabulary_sha1: str
    targets: tuple[str, ...]
    splits: dict[str, Split]
    shards: tuple[Shard, ...]
    quarantined: int

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.labels)

    @property
    def sha1(self) -> str:
        """Fingerprint of everything in it, the shards' hashes included: of the records themselves."""
        return hashlib.sha1(self.model_dump_json().encode()).hexdigest()

    def split(self, name: str) -> Split:
        """Counts of one split.

        Raises:
            InputError: the records have no track in it.
        """
        if name not in self.splits or not self.splits[name].tracks:
            raise InputError(f"the records have no tracks in the split {name!r}, got {', '.join(self.splits)}")
        return self.splits[name]


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a records directory, checked against the shards' presence and sizes.

    Raises:
        InputError: it is missing, of another format, altered, or a shard is missing or of another size.
    """
    path = directory / MANIFEST
    rebuild = f"build it with: python -m records build --dataset csv --csv FILE --audio DIR --out {directory}"
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{directory} has no {MANIFEST}, so it holds no finished records; {rebuild}") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path} must be a manifest of format {FORMAT}: {str(error).splitlines()[0]}; {rebuild}") from error
    if manifest.format != FORMAT:
        raise InputError(f"{path}: format must be {FORMAT}, got {manifest.format}; {rebuild}")
    if manifest.vocabulary.sha1 != manifest.vocabulary_sha1:
        raise InputError(f"{path}: labels must match vocabulary_sha1 {manifest.vocabulary_sha1}, got {manifest.vocabulary.sha1}; {rebuild}")
    for shard in manifest.shards:
        found = directory / shard.file
        size = found.stat().st_size if found.is_file() else None
        if size != shard.bytes:
            raise InputError(f"{found} must have {shard.bytes} bytes, got {size if size is not None else 'no such file'}; {rebuild}")
    return manifest


def chunk_bounds(samples: int, layout: Layout) -> list[tuple[int, int]]:
    """First sample and end of each chunk of a training track (see the module's text).

    Args:
        samples: length of the track `int > 0`.
        layout: chunk and stride.

    Returns:
        `K >= 1` pairs; a track of up to one chunk is a single one.
    """
    window = layout.widest_window_samples
    starts = samples - window + 1  # start positions of the widest window
    parts = max(1, -(-starts // layout.stride_samples))
    if parts == 1:
        return [(0, samples)]
    return [(k * starts // parts, (k + 1) * starts // parts - 1 + window) for k in range(parts)]


def rotation(track_id: str) -> int:
    """Which chunk of a track the first pass takes, modulo its number of chunks: another one for every track, so that no pass hears only intros."""
    return int.from_bytes(hashlib.sha1(track_id.encode()).digest()[:4], "big")


def encode(
    track_id: str, group: str, chunk: np.ndarray, *, start: int, part: int, parts: int, samples: int, labels: np.ndarray, targets: np.ndarray
) -> bytes:
    """One chunk as a serialised tf.train.Example.

    Args:
        track_id: unique name of the track.
        group: artist or source; never in two splits.
        chunk: int16 mono audio `[shape=(n,)]`.
        start: the chunk's first sample in the track `0 <= int`.
        part: the chunk's number `0 <= int < parts`.
        parts: chunks of the track `int > 0`.
        samples: length of the track.
        labels: 0/1 `[shape=(labels,)]`.
        targets: regression targets, nan where unknown `[shape=(targets,)]`.

    Returns:
        The record; `parse` is its inverse.
    """

    def integers(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def strings(*values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    features = {
        "id": strings(track_id.encode()),
        "group": strings(group.encode()),
        "audio": strings(chunk.astype("<i2", copy=False).tobytes()),
        "position": integers([start, part, parts, samples]),
        "labels": integers(labels),
        "targets": tf.train.Feature(float_list=tf.train.FloatList(value=targets)),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def parse(record: tf.Tensor, labels: int, targets: int) -> dict[str, tf.Tensor]:
    """Inverse of `encode`, in a graph, for one record or a batch; the audio stays bytes until the window is cut (`decode_window`).

    Args:
        record: serialised records, strings `[shape=(...)]`.
        labels: size of the vocabulary.
        targets: number of regression targets.

    Returns:
        id, group, audio (strings), start, part, parts, samples (int64), each `[shape=(...)]`; labels (int64 `[shape=(..., labels)]`),
        targets (float32 `[shape=(..., targets)]`).
    """
    example = tf.io.parse_example(
        record,
        {
            "id": tf.io.FixedLenFeature([], tf.string),
            "group": tf.io.FixedLenFeature([], tf.string),
            "audio": tf.io.FixedLenFeature([], tf.string),
            "position": tf.io.FixedLenFeature([4], tf.int64),
            "labels": tf.io.FixedLenFeature([labels], tf.int64),
            "targets": tf.io.FixedLenFeature([targets], tf.float32),
        },
    )
    start, part, parts, samples = tf.unstack(example.pop("position"), axis=-1)
    return {**example, "start": start, "part": part, "parts": parts, "samples": samples}


def decode_window(audio: tf.Tensor, first: tf.Tensor, samples: int, short: str) -> tf.Tensor:
    """Cuts a window out of each record's audio bytes, without decoding the rest.

    Args:
        audio: int16 little-endian bytes, strings `[shape=(...)]`.
        first: first sample of the window in the chunk, integers `[shape=(...)]`.
        samples: length of the window `int > 0`.
        short: "pad" with zeros at the end or "tile" when fewer samples are there.

    Returns:
        int16 `[shape=(..., samples)]`.
    """
    first = tf.convert_to_tensor(first)
    piece = tf.strings.substr(audio, 2 * tf.cast(first, tf.int32), tf.fill(tf.shape(first), 2 * samples))
    window = tf.io.decode_raw(piece, tf.int16, fixed_length=2 * samples)  # zeros behind a shorter one
    if short == "tile":
        length = tf.strings.length(piece)[..., None] // 2  # (..., 1)
        repeated = tf.range(samples) % tf.maximum(length, 1)  # (..., samples)
        window = tf.cond(tf.reduce_any(length < samples), lambda: tf.gather(window, repeated, batch_dims=first.shape.rank), lambda: window)
    return tf.ensure_shape(window, [*first.shape, samples])
