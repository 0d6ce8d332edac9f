"""The training stream: what an epoch holds, that it is a function of the seed, and that every start position is equally likely."""

import shutil

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from scipy import stats

from records import inspect
from records.build import build
from records.datasets.clip import Source
from tests.conftest import EXPERIMENT, LAYOUT, RATE_HZ, write_csv
from tests.test_inspect import rewritten
from tfmusic import data, schema
from tfmusic.config import Augment, InputError, SpecAugment

LENGTHS = [900, 4001, 6401, 9000, 20_000]  # samples; windows have 4000, chunks up to 6400 every 2400
AUGMENTED = EXPERIMENT.model_copy(update={"augment": Augment(spec_augment=SpecAugment(probability=1.0, time_frames=5, mel_bands=3), mixup_alpha=0.4)})


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """Tracks whose every sample tells where it stands: one ramp runs through all of them."""
    directory = tmp_path_factory.mktemp("ramps")
    ramp = np.arange(-32_768, -32_768 + sum(LENGTHS)).astype(np.int16)
    ends = np.cumsum(LENGTHS)
    for number, (end, length) in enumerate(zip(ends, LENGTHS, strict=True)):
        soundfile.write(directory / f"{number}.wav", ramp[end - length : end], RATE_HZ, subtype="PCM_16")
    rows = [{"path": f"{number}.wav", "split": "train", "tags": f"t{number}"} for number in range(len(LENGTHS))]
    source = Source(dataset="csv", csv=write_csv(directory / "list.csv", rows), audio=directory)
    build(source, directory / "records", LAYOUT)
    return directory / "records", schema.read_manifest(directory / "records")


def take(dataset, threads=None):
    options = tf.data.Options()
    if threads:
        options.threading.private_threadpool_size = threads
    return list(dataset.with_options(options).as_numpy_iterator())


def epochs_of(ramps, first, last, experiment=EXPERIMENT):
    """(track, start) of every window of these epochs; checks that each window is one consecutive piece of its track."""
    begin = np.cumsum([0, *LENGTHS[:-1]]) - 32_768
    stream = tf.data.Dataset.range(first, last).flat_map(lambda epoch: data.windows(*ramps, experiment, epoch))
    found = []
    for window, truth, _ in take(stream):
        track = int(truth["labels"].argmax())
        assert truth["labels"].sum() == 1
        kept = min(LENGTHS[track], len(window))
        np.testing.assert_array_equal(window[:kept], np.arange(window[0], window[0] + kept))
        np.testing.assert_array_equal(window[kept:], 0)
        found.append((track, int(window[0] - begin[track])))
    return found


def test_an_epoch_takes_the_asked_number_of_windows_from_every_track_whatever_its_chunks(ramps):
    parts = [len(schema.chunk_bounds(length, LAYOUT)) for length in LENGTHS]
    assert parts == [1, 1, 2, 3, 7]  # ceil((20,000 - 4,000 + 1) / 2,400) = 7
    for epoch in range(3):
        tracks = [track for track, _ in epochs_of(ramps, epoch, epoch + 1)]
        np.testing.assert_array_equal(np.bincount(tracks), [2] * 5)


def test_start_positions_are_uniform(ramps):
    """Chi-square over 10 bins for each track with more than one start; 600 windows a track. Both ends are reached within 1 % of the range.

    A pass visits the chunks in turn, which is more even than chance, so the statistic is small; a chunk that is favoured makes it large."""
    starts = [[] for _ in LENGTHS]
    for track, start in epochs_of(ramps, 0, 300):
        starts[track].append(start)
    assert set(starts[0]) == {0}
    assert set(starts[1]) == {0, 1}
    for track in (2, 3, 4):
        last = LENGTHS[track] - 4000
        counts, _ = np.histogram(starts[track], bins=10, range=(0, last + 1))
        assert stats.chisquare(counts).pvalue > 1e-3
        assert min(starts[track]) < 0.01 * last and max(starts[track]) > 0.99 * last


def test_epochs_differ_and_come_back_by_seed(ramps):
    assert epochs_of(ramps, 1, 2) == epochs_of(ramps, 0, 2)[10:]
    assert epochs_of(ramps, 1, 2) != epochs_of(ramps, 2, 3)
    other = EXPERIMENT.model_copy(update={"fit": EXPERIMENT.fit.model_copy(update={"seed": 1})})
    assert epochs_of(ramps, 1, 2, other) != epochs_of(ramps, 1, 2)


