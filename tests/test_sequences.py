"""Records of features: what was computed comes back, and batches of sequences are padded, masked and bucketed by length."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from records import features, inspect
from records.build import build
from records.datasets.clip import Source
from tests.conftest import EXPERIMENT, LAYOUT, RATE_HZ
from tfmusic import audio, data, schema, training
from tfmusic.config import Features, InputError, Layout

SETTINGS = Features(kind="log_mel", n_fft=256, hop_samples=128, n_mels=16)


@pytest.fixture(scope="module")
def sequences(collection, tmp_path_factory):
    """Log-mel sequences of the collection, float16, and their manifest."""
    out = tmp_path_factory.mktemp("features") / "records"
    layout = LAYOUT.model_copy(update={"payload": "features", "features": SETTINGS})
    return out, build(Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",)), out, layout)


def batches(sequences, epoch=0, batch_size=4, seed=0):
    directory, manifest = sequences
    return list(data.sequence_batches(directory, manifest, batch_size, seed, epoch).as_numpy_iterator())


def test_what_was_computed_comes_back(collection, sequences):
    directory, manifest = sequences
    assert manifest.feature_dims == 16 and not inspect.check(directory).errors and "log_mel vectors of 16 numbers, float16" in inspect.info(directory)
    found = {one.id: one for split in ("train", "valid", "test") for one in data.sequences(directory, manifest, split)}
    assert len(found) == 60
    for name in ("train/00.wav", "test/50.flac"):
        expected = features.compute(audio.load(collection / name, RATE_HZ), RATE_HZ, SETTINGS)
        assert found[name].features.dtype == np.float16
        np.testing.assert_array_equal(found[name].features, expected)
        assert np.isfinite(found[name].targets).all()


@pytest.mark.parametrize("kind", ["chroma", "beat_mel", "beat_fused"])
def test_every_kind_builds_the_same_bytes_with_any_workers(collection, tmp_path, kind):
    from records.settings import Selection, Work

    layout = LAYOUT.model_copy(
        update={"payload": "features", "features": SETTINGS.model_copy(update={"kind": kind, "n_fft": 512, "hop_samples": 64})}
    )
    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection)
    shards = [build(source, tmp_path / str(workers), layout, selection=Selection(subset=6), work=Work(workers=workers)).shards for workers in (1, 3)]
    assert shards[0] == shards[1]


def test_an_epoch_has_every_track_once_padded_and_masked(sequences):
    """32 training tracks; behind a sequence's end the mask is False and the features are 0, before it neither."""
    directory, manifest = sequences
    whole = sorted(one.features.astype(np.float32).tobytes() for one in data.sequences(directory, manifest, "train"))
    found = []
    for inputs, labels, targets in batches(sequences):
        assert inputs["features"].shape == (*inputs["mask"].shape, 16) and inputs["mask"].dtype == bool
        assert labels.shape == (len(labels), 4) and targets.shape == (len(labels), 1)
        assert inputs["mask"].any(axis=0).all()  # no longer than the longest
        for sequence, mask in zip(inputs["features"], inputs["mask"], strict=True):
            length = mask.sum()
            assert mask[:length].all() and not sequence[length:].any()
            found.append(sequence[:length].tobytes())
    assert sorted(found) == whole and len(found) == 32


def test_sequences_of_a_batch_are_of_about_the_same_length(sequences):
    """Within a bucket the longest is at most sqrt(2) times the shortest, so less than 30 % is padding."""
    for inputs, _, _ in batches(sequences):
        lengths = inputs["mask"].sum(axis=1)
        bucket = np.searchsorted(data.BUCKET_FRAMES, lengths, side="right")
        assert len(set(bucket)) == 1
        assert inputs["mask"].mean() > 1 / np.sqrt(2) - 0.02 or lengths.max() < 16


def test_epochs_have_as_many_batches_in_another_order_that_comes_back(sequences):
    first, again, second = batches(sequences, 0), batches(sequences, 0), batches(sequences, 1)
    assert len(first) == len(second)
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left[0]["features"], right[0]["features"])
    labels = [np.concatenate([one[1] for one in epoch]) for epoch in (first, second)]
    assert not np.array_equal(*labels)


def lstm(dims, classes):
    """Features and mask to logits."""
    values, mask = keras.Input((None, dims), name="features"), keras.Input((None,), dtype="bool", name="mask")
    hidden = keras.layers.LSTM(16)(keras.layers.Rescaling(1 / 50, offset=1.0)(values), mask=mask)
    return keras.Model({"features": values, "mask": mask}, keras.layers.Dense(classes)(hidden))


def test_a_masked_lstm_sees_no_padding(sequences):
    net = lstm(16, 4)
    inputs, _, _ = next(one for one in batches(sequences) if len(one[1]) > 1 and not one[0]["mask"].all())
    together = net(inputs).numpy()
    for row, mask in enumerate(inputs["mask"]):
        alone = {"features": inputs["features"][row : row + 1, : mask.sum()], "mask": mask[None, : mask.sum()]}
        np.testing.assert_allclose(net(alone).numpy()[0], together[row], atol=1e-5)


@pytest.mark.slow
def test_an_lstm_learns_low_from_high_on_the_stream(sequences):
    """16 test tracks, half of them high: a guess has 13 right or more in 1 % of all cases."""
    directory, manifest = sequences
    keras.utils.set_random_seed(0)
    net = lstm(16, 4)
    net.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    epochs = tf.data.Dataset.range(15).flat_map(lambda epoch: data.sequence_batches(directory, manifest, 8, 0, epoch))
    net.fit(epochs.map(lambda inputs, labels, _: (inputs, labels)), verbose=0)
    high = manifest.labels.index("high")
    right = 0
    for one in data.sequences(directory, manifest, "test"):
        inputs = {"features": one.features[None].astype("float32"), "mask": np.ones((1, len(one.features)), bool)}
        right += int((net(inputs).numpy()[0, high] > 0) == one.labels[high])
    assert right >= 13


def test_what_wants_audio_refuses_features_and_the_other_way_round(sequences, records, tmp_path):
    directory, manifest = sequences
    with pytest.raises(InputError, match="hold features .log_mel., the experiment wants audio; build them with --payload pcm16"):
        training.fit(EXPERIMENT, directory, tmp_path / "run")
    with pytest.raises(InputError, match="holds features .log_mel., not audio"):
        next(data.tracks(directory, manifest, "test"))
    with pytest.raises(InputError, match="must hold features, got audio .pcm16."):
        data.sequence_batches(records, schema.read_manifest(records), 4, 0, 0)


@pytest.mark.parametrize(
    ("layout", "complaint"),
    [
        ({"payload": "pcm16", "features": SETTINGS}, "features are for --payload features"),
        ({"payload": "features", "features": Features(kind="embedding")}, "features.run must be given for the kind embedding"),
        ({"payload": "features", "features": Features(kind="chroma", run="run")}, "and for no other, got run for chroma"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(layout, complaint):
    with pytest.raises(ValueError, match=complaint):
        Layout(**layout)


def test_a_nan_among_features_is_found(sequences, tmp_path):
    """NaN bytes in the first record: check names the track."""
    import shutil

    from tests.test_inspect import rewritten

    def spoiled(examples):
        payload = examples[0].features.feature["payload"].bytes_list.value
        payload[0] = b"\x00\x7e" + payload[0][2:]  # float16 nan
        return examples

    directory = rewritten(shutil.copytree(sequences[0], tmp_path / "copy"), spoiled)
    assert any("must be finite, got nan" in line for line in inspect.check(directory).errors)
