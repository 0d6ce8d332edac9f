"""The table of training tracks: every chunk has its place, and a track is put together again from its chunks to the last sample."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RATE_HZ
from tfmusic import audio, catalogue, data, schema
from tfmusic.config import Experiment, InputError


@pytest.fixture(scope="module")
def table(records):
    return catalogue.read(records, schema.read_manifest(records))


def test_it_lists_every_training_track_once_with_its_labels_and_group(table, records, collection):
    manifest = schema.read_manifest(records)
    assert len(table) == manifest.splits["train"].tracks == 32 and len(set(table.ids)) == 32
    assert table.labels.sum(axis=0).tolist() == list(manifest.splits["train"].label_counts)
    assert sorted(set(table.groups)) == sorted(f"train{number}" for number in range(8))
    assert table.targets.shape == (32, 1)


def test_a_whole_track_is_what_its_file_holds(table, records, collection):
    """Of 1 to 5 chunks that overlap."""
    manifest = schema.read_manifest(records)
    parts = np.diff(table.first)
    assert parts.min() == 1 and parts.max() > 2
    for row, track in enumerate(catalogue.tracks(table, manifest)):
        np.testing.assert_array_equal(track.waveform, audio.load(collection / table.ids[row], RATE_HZ))
        assert track.group == table.groups[row]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_whole_tracks_are_found_by_their_place(records, split):
    manifest = schema.read_manifest(records)
    tracks = list(data.tracks(records, manifest, split))
    found = catalogue.whole_tracks(records, manifest, split, {0, 5, len(tracks) - 1})
    assert set(found) == {0, 5, len(tracks) - 1}
    for row, track in found.items():
        assert (track.id, track.group) == (tracks[row].id, tracks[row].group)
        np.testing.assert_array_equal(track.waveform, tracks[row].waveform)
        np.testing.assert_array_equal(track.labels, tracks[row].labels)


def test_groups_are_numbered_and_the_empty_one_is_none():
    np.testing.assert_array_equal(catalogue.numbers(["b", "", "a", "b"]), [1, -1, 0, 1])


def test_a_shard_that_is_cut_off_is_one_line(records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "copy")
    manifest = schema.read_manifest(copy)
    shard = copy / next(shard.file for shard in manifest.shards if shard.split == "train")
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(InputError, match="is cut off"):
        catalogue.read(copy, manifest)


def test_a_flipped_bit_in_a_chunk_is_found(table, records, tmp_path):
    """In a chunk that is not its track's first, which nothing else reads."""
    from tensorflow.errors import DataLossError

    copy = shutil.copytree(records, tmp_path / "copy")
    manifest, longest = schema.read_manifest(copy), int(np.diff(table.first).argmax())
    moved = catalogue.read(copy, manifest)
    path = Path(moved.files[moved.file[longest]])
    content = bytearray(path.read_bytes())
    content[moved.offsets[moved.first[longest] + 1] + 500] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataLossError):
        catalogue.waveform(moved, manifest, longest)
    with pytest.raises(DataLossError):
        list(catalogue.tracks(moved, manifest))


def test_chosen_windows_come_in_the_order_asked_for_and_from_all_over_the_track(table, records):
    """Each window is found in its track; 400 windows of one track of several chunks start uniformly: chi-square of 4 quarters, 3 degrees of
    freedom, 16.3 is the 99.9 % point."""
    import tensorflow as tf

    from tests.conftest import EXPERIMENT

    manifest, longest = schema.read_manifest(records), int(np.diff(table.first).argmax())
    rows = tf.constant([longest, 3, 5] * 400, tf.int64)
    waveform = catalogue.waveform(table, manifest, longest)
    starts = []
    for number, (window, truth, index) in enumerate(data.chosen_windows(manifest, EXPERIMENT, table, rows, tf.constant(0, tf.int64))):
        assert index == number
        np.testing.assert_array_equal(truth["labels"], table.labels[rows[number]])
        np.testing.assert_array_equal(truth["targets"], table.targets[rows[number]])
        if number % 3 == 0:
            (start,) = positions(waveform, window.numpy())
            starts.append(start)
    counts, _ = np.histogram(starts, 4, (0, len(waveform) - EXPERIMENT.frontend.window_samples + 1))
    assert ((counts - 100) ** 2 / 100).sum() < 16.3


def positions(waveform, window):
    found = np.flatnonzero(waveform[: len(waveform) - len(window) + 1] == window[0])
    return [start for start in found if np.array_equal(waveform[start : start + len(window)], window)]


def test_a_batch_carries_features_truth_and_labels_and_an_epoch_comes_back(table, records):
    """Epoch 1 of a stream from the start is epoch 0 of one that begins there; truth by group is one-hot of its number."""
    from tests.conftest import EXPERIMENT

    manifest = schema.read_manifest(records)
    experiment = Experiment.model_validate(
        {**EXPERIMENT.model_dump(), "task": "similarity", "fit": {**EXPERIMENT.fit.model_dump(), "epochs": 2, "monitor": "val_map_at_r"}}
    )
    steps = data.steps_per_epoch(manifest, experiment)
    random = np.random.default_rng(0)
    chosen = random.integers(32, size=(2, steps, experiment.fit.batch_size))
    groups = catalogue.numbers(table.groups)

    def stream(truth, first_epoch=0):
        return list(data.chosen_batches(manifest, experiment, table, lambda epoch: chosen[epoch], truth, first_epoch).as_numpy_iterator())

    batches = stream(groups)
    assert len(batches) == 2 * steps
    np.testing.assert_array_equal(batches[steps]["truth"], np.eye(8)[groups[chosen[1, 0]]])
    np.testing.assert_array_equal(batches[steps]["labels"], table.labels[chosen[1, 0]])
    np.testing.assert_array_equal(batches[steps]["features"], stream(groups, 1)[0]["features"])
    np.testing.assert_array_equal(stream(table.labels)[0]["truth"], table.labels[chosen[0, 0]])
    np.testing.assert_array_equal(stream(None)[0]["truth"], np.repeat(np.eye(4), 2, axis=0))
