"""The training stream and the reading of whole tracks.

Order, crops and augmentation are pure functions of (seed, epoch, index): the same epoch comes back whatever the parallelism, each epoch
differs, and a run resumed at epoch e sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmusic import augment, noises, schema
from tfmusic.catalogue import Catalogue, Track
from tfmusic.config import Experiment, InputError
from tfmusic.files import RemotePath
from tfmusic.frontend import LogMel
from tfmusic.parts import WHOLE, Part
from tfmusic.waveform import augment_waveforms, samples_read

PARSED_TOGETHER = 16  # records; one call for each costs more than the parsing
CROP, SHUFFLE, MASK, MIX, CHUNK, WAVEFORM, BACKGROUND = range(7)  # streams of random numbers, apart for equal seeds and indices
STREAMS = 8
BUCKET_FRAMES = [round(16 * 2 ** (step / 2)) for step in range(21)]  # bounds of the buckets of sequences, 16 to 16,384


Features = tf.Tensor | dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Sequence:
    """A whole track of records that hold features."""

    id: str
    group: str
    features: np.ndarray  # (frames, dims)
    labels: np.ndarray  # 0/1 (labels,)
    targets: np.ndarray  # float32 (targets,)


def steps_per_epoch(manifest: schema.Manifest, experiment: Experiment) -> int:
    """Full batches of windows in one epoch, a multiple of fit.steps_per_execution.

    Raises:
        InputError: the training split cannot fill one batch, or one execution.
    """
    clips = manifest.split("train").tracks * experiment.data.crops_per_clip
    steps = clips // experiment.fit.batch_size
    if not steps:
        raise InputError(f"--fit.batch-size must be at most the {clips} windows of an epoch, got {experiment.fit.batch_size}")
    together = experiment.fit.steps_per_execution
    if together > steps:
        raise InputError(f"--fit.steps-per-execution must be at most the {steps} steps of an epoch, got {together}")
    return steps - steps % together  # Keras would take what is missing of the last execution from the next epoch


def target_columns(manifest: schema.Manifest, experiment: Experiment) -> list[int]:
    """Which of the records' targets an experiment learns.

    Raises:
        InputError: the records have none, or not those.
    """
    wanted = experiment.targets or manifest.targets
    if not wanted or not {*wanted} <= {*manifest.targets}:
        missing = [name for name in wanted if name not in manifest.targets]
        raise InputError(
            f"the records must have the targets that {experiment.task} learns, {', '.join(missing) or 'one at least'}, got "
            f"{', '.join(manifest.targets) or 'none'}; build them with --targets NAME..."
        )
    return [manifest.targets.index(name) for name in wanted]


def check_records(manifest: schema.Manifest, experiment: Experiment) -> None:
    """Refuses records that the experiment's windows cannot be cut from, or whose features it does not read, with the build line that mends it.

    Raises:
        InputError: features instead of audio or others than asked for, another sample rate, or a window wider than chunk minus stride.
    """
    layout, frontend = manifest.layout, experiment.frontend
    if layout.sample_rate_hz != frontend.sample_rate_hz:
        raise InputError(
            f"the records have {layout.sample_rate_hz} Hz, the experiment wants {frontend.sample_rate_hz} Hz; "
            f"build them with --sample-rate-hz {frontend.sample_rate_hz}, or set --frontend.sample-rate-hz {layout.sample_rate_hz}"
        )
    if experiment.sequences:
        wanted = experiment.sequences.model_dump(exclude={"dtype"})
        found = layout.features.model_dump(exclude={"dtype"}) if layout.payload == "features" else {}
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if differing:
            flags = " ".join(f"--features.{name.replace('_', '-')} {value}" for name, value in wanted.items() if value is not None)
            raise InputError(
                f"the records must hold features ({differing[0]} {wanted[differing[0]]}), got "
                f"{found.get(differing[0], layout.payload)}; build them with --payload features {flags}"
            )
        return
    if layout.payload == "features":
        raise InputError(f"the records hold features ({layout.features.kind}), the experiment wants audio; build them with --payload pcm16")
    cut_samples = experiment.augment.waveform.cut_samples(frontend.window_samples)
    if layout.widest_window_samples < cut_samples:
        cut_s = cut_samples / frontend.sample_rate_hz
        stretched = f", {cut_s:g} s where augment.waveform.stretch plays them faster," if cut_samples > frontend.window_samples else ""
        raise InputError(
            f"windows of {frontend.window_s:g} s{stretched} need records whose chunk minus stride is as long, got {layout.chunk_s:g} - "
            f"{layout.stride_s:g} s; build them with --chunk-s {cut_s + layout.stride_s:g} --stride-s {layout.stride_s:g}"
        )


def train_batches(
    directory: Path | RemotePath,
    manifest: schema.Manifest,
    experiment: Experiment,
    first_epoch: int = 0,
    frontend: Callable[[tf.Tensor], Features] | None = None,
    catalogue: Catalogue | None = None,
    choose: Callable[[int], np.ndarray] | None = None,
    part: Part = WHOLE,
) -> tf.data.Dataset:
    """Stream of training batches, epoch after epoch, `steps_per_epoch` batches each.

    Args:
        directory: of the records.
        manifest: of the records.
        experiment: front end, augmentation, batch size, seed and number of epochs.
        first_epoch: where to begin `int >= 0`.
        frontend: waveforms in -1..1 `[shape=(batch, samples)]` to the features of the net; none: the experiment's log-mel.
        catalogue, choose: as in `chosen_batches`, for epochs of chosen tracks in their order; none: every track `crops_per_clip` times, shuffled.
        part: the rows to give out; with several devices a step is a batch for each, one after the other. Examples are mixed up within these.

    Returns:
        (features float32 `[shape=(batch, frames, mels)]`, or as the front end gives them, {"labels": float32 `[shape=(batch, labels)]`,
        "targets", where the records have any: float32, nan where unknown `[shape=(batch, targets)]`}), up to the last epoch's end.

    Raises:
        InputError: the records do not fit the experiment.
    """
    check_records(manifest, experiment)
    steps_per_epoch(manifest, experiment)  # refuses what cannot fill a batch
    fit = experiment.fit
    features_of = _features_of(experiment, frontend)

    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        seed = epoch_seed(experiment, epoch)

        def example_of(number, batch):
            waveforms, truth, index = batch
            return mixed(experiment, features_of(waveforms, seed, index), truth, seed, part.place(number))

        stream = raw_batches(directory, manifest, experiment, epoch, catalogue, choose, part).enumerate()
        return stream.map(example_of, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    return _epochs(epoch_of, fit.epochs, first_epoch)


def chosen_batches(
    manifest: schema.Manifest,
    experiment: Experiment,
    catalogue: Catalogue,
    choose: Callable[[int], np.ndarray],
    truth: np.ndarray | None,
    first_epoch: int = 0,
    frontend: Callable[[tf.Tensor], Features] | None = None,
) -> tf.data.Dataset:
    """Stream of training batches out of chosen tracks, a random window of each; otherwise as `train_batches`.

    Args:
        manifest: of the records.
        experiment: front end, SpecAugment, batch size, seed and number of epochs.
        catalogue: of the records.
        choose: number of an epoch to its rows of the catalogue, int64 `[shape=(steps, batch)]`.
        truth: what two windows must share to be alike: 0/1 for every row `[shape=(tracks, columns)]`, or the number of its group, -1 for none
            `[shape=(tracks,)]`; None: the clip, each of which comes twice in a row.
        first_epoch: where to begin `int >= 0`.
        frontend: as in `train_batches`.

    Returns:
        One dict a batch: "features" float32 `[shape=(batch, frames, mels)]`, "truth" float32 `[shape=(batch, columns)]`, "labels" float32
        `[shape=(batch, labels)]`.

    Raises:
        InputError: the records do not fit the experiment.
    """
    check_records(manifest, experiment)
    steps, fit = steps_per_epoch(manifest, experiment), experiment.fit
    features_of = _features_of(experiment, frontend)
    clips = tf.one_hot(tf.range(fit.batch_size) // 2, fit.batch_size // 2)
    columns, table = truth_columns(experiment, truth), None if truth is None else tf.constant(truth)

    def truth_of(rows):
        if table is None:
            return clips
        found = tf.gather(table, rows)
        return tf.one_hot(found, columns) if found.shape.rank == 1 else tf.cast(found, tf.float32)

    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        seed = epoch_seed(experiment, epoch)
        rows = _chosen(choose, epoch, steps, fit.batch_size)

        def example_of(rows, batch):
            waveforms, known, index = batch
            features = features_of(waveforms, seed, index)
            return {"features": features, "truth": truth_of(rows), "labels": known["labels"]}

        stream = chosen_windows(manifest, experiment, catalogue, tf.reshape(rows, [-1]), epoch).batch(fit.batch_size, drop_remainder=True)
        zipped = tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(rows), stream)
        return zipped.map(example_of, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    return _epochs(epoch_of, fit.epochs, first_epoch)


def _shuffled_windows(
    directory: Path | RemotePath, manifest: schema.Manifest, experiment: Experiment, epoch: tf.Tensor, named: bool = False, part: Part = WHOLE
) -> tf.data.Dataset:
    seed = epoch_seed(experiment, epoch)
    buffer, keys = experiment.data.shuffle_buffer, _seeds(seed, SHUFFLE, 0)
    if part.workers == 1:  # windows are smaller than records
        return _shuffle(windows(directory, manifest, experiment, epoch, named), buffer, keys)
    records = _shuffle(_visits(directory, manifest, experiment, epoch).enumerate(), buffer, keys)  # in the same order, which is blind to them
    return _crops(part.own(records, experiment.fit.batch_size), manifest, experiment, seed, named)


def clips_of(
    directory: Path | RemotePath,
    manifest: schema.Manifest,
    experiment: Experiment,
    epoch: int,
    steps: Collection[int],
    catalogue: Catalogue | None = None,
    choose: Callable[[int], np.ndarray] | None = None,
) -> list[str]:
    """The ids of the clips in some batches of an epoch, each once; the epoch is read again for them.

    Args:
        directory, manifest, experiment: as in `train_batches`.
        epoch: its number.
        steps: numbers of the batches in it.
        catalogue, choose: as in `train_batches` and `chosen_batches`.
    """
    wanted, number = [*steps], tf.constant(epoch, tf.int64)
    if choose is not None:
        found = [catalogue.ids[row] for row in choose(epoch)[wanted].ravel()]
    elif experiment.sequences:
        batches = sequence_batches(directory, manifest, experiment.fit.batch_size, experiment.fit.seed, number, experiment.data.shuffle_buffer, True)
        found = [name.decode() for step in wanted for (inputs, *_) in batches.skip(step).take(1) for name in inputs["id"].numpy()]
    else:
        ids = _shuffled_windows(directory, manifest, experiment, number, named=True).map(lambda window, truth, index: truth["id"])
        batches = ids.batch(experiment.fit.batch_size)
        found = [name.decode() for step in wanted for names in batches.skip(step).take(1) for name in names.numpy()]
    return [*dict.fromkeys(found)]


def _chosen(choose: Callable[[int], np.ndarray], epoch: tf.Tensor, steps: int, batch_size: int) -> tf.Tensor:
    """The rows of an epoch, in a graph."""
    return tf.ensure_shape(tf.numpy_function(lambda number: choose(int(number)), [epoch], tf.int64), (steps, batch_size))


def truth_columns(experiment: Experiment, truth: np.ndarray | None) -> int:
    """Width of a batch's truth in `chosen_batches`."""
    if truth is None:
        return experiment.fit.batch_size // 2
    return truth.shape[1] if truth.ndim == 2 else int(truth.max()) + 1


