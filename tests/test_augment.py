"""augment: what is masked and blended, how often, and that it hangs on nothing but the seed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfmusic import augment, config

FRAMES = {"probability": 1.0, "time_masks": 1, "time_frames": 6, "mel_masks": 0, "mel_bands": 0}
MELS = {"probability": 1.0, "time_masks": 0, "time_frames": 0, "mel_masks": 1, "mel_bands": 6}
BOTH = {"probability": 1.0, "time_masks": 2, "time_frames": 5, "mel_masks": 2, "mel_bands": 4}


def _seeds(count, key=7):
    return tf.stack([tf.fill([count], key), tf.range(count)], axis=1)


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _where_masked(settings, batch=20_000, frames=20, mels=2, **changes):
    """Places that changed `[shape=(batch, frames, mels)]`; the mean of noise stands nowhere in it."""
    features = np.broadcast_to(_noise(1, frames, mels), (batch, frames, mels))
    return augment.spec_augment(features, _seeds(batch), **settings | changes).numpy() != features


def _uniform(values, count):
    """Whether whole numbers are uniform over 0..count - 1; p below 1e-5 says no."""
    observed = np.bincount(values, minlength=count)
    assert len(observed) == count
    assert stats.chisquare(observed).pvalue > 1e-5


def test_hash_is_pcg3d():
    """Written out with Python's integers, modulo 2^32; seeds from one end of int32 to the other."""
    seeds = np.array([[3, 5], [-1, 2**31 - 1], [-(2**31), 0]], np.int32)
    for (first, second), numbers in zip(seeds.tolist(), augment.hashed_uniform(tf.constant(seeds), 4).numpy(), strict=True):
        for draw, number in enumerate(numbers):
            x, y, z = ((word % 2**32 * 1664525 + 1013904223) % 2**32 for word in (first, second, draw))
            x = (x + y * z) % 2**32
            y = (y + z * x) % 2**32
            z = (z + x * y) % 2**32
            x, y, z = x ^ x >> 16, y ^ y >> 16, z ^ z >> 16
            assert number == ((x + y * z) % 2**32 >> 8) / 2**24


@pytest.mark.parametrize("column", [0, 1])
def test_hash_is_uniform_and_independent(column):
    """Seeds that differ in one word by one, as a counter's do: pairs of draws, and of neighbours, fill a 16 x 16 grid evenly."""
    seeds = np.full((50_000, 2), 1234, np.int32)
    seeds[:, column] = np.arange(50_000)
    cells = (augment.hashed_uniform(tf.constant(seeds), 5).numpy() * 16).astype(int)
    for draw in range(1, 5):
        _uniform(cells[:, 0] * 16 + cells[:, draw], 256)
    _uniform(cells[1:, 0] * 16 + cells[:-1, 0], 256)


@pytest.mark.parametrize("settings", [FRAMES, MELS], ids=["frames", "mels"])
@pytest.mark.parametrize("size", [20, 4], ids=lambda size: f"size={size}")
def test_widths_and_starts_are_uniform(settings, size):
    """One mask of 0..6 (at most the axis) in 20 or 4 places: every width as likely, every start where it fits as likely, no holes."""
    masked = _where_masked(settings, frames=size) if settings is FRAMES else _where_masked(settings, frames=2, mels=size).swapaxes(1, 2)
    assert (masked[..., 0] == masked[..., 1]).all()  # along the whole other axis
    masked = masked[..., 0]
    widths, starts = masked.sum(axis=1), masked.argmax(axis=1)
    assert (np.diff(masked, prepend=False, append=False, axis=1).sum(axis=1) == 2 * (widths > 0)).all()  # one run
    _uniform(widths, min(6, size) + 1)
    for width in (1, 3):
        _uniform(starts[widths == width], size - width + 1)