def test_batches_do_not_depend_on_threads_or_the_process_seed_and_a_later_start_is_the_tail(records):
    manifest = schema.read_manifest(records)
    tf.random.set_seed(0)
    whole = take(data.train_batches(records, manifest, AUGMENTED), threads=1)
    tf.random.set_seed(5)
    steps = data.steps_per_epoch(manifest, AUGMENTED)
    assert steps == 8 and len(whole) == 4 * steps  # 32 clips x 2 crops / 8, 4 epochs
    tail = take(data.train_batches(records, manifest, AUGMENTED, first_epoch=1), threads=4)
    for expected, found in zip(whole[steps:], tail, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, expected, found)
    assert not np.array_equal(whole[0][0], whole[steps][0])


@pytest.fixture(scope="module")
def flac_records(collection, tmp_path_factory):
    out = tmp_path_factory.mktemp("flac") / "records"
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",))
    return out, build(source, out, LAYOUT.model_copy(update={"payload": "flac"}))


@pytest.mark.parametrize("short", ["pad", "tile"])
def test_flac_gives_the_windows_and_tracks_of_samples_in_fewer_bytes(records, flac_records, short):
    experiment = EXPERIMENT.model_copy(update={"frontend": EXPERIMENT.frontend.model_copy(update={"short": short})})
    plain = records, schema.read_manifest(records)
    streams = [tf.data.Dataset.range(2).flat_map(lambda epoch, of=of: data.windows(*of, experiment, epoch)) for of in (plain, flac_records)]
    for expected, found in zip(*map(take, streams), strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, expected, found)
    for left, right in zip(*(data.tracks(*of, "test") for of in (plain, flac_records)), strict=True):
        assert left.id == right.id
        np.testing.assert_array_equal(left.waveform, right.waveform)
    assert sum(shard.bytes for shard in flac_records[1].shards) < 0.9 * sum(shard.bytes for shard in plain[1].shards)


def test_a_damaged_flac_stream_behind_a_right_checksum_is_one_line(flac_records, tmp_path):
    def spoiled(examples):
        for example in examples:
            payload = example.features.feature["payload"].bytes_list.value
            payload[0] = bytes(64) + payload[0][64:]
        return examples

    directory = rewritten(shutil.copytree(flac_records[0], tmp_path / "copy"), spoiled)
    with pytest.raises(InputError, match="has a damaged shard.*records check"), schema.damage_named(directory):
        take(data.train_batches(directory, flac_records[1], EXPERIMENT))
    assert any("a FLAC stream is damaged" in line for line in inspect.check(directory).errors)


def test_batches_mix_tracks_beyond_the_order_they_lie_in(records):
    manifest = schema.read_manifest(records)

    def first_labels(buffer):
        experiment = EXPERIMENT.model_copy(update={"data": EXPERIMENT.data.model_copy(update={"shuffle_buffer": buffer})})
        return np.concatenate([truth["labels"] for _, truth in take(data.train_batches(records, manifest, experiment).take(8))])

    shuffled, unshuffled = first_labels(64), first_labels(1)
    assert not np.array_equal(shuffled, unshuffled)
    np.testing.assert_array_equal(shuffled.sum(0), unshuffled.sum(0))  # the same windows in another order


def test_mixed_labels_stay_between_0_and_1_and_features_are_finite(records):
    manifest = schema.read_manifest(records)
    for features, truth in take(data.train_batches(records, manifest, AUGMENTED).take(4)):
        labels = truth["labels"]
        assert truth["targets"].shape == (8, 1) and 0 <= truth["targets"].min() and truth["targets"].max() <= 1
        assert features.shape == (8, 32, 16) and features.dtype == np.float32 and np.isfinite(features).all()
        assert labels.shape == (8, 4) and 0 <= labels.min() and labels.max() <= 1
    assert ((labels > 0) & (labels < 1)).any()


def test_records_that_windows_do_not_fit_are_refused_with_the_build_line(records):
    manifest = schema.read_manifest(records)
    wide = EXPERIMENT.model_copy(update={"frontend": EXPERIMENT.frontend.model_copy(update={"window_s": 0.6})})
    with pytest.raises(InputError, match="--chunk-s 0.9 --stride-s 0.3"):
        data.check_records(manifest, wide)
    with pytest.raises(InputError, match="--sample-rate-hz 16000"):
        data.check_records(manifest, EXPERIMENT.model_copy(update={"frontend": EXPERIMENT.frontend.model_copy(update={"sample_rate_hz": 16_000})}))
    with pytest.raises(InputError, match="--fit.batch-size must be at most the 64 windows"):
        data.steps_per_epoch(manifest, EXPERIMENT.model_copy(update={"fit": EXPERIMENT.fit.model_copy(update={"batch_size": 65})}))


def test_tracks_are_whole_and_training_ones_are_not_to_be_had(records):
    with pytest.raises(InputError, match="train"):
        next(data.tracks(records, schema.read_manifest(records), "train"))