def raw_batches(
    directory: Path | RemotePath,
    manifest: schema.Manifest,
    experiment: Experiment,
    epoch: tf.Tensor,
    catalogue: Catalogue | None = None,
    choose: Callable[[int], np.ndarray] | None = None,
    part: Part = WHOLE,
) -> tf.data.Dataset:
    """The windows of one epoch in their batches, as they are cut: what `train_batches` begins with.

    Args:
        directory, manifest, experiment, catalogue, choose, part: as in `train_batches`.
        epoch: its number, an int64 scalar.

    Returns:
        `windows`, `steps_per_epoch` full batches of them for each device.
    """
    steps, batch_size = steps_per_epoch(manifest, experiment), experiment.fit.batch_size
    if choose is None:
        stream = _shuffled_windows(directory, manifest, experiment, epoch, part=part)
    else:
        rows = tf.reshape(_chosen(choose, epoch, steps, batch_size), [-1])
        stream = chosen_windows(manifest, experiment, catalogue, rows, epoch, part)
    return stream.batch(part.rows(batch_size), drop_remainder=True).take(steps * part.devices)


# --- what training examples go through, in this order; `preview` shows what each step does ---------------------------------------------------
def heard(experiment: Experiment, waveforms: tf.Tensor, seed: tf.Tensor, index: tf.Tensor, recorded: noises.Noises | None = None) -> tf.Tensor:
    """int16 windows as they are cut, their epoch's seed, their numbers in it and `noises.of` to the front end's input: in -1..1, waveform
    augmentation done."""
    settings, changes = experiment.frontend, experiment.augment.waveform
    waveforms = tf.cast(waveforms, tf.float32) / 32768.0
    if changes.probability > 0:
        keys = seeds_of_waveforms(seed, index)
        waveforms = augment_waveforms(waveforms, keys, changes, settings.window_samples, settings.sample_rate_hz, recorded)
    return waveforms


