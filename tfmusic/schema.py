"""The record: how a track is cut into chunks, encoded and parsed, and the manifest that makes a folder of shards a data set.

A training track lies as overlapping chunks, so that a random window reads a little more than itself and not the whole track, and yet every
start position stays reachable. With L samples in the track, the widest window W = chunk - stride and stride S, there are
K = ceil((L - W + 1) / S) chunks, and chunk k owns the starts k (L - w + 1) / K .. (k + 1) (L - w + 1) / K of ANY window w <= W: equal
shares, so that one chunk drawn at random and one start drawn in its share is one start drawn uniformly from the track.

A shard holds runs: run v of the tracks with K chunks has one chunk of each of those tracks. Pass v over the data reads run v mod K and
nothing else, so a pass takes exactly one window from every track and reads about one chunk for it: in sequence where tracks are equally long,
chunk by chunk where every song has a K of its own. Runs are found by the byte offsets in the manifest; each file is also an ordinary TFRecord
file. Validation and test tracks, and sequences of features, lie whole (K = 1).

A record's payload is int16 samples (pcm16), the same as a FLAC stream (flac), or a matrix of feature vectors (features). FLAC is decoded by
tensorflow-io's operator where that loads (TensorFlow 2.16 and 2.17), else by libsndfile; both give the same samples.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmusic import audio
from tfmusic.config import InputError, Layout, Settings
from tfmusic.files import RemotePath
from tfmusic.labels import Vocabulary

MANIFEST = "manifest.json"
RECORD_FRAME_BYTES = 16  # a TFRecord frames each record with its length and two checksums
READ_BUFFER_BYTES = 256 * 1024  # more costs copies and page faults; none is a little faster on a warm local disk only
FORMAT = 2  # of records and manifest together; another number is another layout


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
    samples: int  # of audio, each track counted once
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
    feature_dims: int = 0  # length of a feature vector; 0: the records hold audio
    merges: dict[str, str] = {}  # old label -> new one, as asked for
    counts_before: dict[str, int] = {}  # clips with each label of the dataset before merging and choosing
    counts_after: dict[str, int] = {}  # the same afterwards, before --subset
    families: dict[str, tuple[str, ...]] = {}  # label -> its families, alphabetical; labels without one are not there

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.labels)

    def hours(self, split: str) -> float:
        """Length of a split's audio."""
        return self.splits[split].samples / self.layout.sample_rate_hz / 3600

    @property
    def label_counts(self) -> dict[str, int]:
        """Tracks with each label over all splits, most frequent first."""
        totals = {label: sum(split.label_counts[i] for split in self.splits.values()) for i, label in enumerate(self.labels)}
        return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))

    @property
    def sha1(self) -> str:
        """Fingerprint of everything in it, the shards' hashes included: of the records themselves.

        Records without families have the one that they had before there were any, so that runs on them still know them.
        """
        return hashlib.sha1(self.model_dump_json(exclude=None if self.families else {"families"}).encode()).hexdigest()

    def split(self, name: str) -> Split:
        """Counts of one split.

        Raises:
            InputError: the records have no track in it.
        """
        if name not in self.splits or not self.splits[name].tracks:
            raise InputError(f"the records have no tracks in the split {name!r}, got {', '.join(self.splits)}")
        return self.splits[name]


def read_manifest(directory: Path | RemotePath, sizes: bool = True) -> Manifest:
    """The manifest of a records directory, checked against the shards' presence and sizes.

    Args:
        directory: of the records.
        sizes: whether the shards are looked at.

    Raises:
        InputError: it is missing, of another format, altered, or a shard is missing or of another size.
    """
    path = directory / MANIFEST
    rebuild = f"build it with: python -m records build --dataset NAME --audio DIR --out {directory}"
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{directory} has no {MANIFEST}, so it holds no finished records; {rebuild}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} must be a manifest of format {FORMAT}: {str(error).splitlines()[0]}; {rebuild}") from error
    if manifest.format != FORMAT:
        raise InputError(f"{path}: format must be {FORMAT}, got {manifest.format}; {rebuild}")
    if manifest.vocabulary.sha1 != manifest.vocabulary_sha1:
        raise InputError(f"{path}: labels must match vocabulary_sha1 {manifest.vocabulary_sha1}, got {manifest.vocabulary.sha1}; {rebuild}")
    complaint = next(filter(None, (wrong_size(directory, shard) for shard in manifest.shards)), "") if sizes else ""
    if complaint:
        raise InputError(f"{complaint}; {rebuild}")
    return manifest