def test_several_masks_are_independent():
    """Two masks cover a frame with 1 - (1 - c)^2, c the coverage of one; a frame and a band together with the product of theirs."""
    single = _where_masked(FRAMES | {"time_frames": 5}).mean(axis=(0, 2))
    both = _where_masked(BOTH | {"mel_bands": 0}).mean(axis=(0, 2))
    np.testing.assert_allclose(both, 1 - (1 - single) ** 2, atol=0.012)
    masked = _where_masked(BOTH, mels=12)
    of_frame, of_band = masked.all(axis=2), masked.all(axis=1)
    np.testing.assert_allclose((of_frame[:, 9] & of_band[:, 5]).mean(), of_frame[:, 9].mean() * of_band[:, 5].mean(), atol=0.006)
    assert (masked == (of_frame[:, :, None] | of_band[:, None, :])).all()


def test_probability_is_the_share_of_masked_examples():
    """Of 7 widths one is 0: 6/7 of the chosen examples show a mask. 3 deviations of 20,000 draws at .3 are .01."""
    share = _where_masked(FRAMES, probability=0.3).any(axis=(1, 2)).mean()
    assert share == pytest.approx(0.3 * 6 / 7, abs=0.01)


@pytest.mark.parametrize("changes", [{"probability": 0.0}, {"time_masks": 0, "mel_masks": 0}, {"time_frames": 0, "mel_bands": 0}], ids=str)
def test_strength_0_is_identity(changes):
    features = _noise(8, 20, 10)
    np.testing.assert_array_equal(augment.spec_augment(features, _seeds(8), **BOTH | changes), features)


def test_masks_hold_the_mean_of_the_example_and_channel():
    features = _noise(8, 20, 10, 3) + np.arange(8)[:, None, None, None] + 100 * np.arange(3)
    masked = augment.spec_augment(features, _seeds(8), **BOTH).numpy()
    changed = masked != features
    assert changed.any(axis=(1, 2, 3)).all()
    assert (changed == changed[..., :1]).all()  # alike in all channels
    means = np.broadcast_to(features.mean(axis=(1, 2), keepdims=True), features.shape)
    np.testing.assert_allclose(masked[changed], means[changed], rtol=1e-5)
    np.testing.assert_allclose(augment.spec_augment(features[..., 1], _seeds(8), **BOTH), masked[..., 1], rtol=1e-6)