def seeds_of_waveforms(seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Of windows with these numbers in an epoch of this seed, for `waveform`, int64 `[shape=(batch, 2)]`."""
    return _seeds(seed, WAVEFORM, index)


def masked(experiment: Experiment, features: Features, seed: tf.Tensor, index: tf.Tensor) -> Features:
    """The front end's output with SpecAugment; a frozen net's vector has nothing to mask."""
    masks = experiment.augment.spec_augment
    if masks.probability == 0:
        return features
    if isinstance(features, dict):
        return {**features, "features": masked(experiment, features["features"], seed, index)}
    return augment.spec_augment(features, _seeds(seed, MASK, index), **masks.model_dump()) if features.shape.rank > 2 else features


def mixed(experiment: Experiment, features: Features, truth: dict[str, tf.Tensor], seed: tf.Tensor, step: tf.Tensor) -> tuple:
    """A batch's features and truth with mixup."""
    alpha = experiment.augment.mixup_alpha
    return augment.mixup(features, truth, _seeds(seed, MIX, step), alpha) if alpha > 0 else (features, truth)


def _features_of(experiment: Experiment, frontend: Callable[[tf.Tensor], Features] | None) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Features]:
    """int16 windows, an epoch's seed and their numbers in it to features of training examples."""
    frontend, recorded = frontend or LogMel(experiment.frontend), noises.of(experiment)
    return lambda waveforms, seed, index: masked(experiment, frontend(heard(experiment, waveforms, seed, index, recorded)), seed, index)