def wrong_size(directory: Path | RemotePath, shard: Shard) -> str:
    """What is wrong with a shard's size; nothing: an empty text."""
    found = directory / shard.file
    try:
        size = found.stat().st_size
    except OSError:
        return f"{found} must have {shard.bytes} bytes, got no such file"
    return "" if size == shard.bytes else f"{found} must have {shard.bytes} bytes, got {size}"


def sha256_of(path: Path | RemotePath) -> str:
    """Hash of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def bounds(samples: int, layout: Layout, split: str) -> list[tuple[int, int]]:
    """`chunk_bounds` of what lies in chunks, one stretch for what lies whole."""
    return chunk_bounds(samples, layout) if split == "train" and layout.payload != "features" else [(0, samples)]


def encode(
    payload: bytes,
    *,
    track_id: str,
    group: str,
    split: str,
    source_sha1: bytes,
    origin: int,
    start: int,
    part: int,
    parts: int,
    samples: int,
    labels: np.ndarray,
    targets: np.ndarray,
) -> bytes:
    """One chunk as a serialised tf.train.Example.

    Args:
        payload: int16 little-endian samples, a FLAC stream, or the bytes of a feature matrix.
        track_id: unique name of the track.
        group: artist or source; never in two splits.
        split: the split it lies in.
        source_sha1: of the bytes of the audio file it came from `20 bytes`.
        origin: the track's first sample in that file, at the records' rate `0 <= int`.
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

    def string(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "id": string(track_id.encode()),
        "group": string(group.encode()),
        "split": string(split.encode()),
        "source_sha1": string(source_sha1),
        "payload": string(payload),
        "position": integers([start, part, parts, samples, origin]),
        "labels": integers(labels),
        "targets": tf.train.Feature(float_list=tf.train.FloatList(value=targets)),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


STRINGS = ("id", "group", "split", "source_sha1", "payload")


def parse(record: tf.Tensor, labels: int, targets: int, strings: Collection[str] = STRINGS) -> dict[str, tf.Tensor]:
    """Inverse of `encode`, in a graph, for one record or a batch; the payload stays bytes until the window is cut (`decode_window`).

    Args:
        record: serialised records, strings `[shape=(...)]`.
        labels: size of the vocabulary.
        targets: number of regression targets.
        strings: which of `STRINGS` are wanted; each costs time.

    Returns:
        The strings, start, part, parts, samples, origin (int64), each `[shape=(...)]`; labels (int64 `[shape=(..., labels)]`),
        targets (float32 `[shape=(..., targets)]`).
    """
    example = tf.io.parse_example(
        record,
        {
            **{name: tf.io.FixedLenFeature([], tf.string) for name in strings},
            "position": tf.io.FixedLenFeature([5], tf.int64),
            "labels": tf.io.FixedLenFeature([labels], tf.int64),
            "targets": tf.io.FixedLenFeature([targets], tf.float32),
        },
    )
    start, part, parts, samples, origin = tf.unstack(example.pop("position"), axis=-1)
    return {**example, "start": start, "part": part, "parts": parts, "samples": samples, "origin": origin}


def records_at(file: tf.Tensor, offset: tf.Tensor) -> tf.data.Dataset:
    """A TFRecord file from a byte offset on. Only the raw op takes an offset; it must stand inside a dataset function, since TensorFlow
    (2.17 to 2.21) forgets the offset when it serialises the op at the top of a pipeline."""
    variant = tf.raw_ops.TFRecordDatasetV2(filenames=[file], compression_type="", buffer_size=READ_BUFFER_BYTES, byte_offsets=[offset])
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def pack(chunk: np.ndarray, layout: Layout) -> bytes:
    """Payload of int16 audio `[shape=(samples,)]`; `unpack` is its inverse."""
    return audio.encode_flac(chunk, layout.sample_rate_hz) if layout.payload == "flac" else chunk.astype("<i2", copy=False).tobytes()


def unpack(payload: bytes, layout: Layout, feature_dims: int = 0) -> np.ndarray:
    """A payload's int16 samples `[shape=(samples,)]` or feature vectors `[shape=(frames, feature_dims)]`."""
    if layout.payload == "features":
        return np.frombuffer(payload, np.dtype(layout.features.dtype).newbyteorder("<")).reshape(-1, feature_dims)
    return audio.decode_flac(payload) if layout.payload == "flac" else np.frombuffer(payload, "<i2")


def decode_window(payload: tf.Tensor, first: tf.Tensor, samples: int, short: str, kind: str = "pcm16") -> tf.Tensor:
    """Cuts a window out of each record's audio, without decoding what lies behind it.

    Args:
        payload: of records, strings `[shape=(...)]`; of kind flac `[shape=(n,)]`.
        first: first sample of the window in the chunk, integers of the same shape.
        samples: length of the window `int > 0`.
        short: "pad" with zeros at the end or "tile" when fewer samples are there.
        kind: "pcm16" or "flac".

    Returns:
        int16 `[shape=(..., samples)]`.
    """
    first = tf.cast(first, tf.int32)
    window, length = (flac_window() if kind == "flac" else _pcm_window)(payload, first, samples)
    if short == "tile":
        repeated = tf.range(samples) % tf.maximum(length, 1)[..., None]  # (..., samples)
        window = tf.cond(tf.reduce_any(length < samples), lambda: tf.gather(window, repeated, batch_dims=first.shape.rank), lambda: window)
    return tf.ensure_shape(window, [*first.shape, samples])


Window = tuple[tf.Tensor, tf.Tensor]  # int16 (..., samples), zeros behind a shorter one, and how many samples were there (...)


def _pcm_window(payload: tf.Tensor, first: tf.Tensor, samples: int) -> Window:
    piece = tf.strings.substr(payload, 2 * first, tf.fill(tf.shape(first), 2 * samples))
    return tf.io.decode_raw(piece, tf.int16, fixed_length=2 * samples), tf.strings.length(piece) // 2


@functools.cache
def flac_window() -> Callable[[tf.Tensor, tf.Tensor, int], Window]:
    """tensorflow-io's decoder where its operators load, else libsndfile's."""
    if importlib.util.find_spec("tensorflow_io"):
        # Beside another TensorFlow its import warns and a call fails; init_scope: the call runs, though a dataset's function may be traced just now.
        broken = contextlib.suppress(ImportError, NotImplementedError, AttributeError, tf.errors.OpError)
        with warnings.catch_warnings(action="ignore"), broken, tf.init_scope():
            import tensorflow_io

            tensorflow_io.audio.decode_flac(tf.constant(audio.encode_flac(np.zeros(4096, np.int16), 8000)), dtype=tf.int16)
            return _flac_window_tensorflow_io
    return _flac_window_soundfile


def _flac_window_tensorflow_io(payload: tf.Tensor, first: tf.Tensor, samples: int) -> Window:
    import tensorflow_io

    def one(item):
        stream, begin = item
        piece = tensorflow_io.audio.decode_flac(stream, dtype=tf.int16)[begin : begin + samples, 0]
        length = tf.shape(piece)[0]
        return tf.pad(piece, [[0, samples - length]]), length

    return tf.map_fn(one, (payload, first), fn_output_signature=(tf.TensorSpec([samples], tf.int16), tf.TensorSpec([], tf.int32)))


def _flac_window_soundfile(payload: tf.Tensor, first: tf.Tensor, samples: int) -> Window:
    def several(streams, begins):
        windows, lengths = np.zeros((len(streams), samples), np.int16), np.zeros(len(streams), np.int32)
        for row, (stream, begin) in enumerate(zip(streams, begins, strict=True)):
            piece = audio.decode_flac(stream, begin, samples)
            lengths[row] = len(piece)
            windows[row, : len(piece)] = piece
        return windows, lengths

    windows, lengths = tf.numpy_function(several, [payload, first], [tf.int16, tf.int32], stateful=False)
    return tf.ensure_shape(windows, [None, samples]), tf.ensure_shape(lengths, [None])


@contextlib.contextmanager
def damage_named(directory: Path | RemotePath) -> Iterator[None]:
    """A checksum that fails while records are read becomes a line that says where to look.

    Raises:
        InputError: a shard is damaged.
    """
    try:
        yield
    except tf.errors.OpError as error:  # DataLossError of a shard; of a FLAC stream whatever its decoder raises
        if not isinstance(error, tf.errors.DataLossError) and "flac" not in str(error).lower():
            raise
        raise InputError(f"{directory} has a damaged shard; which one says: python -m records check {directory}") from error