def test_an_example_s_mask_is_its_own():
    """One batch holds different masks; an example's is the same alone, in another order, and with seeds of 64 bits."""
    features, seeds = _noise(16, 20, 10), _seeds(16)
    masked = augment.spec_augment(features, seeds, **BOTH).numpy()
    assert len({row.tobytes() for row in masked != features}) == 16
    np.testing.assert_array_equal(augment.spec_augment(features, seeds, **BOTH), masked)
    np.testing.assert_array_equal(augment.spec_augment(features[5:6], seeds[5:6], **BOTH), masked[5:6])
    np.testing.assert_array_equal(augment.spec_augment(features[::-1], tf.cast(seeds, tf.int64)[::-1], **BOTH), masked[::-1])
    assert (augment.spec_augment(features, _seeds(16, key=8), **BOTH).numpy() != masked).any(axis=(1, 2)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_is_kept_and_the_mean_does_not_overflow(dtype):
    """400 x 200 values of 100 sum to 8 million; float16 ends at 65,504."""
    features = tf.fill([2, 400, 200], tf.constant(100.0, dtype))
    masked = augment.spec_augment(features, _seeds(2), **BOTH)
    assert masked.dtype == dtype
    np.testing.assert_array_equal(tf.cast(masked, tf.float32), 100)


def test_graph_of_unknown_shape_equals_eager():
    features, labels = _noise(6, 20, 10), np.eye(6, dtype="float32")

    of_features, of_seeds = tf.TensorSpec((None, None, None)), tf.TensorSpec((None, 2), tf.int32)

    @tf.function(input_signature=[of_features, of_seeds, tf.TensorSpec((None, None)), tf.TensorSpec((2,), tf.int64)])
    def graph(features, seeds, labels, seed):
        return augment.spec_augment(features, seeds, **BOTH), augment.mixup(features, labels, seed, 0.4)

    masked, (mixed, mixed_labels) = graph(features, _seeds(6), labels, [1, 2])
    np.testing.assert_allclose(masked, augment.spec_augment(features, _seeds(6), **BOTH), rtol=1e-6, atol=1e-7)
    eager, eager_labels = augment.mixup(features, labels, [1, 2], 0.4)
    np.testing.assert_allclose(mixed, eager, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(mixed_labels, eager_labels, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("features", "seeds", "changes"),
    [
        (np.ones((2, 3), "float32"), _seeds(2), {}),
        (np.ones((2, 3, 4), int), _seeds(2), {}),
        (np.ones((2, 3, 4), "float32"), tf.zeros((2, 2)), {}),
        (np.ones((2, 3, 4), "float32"), tf.zeros((2,), tf.int32), {}),
        (np.ones((2, 3, 4), "float32"), _seeds(2), {"probability": 1.1}),
        (np.ones((2, 3, 4), "float32"), _seeds(2), {"mel_bands": -1}),
    ],
)
def test_spec_augment_refuses(features, seeds, changes):
    with pytest.raises(ValueError):
        augment.spec_augment(features, seeds, **BOTH | changes)


def test_mixup_s_labels_follow_its_features():
    """Features that are their own labels stay so; every row blends itself with one partner, and the partners are a permutation."""
    own = np.eye(64, dtype="float32")
    features, labels = augment.mixup(np.tile(own[:, None], (1, 3, 1)), {"tags": own.astype(int), "targets": (own,)}, seed=[1, 2], alpha=20.0)
    for of_labels in (labels["tags"], labels["targets"][0]):
        assert of_labels.dtype == tf.float32
        np.testing.assert_array_equal(features, np.tile(np.asarray(of_labels)[:, None], (1, 3, 1)))
    weights = features[:, 0].numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    kept = np.diag(weights)
    assert ((weights > 0).sum(axis=1) <= 2).all()
    assert len(np.unique(kept)) > 60  # a weight of its own for every example
    partners = np.where(kept == 1, np.arange(64), (weights - np.diag(kept)).argmax(axis=1))
    assert sorted(partners) == list(range(64))
    assert (partners != np.arange(64)).sum() > 50


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_s_weights_are_beta_distributed(alpha):
    """Labels 1 in one half of the batch and 0 in the other show the weight of the examples whose partner is in the other half."""
    features, labels = np.zeros((40_000, 1)), np.repeat([[1.0], [0.0]], 20_000, axis=0)
    weights = augment.mixup(features, labels, seed=[3, 4], alpha=alpha)[1].numpy()[:20_000, 0]
    theory = stats.beta(alpha, alpha)
    low, high = 1e-4, 1 - 1e-4  # a partner in the same half leaves 1
    weights = weights[(low < weights) & (weights < high)]
    assert len(weights) == pytest.approx(10_000 * (theory.cdf(high) - theory.cdf(low)), rel=0.05)
    assert stats.kstest((theory.cdf(weights) - theory.cdf(low)) / (theory.cdf(high) - theory.cdf(low)), "uniform").pvalue > 1e-4


def test_mixup_of_the_smallest_alpha_is_still_a_mixture():
    """Beta(.001, .001) is a coin: two float32 gammas would be 0 / 0."""
    labels = augment.mixup(np.zeros((4000, 1)), np.repeat([[1.0], [0.0]], 2000, axis=0), seed=[3, 4], alpha=0.001)[1].numpy()[:2000]
    assert np.isfinite(labels).all()
    assert ((labels < 0.01) | (labels > 0.99)).mean() > 0.98
    assert labels.mean() == pytest.approx(0.75, abs=0.04)  # half have a partner of 0, half of those take it


def test_mixup_of_strength_0_is_identity():
    features, labels = _noise(4, 3), {"tags": np.eye(4, dtype=bool)}
    mixed, mixed_labels = augment.mixup(features, labels, seed=[1, 2], alpha=0.0)
    np.testing.assert_array_equal(mixed, features)
    np.testing.assert_array_equal(mixed_labels["tags"], labels["tags"])
    assert mixed_labels["tags"].dtype == tf.float32  # as with any other strength


def test_mixup_follows_its_seed_and_keeps_dtypes():
    features, labels = _noise(16, 3).astype("float16"), np.eye(16)
    first, again, other = (augment.mixup(features, labels, seed=[1, number], alpha=1.0) for number in (2, 2, 3))
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).numpy().any()
    assert (first[0].dtype, first[1].dtype) == (tf.float16, tf.float64)


def test_mixup_refuses():
    with pytest.raises(ValueError, match="got class numbers"):
        augment.mixup(_noise(4, 3), np.arange(4), seed=[1, 2], alpha=1.0)
    with pytest.raises(ValueError):
        augment.mixup(_noise(4, 3), np.eye(4), seed=[1, 2], alpha=-1.0)


def _model():
    features, labels = keras.Input((20, 10)), keras.Input((3,))
    masked = augment.SpecAugment(**BOTH, seed=5, name="masks")(features)
    mixed, mixed_labels = augment.Mixup(alpha=0.4, seed=6, name="mixup")(masked, labels)
    return keras.Model([features, labels], [mixed, mixed_labels])


def test_layers_act_while_training_only():
    batch = [_noise(16, 20, 10), np.eye(3, dtype="float32")[np.arange(16) % 3]]
    model = _model()
    assert model.output_shape == [(None, 20, 10), (None, 3)]
    for passed, given in zip(model(batch), batch, strict=True):
        np.testing.assert_array_equal(passed, given)
    first, second = model(batch, training=True), model(batch, training=True)
    for one, other, given in zip(first, second, batch, strict=True):
        assert (one.numpy() != given).any() and (one != other).numpy().any()
    for one, again in zip(first, _model()(batch, training=True), strict=True):
        np.testing.assert_array_equal(one, again)  # the seed decides


def test_layers_go_on_where_they_were_saved(tmp_path):
    """Keras' own layers begin their stream of random numbers again; a resumed run must not see the first masks twice."""
    batch = [_noise(16, 20, 10), np.eye(3, dtype="float32")[np.arange(16) % 3]]
    model = _model()
    model(batch, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name in ("masks", "mixup"):
        assert loaded.get_layer(name).get_config() == model.get_layer(name).get_config()
    for one, again in zip(model(batch, training=True), loaded(batch, training=True), strict=True):
        np.testing.assert_array_equal(one, again)


def test_spec_augment_layer_masks_inside_fit():
    """The identity reproduces its input without a loss, a masked one does not."""
    features = _noise(32, 20, 10)
    losses = []
    for probability in (0.0, 1.0):
        identity = keras.layers.Dense(10, kernel_initializer="identity")
        model = keras.Sequential([augment.SpecAugment(**BOTH | {"probability": probability}), identity])
        model.compile(keras.optimizers.SGD(0.0), loss="mse")
        losses.append(model.fit(features, features, verbose=0).history["loss"][0])
    assert losses[0] == 0 < losses[1]


def test_layers_keep_dtypes_under_mixed_precision():
    features = _noise(4, 20, 10)
    assert augment.SpecAugment(probability=1.0, dtype="mixed_bfloat16")(features, training=True).dtype == tf.float32
    mixed, labels = augment.Mixup(alpha=1.0, dtype="mixed_bfloat16")(features, np.eye(4, dtype="float32"), training=True)
    assert (mixed.dtype, labels.dtype) == (tf.float32, tf.float32)


def test_layer_arguments_are_the_settings():
    assert set(config.SpecAugment.model_fields) | {"seed"} <= set(augment.SpecAugment().get_config())
    for broken in (
        lambda: augment.SpecAugment(probability=2.0),
        lambda: augment.SpecAugment(time_masks=-1),
        lambda: augment.Mixup(alpha=-0.1),
    ):
        with pytest.raises(ValueError):
            broken()