def epoch_seed(experiment: Experiment, epoch: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(experiment.fit.seed, tf.int64), epoch])


def _epochs(epoch_of: Callable[[tf.Tensor], tf.data.Dataset], epochs: int, first_epoch: int) -> tf.data.Dataset:
    return tf.data.Dataset.range(first_epoch, max(epochs, first_epoch)).flat_map(epoch_of).prefetch(tf.data.AUTOTUNE)


def windows(
    directory: Path | RemotePath, manifest: schema.Manifest, experiment: Experiment, epoch: tf.Tensor, named: bool = False
) -> tf.data.Dataset:
    """The windows of one epoch: `crops_per_clip` of every training track, each start position of a track equally likely, or all at its start.

    Args:
        directory: of the records.
        manifest: of the records.
        experiment: front end (window), seed, crops and crops per clip.
        epoch: number of the epoch, an int64 scalar.
        named: whether the truth has the clip's "id" as well.

    Returns:
        (window int16, longer where it may be played faster `[shape=(samples,)]`, {"labels": float32 `[shape=(labels,)]`, "targets": float32
        `[shape=(targets,)]`}, index int64 scalar: the window's number in the epoch).
    """
    return _crops(_visits(directory, manifest, experiment, epoch).enumerate(), manifest, experiment, epoch_seed(experiment, epoch), named)


def _visits(directory: Path | RemotePath, manifest: schema.Manifest, experiment: Experiment, epoch: tf.Tensor) -> tf.data.Dataset:
    """The records of one epoch."""
    crops = experiment.data.crops_per_clip
    seed = epoch_seed(experiment, epoch)
    visits = tf.data.Dataset.range(crops * epoch, crops * (epoch + 1))
    drawn = experiment.data.crop == "random"
    return visits.flat_map(lambda visit: _visit(directory, manifest, visit if drawn else 0 * visit, _seeds(seed, CROP, visit)))


def chosen_windows(
    manifest: schema.Manifest, experiment: Experiment, catalogue: Catalogue, rows: tf.Tensor, epoch: tf.Tensor, part: Part = WHOLE
) -> tf.data.Dataset:
    """A window of each of the chosen tracks, in their order, each start position of a track equally likely, or at its start; result as `windows`.

    Args:
        manifest: of the records.
        experiment: front end (window), seed.
        catalogue: of the records.
        rows: of the catalogue, int64 `[shape=(n,)]`.
        epoch: number of the epoch, an int64 scalar.
        part: those to give out, of batches of fit.batch_size.
    """
    seed = epoch_seed(experiment, epoch)
    files, file, offsets, first = (tf.constant(column) for column in (catalogue.files, catalogue.file, catalogue.offsets, catalogue.first))

    def record_of(index, row):
        chunks = first[row + 1] - first[row]
        share = tf.cast(augment.hashed_uniform(_seeds(seed, CHUNK, index[None]), 1)[0, 0], tf.float64)
        chunk = tf.cast(share * tf.cast(chunks, tf.float64), tf.int64) if experiment.data.crop == "random" else tf.constant(0, tf.int64)
        return index, schema.records_at(files[file[row]], offsets[first[row] + chunk]).take(1).get_single_element()

    indexed = part.own(tf.data.Dataset.from_tensor_slices(rows).enumerate(), experiment.fit.batch_size)
    records = indexed.map(record_of, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return _crops(records, manifest, experiment, seed)


def _crops(records: tf.data.Dataset, manifest: schema.Manifest, experiment: Experiment, seed: tf.Tensor, named: bool = False) -> tf.data.Dataset:
    """Cuts a window out of every numbered record, at a start in the share that its chunk has of the track.

    All windows are cut as long as the fastest one needs; what is read of it lies in the track, so every start stays as likely as any other.
    """
    frontend, changes = experiment.frontend, experiment.augment.waveform
    cut_samples = changes.cut_samples(frontend.window_samples)

    def crop(index, block):
        example = schema.parse(block, len(manifest.labels), len(manifest.targets), ("payload", "id") if named else ("payload",))
        needed = samples_read(seeds_of_waveforms(seed, index), changes, frontend.window_samples)
        starts = tf.maximum(example["samples"] - needed + 1, 1)
        low = example["part"] * starts // example["parts"]
        high = (example["part"] + 1) * starts // example["parts"]
        share = tf.cast(augment.hashed_uniform(_seeds(seed, CROP, index), 1)[:, 0], tf.float64)  # stateless_uniform takes one seed a call
        share *= float(experiment.data.crop == "random")
        first = low + tf.cast(share * tf.cast(high - low, tf.float64), tf.int64) - example["start"]
        window = schema.decode_window(example["payload"], first, cut_samples, frontend.short, manifest.layout.payload)
        # Only where there are any: unbatching vectors of length 0 is a segmentation fault in TensorFlow 2.21.
        known = {"targets": example["targets"]} if manifest.targets else {}
        known |= {"id": example["id"]} if named else {}
        return window, {"labels": tf.cast(example["labels"], tf.float32), **known}, index

    return records.batch(PARSED_TOGETHER).map(crop, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).unbatch()


def _shuffle(dataset: tf.data.Dataset, buffer_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Dataset.shuffle with both halves of its seed given; the method would mix the process' global seed in."""
    specs = tf.nest.flatten(dataset.element_spec)
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=buffer_size,
        seed=seed[0],
        seed2=seed[1],
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def _visit(directory: Path | RemotePath, manifest: schema.Manifest, visit: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
    """One chunk of every training track: the runs `visit mod parts` of all shards, in shuffled order, read several at a time."""
    rows = [(shard.file, runs) for shard in manifest.shards if shard.split == "train" for runs in shard.runs]
    files = tf.constant([str(directory / file) for file, _ in rows])
    parts = tf.constant([runs.parts for _, runs in rows], tf.int64)
    tracks = tf.constant([runs.tracks for _, runs in rows], tf.int64)
    offsets = tf.constant([offset for _, runs in rows for offset in runs.offsets], tf.int64)
    first = tf.cumsum(parts, exclusive=True)

    def run_of(row):
        return schema.records_at(files[row], offsets[first[row] + visit % parts[row]]).take(tracks[row])

    order = tf.random.experimental.stateless_shuffle(tf.range(len(rows)), seed)
    return tf.data.Dataset.from_tensor_slices(order).interleave(
        run_of, cycle_length=min(16, len(rows)), num_parallel_calls=min(4, len(rows)), deterministic=True
    )


def _seeds(seed: tf.Tensor, stream: int, index: tf.Tensor) -> tf.Tensor:
    """Seeds of one stream: int64 `[shape=(2,)]`, or `[shape=(n, 2)]` for indices `[shape=(n,)]`."""
    key = seed[0] * 1_000_003 + seed[1]  # one number per (seed, epoch)
    index = tf.convert_to_tensor(index, tf.int64)
    return tf.stack([tf.broadcast_to(key, tf.shape(index)), index * STREAMS + stream], axis=-1)


def tracks(directory: Path | RemotePath, manifest: schema.Manifest, split: str) -> Iterator[Track]:
    """Whole tracks of the validation or test split, in the records' order.

    Raises:
        InputError: the split is empty, or is the training split, whose tracks lie in chunks, or the records hold features.
    """
    if split == "train":
        raise InputError("whole tracks are in the splits valid and test, got 'train'")
    if manifest.layout.payload == "features":
        raise InputError(f"{directory} holds features ({manifest.layout.features.kind}), not audio")
    for example, waveform in _whole(directory, manifest, split):
        yield Track(example["id"].decode(), example["group"].decode(), waveform, example["labels"], example["targets"])


def sequences(directory: Path | RemotePath, manifest: schema.Manifest, split: str) -> Iterator[Sequence]:
    """Feature sequences of a split's tracks, in the records' order.

    Raises:
        InputError: the split is empty, or the records hold audio.
    """
    _check_features(directory, manifest)
    for example, features in _whole(directory, manifest, split):
        yield Sequence(example["id"].decode(), example["group"].decode(), features, example["labels"], example["targets"])


def sequence_batches(
    directory: Path | RemotePath,
    manifest: schema.Manifest,
    batch_size: int,
    seed: int,
    epoch: tf.Tensor | int,
    shuffle_buffer: int = 1024,
    named: bool = False,
) -> tf.data.Dataset:
    """One epoch of training batches of feature sequences: every track once, sequences of about the same length together.

    Tracks are shuffled, then dealt into buckets whose bounds grow by a factor of sqrt(2); a bucket that has a batch gives it out, and what is
    left comes at the end in smaller batches, so the number of batches is the same in every epoch.

    Args:
        directory: of the records, whose payload is features.
        manifest: of the records.
        batch_size: sequences in a full batch `int > 0`.
        seed: of the order.
        epoch: number of the epoch, an int64 scalar.
        shuffle_buffer: sequences shuffled together.
        named: whether the inputs have the clip's "id" as well.

    Returns:
        ({"features": float32 `[shape=(batch, frames, dims)]` padded with 0 at the end, "mask": bool `[shape=(batch, frames)]`, False there},
        labels float32 `[shape=(batch, labels)]`, targets float32 `[shape=(batch, targets)]`).

    Raises:
        InputError: there is no training track, or the records hold audio.
    """
    _check_features(directory, manifest)
    manifest.split("train")
    dims, dtype = manifest.feature_dims, tf.as_dtype(manifest.layout.features.dtype)
    seed = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])

    def parsed(record):
        example = schema.parse(record, len(manifest.labels), len(manifest.targets), ("payload", "id") if named else ("payload",))
        features = tf.reshape(tf.cast(tf.io.decode_raw(example["payload"], dtype), tf.float32), [-1, dims])
        mask = tf.ones(tf.shape(features)[:1], tf.bool)
        inputs = {"features": features, "mask": mask} | ({"id": example["id"]} if named else {})
        return inputs, tf.cast(example["labels"], tf.float32), example["targets"]

    records = _shuffle(_visit(directory, manifest, tf.constant(0, tf.int64), _seeds(seed, CROP, 0)), shuffle_buffer, _seeds(seed, SHUFFLE, 0))
    batches = records.map(parsed, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).bucket_by_sequence_length(
        lambda inputs, *_: tf.shape(inputs["mask"])[0], BUCKET_FRAMES, [batch_size] * (len(BUCKET_FRAMES) + 1)
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def sequence_epochs(directory: Path | RemotePath, manifest: schema.Manifest, experiment: Experiment, first_epoch: int = 0) -> tf.data.Dataset:
    """Stream of training batches of feature sequences, epoch after epoch; arguments as of `train_batches`.

    Returns:
        (features float32, padded with 0 at the end `[shape=(batch, frames, dims)]`, {"labels", "targets"} as `train_batches`).
    """
    settings = experiment.fit

    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        return sequence_batches(directory, manifest, settings.batch_size, settings.seed, epoch, experiment.data.shuffle_buffer).map(
            lambda inputs, labels, targets: (inputs["features"], {"labels": labels, "targets": targets})
        )

    return _epochs(epoch_of, settings.epochs, first_epoch)


def sequence_steps(directory: Path | RemotePath, manifest: schema.Manifest, batch_size: int) -> int:
    """Batches in one epoch of `sequence_epochs`, the same in every one; they are counted by reading them."""
    with schema.damage_named(directory):
        return sum(1 for _ in sequence_batches(directory, manifest, batch_size, 0, 0))


def stored_records(directory: Path | RemotePath, manifest: schema.Manifest, seed: int = 0) -> tf.data.Dataset:
    """The records of the first visit to the training tracks as they lie there, serialised: what a stream reads, and does nothing with."""
    return _visit(directory, manifest, tf.constant(0, tf.int64), _seeds(tf.constant([seed, 0], tf.int64), CROP, 0))


def label_order(directory: Path | RemotePath, manifest: schema.Manifest, seed: int = 0) -> Iterator[np.ndarray]:
    """Labels 0/1 int8 `[shape=(labels,)]` of the training tracks in the order in which the first epoch reads them, before its shuffle buffer."""
    records = stored_records(directory, manifest, seed).batch(PARSED_TOGETHER)
    parsed = records.map(lambda block: schema.parse(block, len(manifest.labels), len(manifest.targets), ())["labels"]).map(
        lambda labels: tf.cast(labels, tf.int8)
    )
    with schema.damage_named(directory):
        yield from parsed.unbatch().as_numpy_iterator()


def _whole(directory: Path | RemotePath, manifest: schema.Manifest, split: str) -> Iterator[tuple[dict, np.ndarray]]:
    """Parsed record and payload of a split's tracks."""
    manifest.split(split)
    rows = [(str(directory / shard.file), runs.offsets[0], runs.tracks) for shard in manifest.shards if shard.split == split for runs in shard.runs]
    files, offsets, counts = zip(*rows, strict=True)
    records = tf.data.Dataset.from_tensor_slices(([*files], np.array(offsets, np.int64), np.array(counts, np.int64))).flat_map(
        lambda file, offset, count: schema.records_at(file, offset).take(count)
    )
    parsed = records.map(
        lambda record: schema.parse(record, len(manifest.labels), len(manifest.targets), ("id", "group", "payload")), num_parallel_calls=2
    )
    with schema.damage_named(directory):
        for example in parsed.prefetch(8).as_numpy_iterator():
            yield example, schema.unpack(example["payload"], manifest.layout, manifest.feature_dims)


def _check_features(directory: Path | RemotePath, manifest: schema.Manifest) -> None:
    if manifest.layout.payload != "features":
        raise InputError(f"{directory} must hold features, got audio ({manifest.layout.payload}); build it with --payload features")
