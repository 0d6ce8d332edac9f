"""sampling: every strategy's promise checked on every drawn example, its frequencies against the exact chances, and numbers by hand."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from tfmusic import sampling
from tfmusic.config import InputError, Sampling
from tfmusic.sampling import Pool

TRIPLETS = ("triplets", "extremes", "errors")


def _pool(tracks=200, labels=8, seed=0):
    """Frequent and rare tags, tracks without any, groups of all sizes and none, scores that know a little."""
    random = np.random.default_rng(seed)
    y_true = (random.random((tracks, labels)) < np.linspace(0.4, 0.05, labels)).astype(np.uint8)
    scores = (random.random((tracks, labels)) + 0.4 * y_true).astype(np.float32)
    return Pool(y_true, random.integers(-1, tracks // 4, tracks), scores)


def _tags(*tracks, labels=None, groups=None, scores=None):
    """A pool from the tags of each track: strings of digits."""
    labels = labels or 1 + max(int(tag) for track in tracks for tag in track)
    table = np.array([[str(label) in track for label in range(labels)] for track in tracks], np.uint8)
    groups = np.full(len(tracks), -1) if groups is None else np.array(groups)
    return Pool(table, groups, None if scores is None else np.array(scores, np.float32))


def _rows(pool, batches, batch_size=12, steps=50, seed=0, epoch=0, **settings):
    drawn = sampling.rows(pool, Sampling(batches=batches, **settings), batch_size, steps, seed, epoch)
    assert drawn.shape == (steps, batch_size) and drawn.dtype == np.int64
    assert drawn.min() >= 0 and drawn.max() < len(pool.labels)
    return drawn


def _triplets(pool, *arguments, **settings):
    return _rows(pool, *arguments, **settings).reshape(-1, 3).T


def _predicted(pool, top=None):
    """p of every track by a plain loop."""
    predicted = np.zeros(pool.labels.shape, bool)
    for track, (labels, scores) in enumerate(zip(pool.labels, pool.scores, strict=True)):
        k = labels.sum() if top is None else top
        predicted[track, sorted(range(len(scores)), key=lambda label: (-scores[label], label))[:k]] = True
    return predicted


def _likely(drawn, chances, number):
    """The counts of what was drawn fit the exact chances; 1 of 1,000 correct samplers would fail, with another seed."""
    counts = Counter(drawn)
    assert set(counts) == {event for event, chance in chances.items() if chance > 0}
    expected = np.array(list(chances.values())) * number
    return chisquare([counts[event] for event in chances], expected).pvalue > 1e-3


@pytest.mark.parametrize("batches", sampling.STRATEGIES)
def test_equal_arguments_give_equal_tracks(batches):
    pool = _pool()
    first = _rows(pool, batches)
    np.testing.assert_array_equal(_rows(pool, batches), first)
    assert (_rows(pool, batches, epoch=1) != first).any()
    assert (_rows(pool, batches, seed=1) != first).any()
    assert (_rows(pool, batches, seed=1) != _rows(pool, batches, epoch=1)).any()


def test_the_settings_name_every_strategy():
    assert list(Sampling.model_fields["batches"].annotation.__args__) == list(sampling.STRATEGIES)


def test_shuffled_takes_every_track_once_a_pass():
    """30 steps of 10 in 200 tracks: one permutation and half of another, none of them twice in a batch."""
    drawn = _rows(_pool(), "shuffled", batch_size=10, steps=30).ravel()
    np.testing.assert_array_equal(np.sort(drawn[:200]), np.arange(200))
    assert len(set(drawn[200:])) == 100
    assert (drawn[:200] != np.arange(200)).any()


@pytest.mark.parametrize("tracks", [12, 13, 50, 7])
def test_crops_are_pairs_of_clips_that_differ(tracks):
    drawn = _rows(_pool(tracks), "crops", batch_size=14, steps=40)
    np.testing.assert_array_equal(drawn[:, 0::2], drawn[:, 1::2])
    clips = drawn[:, 0::2]
    assert all(len(set(step)) == 7 for step in clips)
    passes = clips.ravel()[: 280 // tracks * tracks].reshape(-1, tracks)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(tracks), (len(passes), 1)))


def test_a_pool_smaller_than_the_batch_is_repeated():
    drawn = _rows(_tags("0", "1", "0"), "shuffled", batch_size=8, steps=3)
    np.testing.assert_array_equal(np.bincount(drawn.ravel()), [8, 8, 8])


@pytest.mark.parametrize(("clips", "batch_size"), [(4, 12), (2, 16), (3, 9), (5, 40), (4, 36)])
@pytest.mark.parametrize("positives", ["tags", "group"])
def test_balanced_has_k_clips_of_each_of_p_labels(clips, batch_size, positives):
    """All labels of the pool have more tracks than a batch takes, so nothing comes twice; 36 is 9 labels of 8: one of them again."""
    pool = _pool(600)
    pool = Pool(pool.labels, pool.groups % 8)
    truth = pool.labels.astype(bool) if positives == "tags" else np.eye(8, dtype=bool)[pool.groups]
    drawn = _rows(pool, "balanced", batch_size, positives=positives, clips_per_label=clips)
    assert all(len(set(step)) == batch_size for step in drawn)
    common = truth[drawn.reshape(50, -1, clips)].all(axis=2)  # labels that all clips of a part have (steps, parts, labels)
    assert common.any(axis=2).all()
    if positives == "group":
        assert (common.any(axis=1).sum(axis=1) == min(batch_size // clips, 8)).all()


def test_balanced_draws_rare_tags_as_often_as_frequent_ones():
    """Single tags of 2 to 500 tracks, 3 of 5 a batch: each tag is in 3/5 of the batches, each of its tracks as often as the others."""
    tags = np.repeat(np.arange(5), [500, 100, 20, 4, 2])
    pool = Pool(np.eye(5, dtype=np.uint8)[tags], np.full(len(tags), -1))
    drawn = _rows(pool, "balanced", batch_size=6, steps=4000, clips_per_label=2)
    parts = tags[drawn.reshape(-1, 2)]
    assert (parts[:, 0] == parts[:, 1]).all()
    assert _likely(parts[:, 0].tolist(), dict.fromkeys(range(5), 1 / 5), 12_000)
    of_second = drawn[tags[drawn] == 1].tolist()
    assert _likely(of_second, dict.fromkeys(range(500, 600), 1 / 100), len(of_second))
    sets = [tuple(step) for step in np.sort(tags[drawn[:, ::2]], axis=1)]  # 10 sets of 3 of 5
    assert len(set(sets)) == 10 and _likely(sets, dict.fromkeys(set(sets), 1 / 10), 4000)


def test_balanced_repeats_as_little_as_it_can():
    """Tag 0 has 2 tracks, tag 1 these and 4 more: tag 0 takes both twice, and 4 others are left for tag 1."""
    pool = _tags("01", "01", "1", "1", "1", "1")
    for step in _rows(pool, "balanced", batch_size=8):
        np.testing.assert_array_equal(np.bincount(step), [2, 2, 1, 1, 1, 1])
        np.testing.assert_array_equal(np.bincount(step[:4]), [2, 2])


def test_balanced_with_a_single_label():
    """Two parts of one label of 3 tracks: 8 places, so each track 2 or 3 times."""
    for step in _rows(_tags("0", "0", "0", ""), "balanced", batch_size=8):
        np.testing.assert_array_equal(np.sort(np.bincount(step)), [2, 3, 3])


def test_balanced_leaves_out_tags_of_one_track_and_tracks_without():
    """Tag 2 is on one track, tags 0 and 1 are on two each; track 5 has none and never comes."""
    drawn = _rows(_tags("0", "0", "1", "1", "2", ""), "balanced", batch_size=4, clips_per_label=2)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(4), (50, 1)))


def test_balanced_takes_the_tracks_of_a_short_list_alike():
    """Lists of 5, 6 and 20 tracks, 2 of them a batch: the fourth place, when most of the 5 are taken, still holds any of them, 1/5 each."""
    tags = np.repeat(np.arange(3), [5, 6, 20])
    pool = Pool(np.eye(3, dtype=np.uint8)[tags], np.full(len(tags), -1))
    fourth = _rows(pool, "balanced", batch_size=8, steps=5000)[:, 3]
    of_first = fourth[fourth < 5].tolist()
    assert _likely(of_first, dict.fromkeys(range(5), 1 / 5), len(of_first))


def test_balanced_takes_short_lists_and_long_ones_in_many_steps(monkeypatch):
    """Looked at in pieces of a few cells or at once, the tracks are as different as they can be: min(list, K) of each label."""
    monkeypatch.setattr(sampling, "CELLS", 100)
    tags = np.repeat(np.arange(6), [2, 3, 4, 5, 50, 500])
    pool = Pool(np.eye(6, dtype=np.uint8)[tags], np.full(len(tags), -1))
    for part in _rows(pool, "balanced", batch_size=16, steps=200).reshape(-1, 4):
        assert len(set(tags[part])) == 1
        assert len(set(part)) == min(4, (tags == tags[part[0]]).sum())


def test_triplets_share_a_tag_and_share_none():
    pool = _pool()
    anchor, positive, negative = _triplets(pool, "triplets", steps=500)
    assert (anchor != positive).all()
    assert (pool.labels[anchor] & pool.labels[positive]).any(axis=1).all()
    assert not (pool.labels[anchor] & pool.labels[negative]).any()


def test_triplets_of_groups():
    pool = _pool()
    anchor, positive, negative = _triplets(pool, "triplets", steps=500, positives="group")
    assert (anchor != positive).all() and (pool.groups[anchor] >= 0).all()
    np.testing.assert_array_equal(pool.groups[anchor], pool.groups[positive])
    assert (pool.groups[anchor] != pool.groups[negative]).all()


def test_triplets_come_with_their_exact_chances():
    """Tags 0 | 01 | 1 | 124 | 2 | 3 | none. Anchors: all but 3 (alone with its tag) and none, 1/5 each; a tag of the anchor that others
    have (so not 4), 1/(such tags), one other of its tracks, and any of the tracks that share nothing."""
    pool = _tags("0", "01", "1", "124", "2", "3", "")
    own = [set(np.flatnonzero(track)) - {4} for track in pool.labels]
    chances = Counter()
    for anchor in range(5):
        negatives = [track for track in range(7) if not own[track] & own[anchor]]
        for tag in own[anchor]:
            others = [track for track in range(7) if tag in own[track] and track != anchor]
            for other in others:
                for negative in negatives:
                    chances[anchor, other, negative] += 1 / 5 / len(own[anchor]) / len(others) / len(negatives)
    assert sum(chances.values()) == pytest.approx(1)
    for rounds in (0, sampling.ROUNDS):  # by looking at all tracks, and by drawing again
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling, "ROUNDS", rounds)
            drawn = _triplets(pool, "triplets", batch_size=30, steps=1000).T
        assert _likely([tuple(triplet) for triplet in drawn], chances, 10_000)


def test_anchors_without_a_negative_are_left_out():
    """Track 0 has all tags and so shares one with every other: never an anchor, though it is a positive."""
    anchor, positive, negative = _triplets(_tags("012", "0", "0", "1", "1", "2", "2"), "triplets")
    assert 0 not in anchor and 0 in positive and 0 not in negative
    assert set(anchor) == {1, 2, 3, 4, 5, 6}


def test_a_single_odd_track_is_the_negative_of_all():
    pool = _tags(*["0"] * 300, "1")
    anchor, _, negative = _triplets(pool, "triplets")
    assert set(negative) == {300} and 300 not in anchor


def test_extremes_by_hand():
    """Track 0 scores tag 1 highest and tag 2 lowest; tag 3 is scored lower but no track has it. Tag 1 is of tracks 1 and 3, tag 2 of
    tracks 2 and 3, and nothing keeps track 3 from being both. Clean, track 2 remains, that shares no tag with track 0."""
    pool = _tags("01", "1", "2", "012", labels=4, scores=[[0.5, 0.9, 0.1, 0.0]] * 4)
    drawn = _triplets(pool, "extremes", batch_size=30, steps=100)
    of_first = drawn[:, drawn[0] == 0]
    assert set(of_first[1]) == {1, 3} and set(of_first[2]) == {2, 3}
    assert set(drawn[2][drawn[0] == 2]) == {3}  # its own lowest tag, but never itself
    assert set(drawn[0]) == {0, 1, 2, 3}
    clean = _triplets(pool, "extremes", batch_size=30, steps=100, clean_negatives=True)
    assert set(clean[0]) == {0, 1, 2}  # track 3 shares a tag with every other
    assert set(clean[2][clean[0] == 0]) == {2} and set(clean[2][clean[0] == 1]) == {2}
    assert set(clean[2][clean[0] == 2]) == {0}  # the lowest tag that it has not is 0, of tracks 0 and 3, and 3 is not clean


def test_extremes_pass_over_a_tag_of_the_anchor_alone():
    """Track 0 scores its own tag 3 highest and its own tag 4 lowest, but no other track has them: tags 1 and 2 are left."""
    pool = _tags("0134", "1", "2", "0", scores=[[0.5, 0.8, 0.2, 0.9, 0.1]] * 4)
    anchor, positive, negative = _triplets(pool, "extremes")
    assert set(positive[anchor == 0]) == {1} and set(negative[anchor == 0]) == {2}


def test_extremes_follow_the_scores():
    pool = _pool()
    anchor, positive, negative = _triplets(pool, "extremes", steps=500)
    assert (anchor != positive).all() and (anchor != negative).all()
    assert pool.labels[positive, pool.scores[anchor].argmax(axis=1)].all()
    assert pool.labels[negative, pool.scores[anchor].argmin(axis=1)].all()


def test_errors_by_hand():
    """Track 0 has tags 0 and 1, its two highest scores are tags 0 and 2: tag 1 is missed (track 1 and 3 have it), tag 2 wrong (2 and 3).
    Track 3 is as alike as the positive and can be the negative, clean only track 2 is. With the 3 highest nothing is missed."""
    scores = [[0.9, 0.1, 0.8, 0.0], [0.1, 0.9, 0.0, 0.0], [0.0, 0.1, 0.9, 0.0], [0.1, 0.8, 0.9, 0.0]]
    pool = _tags("01", "1", "2", "12", labels=4, scores=scores)
    anchor, positive, negative = _triplets(pool, "errors")
    assert set(anchor) == {0} and set(positive) == {1, 3} and set(negative) == {2, 3}
    assert set(_triplets(pool, "errors", clean_negatives=True)[2]) == {2}
    with pytest.raises(InputError, match="errors needs a track .* misses a tag"):
        _rows(pool, "errors", top=3)
    clean = _tags("01", "1", "12", "12", scores=np.array(scores)[:, :3])  # every track of tag 2 has tag 1 too
    with pytest.raises(InputError, match="--sampling.clean-negatives"):
        _rows(clean, "errors", clean_negatives=True)


def test_errors_pass_over_a_missed_tag_of_the_anchor_alone():
    """Track 0 is missed in tag 0, which track 1 has, and in tag 3, its own alone; of the wrong tags 1, 2 and 4 no track has tag 4."""
    pool = _tags("03", "0", "1", "2", labels=5, scores=[[0, 0.9, 0.8, 0, 0.7], *[[1, 0, 0, 0, 0]] * 3])
    anchor, positive, negative = _triplets(pool, "errors", top=3)
    positive, negative, anchor = positive[anchor == 0], negative[anchor == 0], anchor[anchor == 0]
    assert set(anchor) == {0} and set(positive) == {1} and set(negative) == {2, 3}


@pytest.mark.parametrize("top", [None, 1, 3, 99])
def test_errors_follow_the_scores(top):
    pool = _pool()
    predicted = _predicted(pool, top)
    missed, wrong = (pool.labels == 1) & ~predicted, (pool.labels == 0) & predicted
    if top == 99:
        assert not missed.any()
        return
    anchor, positive, negative = _triplets(pool, "errors", steps=1000, top=top)
    assert set(anchor) == set(np.flatnonzero(missed.any(axis=1) & wrong.any(axis=1)))
    assert (anchor != positive).all()
    assert (pool.labels[positive].astype(bool) & missed[anchor]).any(axis=1).all()
    assert (pool.labels[negative].astype(bool) & wrong[anchor]).any(axis=1).all()


@pytest.mark.parametrize("rounds", [0, 3, 1000])
@pytest.mark.parametrize("batches", ["extremes", "errors"])
def test_clean_negatives_share_nothing(batches, rounds, monkeypatch):
    monkeypatch.setattr(sampling, "ROUNDS", rounds)
    monkeypatch.setattr(sampling, "CELLS", 1000)
    pool = _pool()
    figures = sampling.describe(pool, _rows(pool, batches, steps=500, clean_negatives=True))
    assert figures["negatives_alike"] == figures["overlap_negative"] == 0
    assert sampling.describe(pool, _rows(pool, batches, steps=500))["negatives_alike"] > 0.1


@pytest.mark.parametrize("rounds", [0, 1000])
def test_clean_negatives_keep_the_chances_of_their_tags(rounds, monkeypatch):
    """Track 0 misses tag 0 and is wrongly given tags 1 (tracks 2, 4, and 6 to 13, which have tag 0 too) and 2 (tracks 4, 5), each 1/2.
    A track of tag 1 has 1/20, one of tag 2 1/4; clean are 2, 4 and 5, with 1/20, 6/20 and 5/20, of 12/20 together."""
    monkeypatch.setattr(sampling, "ROUNDS", rounds)
    tracks = ["0", "0", "1", "0", "12", "2", *["01"] * 8]
    pool = _tags(*tracks)
    scores = pool.labels.astype(np.float32)
    scores[0] = 0, 1, 1
    pool = Pool(pool.labels, pool.groups, scores)
    anchor, _, negative = _triplets(pool, "errors", batch_size=30, steps=1000, top=2, clean_negatives=True)
    of_first = negative[anchor == 0].tolist()
    assert _likely(of_first, {2: 1 / 12, 4: 6 / 12, 5: 5 / 12}, len(of_first))


def test_many_labels_are_packed_without_a_gap():
    """65, 64 and 130 labels: each alone shares with itself and nothing else."""
    for labels in (64, 65, 130):
        tags = _pool(labels, labels)
        tags = sampling._Tags(Pool(np.eye(labels, dtype=np.uint8), tags.groups))
        every = np.arange(labels)
        np.testing.assert_array_equal(tags.share(every[:, None], every), np.eye(labels, dtype=bool))


def test_tracks_without_a_tag_or_a_group_share_nothing():
    pool = _tags("0", "0", "", "", groups=[2, 2, -1, -1])
    every = np.arange(4)
    for kind in sampling.ALIKE.values():
        shared = kind(pool).share(every[:, None], every)
        np.testing.assert_array_equal(shared, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_truth_of_tags_and_of_groups():
    """Groups 7 and 3 in the order of their numbers, -1 for a track without one; the truth of crops is the clip."""
    pool = _tags("01", "", "1", groups=[7, -1, 3])
    np.testing.assert_array_equal(sampling.truth(pool, Sampling()), [[1, 1], [0, 0], [0, 1]])
    grouped = sampling.truth(pool, Sampling(positives="group"))
    np.testing.assert_array_equal(grouped, [1, -1, 0])
    assert grouped.dtype == np.int64 and sampling.truth(pool, Sampling(batches="crops")) is None


def test_idf_by_hand():
    """Of 4 tracks all, two, one, none have the label: log 1, log 2, log 4, and as if of one."""
    labels = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(sampling.idf(labels), np.log([1, 2, 4, 4]), rtol=1e-6)
    assert sampling.idf(labels).dtype == np.float32


def test_describe_by_hand():
    """Overlaps: 01 and 0 1/2, 01 and 12 1/3, 01 and 2 0, 2 and 12 1/2. Triplets (01, 0, 12), (01, 12, 0), (01, 0, 2), (2, 12, 12)."""
    pool = _tags("01", "0", "12", "2", "")
    figures = sampling.describe(pool, np.array([[0, 1, 2, 0, 2, 1], [0, 1, 3, 3, 2, 2]]))
    assert figures["overlap_positive"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)
    assert figures["overlap_negative"] == pytest.approx((1 / 3 + 1 / 2 + 0 + 1 / 2) / 4)
    assert figures["negatives_alike"] == 3 / 4 and figures["anchors"] == 2 / 5
    assert figures["negatives_nearer"] == figures["negatives_equal"] == 1 / 4
    assert sampling.describe(pool, np.array([[4, 4, 4]]))["overlap_positive"] == 0


def test_describe_shows_why_mining_errors_is_hard():
    """Tags that come in pairs: what a tagger confuses are the two of a pair, so its wrong tag's tracks share a true one, as the positive."""
    random = np.random.default_rng(0)
    pairs = np.repeat(np.eye(5, dtype=np.uint8)[random.integers(5, size=300)], 2, axis=1)
    labels = pairs & (random.random(pairs.shape) < 0.8)
    pool = Pool(labels, np.full(300, -1), (pairs + random.random(pairs.shape)).astype(np.float32))
    far = {batches: sampling.describe(pool, _rows(pool, batches)) for batches in TRIPLETS}
    assert far["errors"]["overlap_negative"] > 0.2 > 0.05 > far["extremes"]["overlap_negative"] >= far["triplets"]["overlap_negative"] == 0
    order = [far[batches]["negatives_nearer"] for batches in ("triplets", "extremes", "errors")]
    assert all(near <= after for near, after in pairwise(order))


@pytest.mark.parametrize(
    ("batches", "batch_size", "settings", "message"),
    [
        ("balanced", 10, {}, "--fit.batch-size must be a multiple of 4, 8 or more, .*balanced, got 10"),
        ("balanced", 4, {}, "--fit.batch-size must be a multiple of 4, 8 or more, .*balanced, got 4"),
        ("triplets", 16, {}, "--fit.batch-size must be a multiple of 3, 3 or more, .*triplets, got 16"),
        ("extremes", 16, {}, "--fit.batch-size must be a multiple of 3"),
        ("errors", 16, {}, "--fit.batch-size must be a multiple of 3"),
        ("crops", 7, {}, "--fit.batch-size must be a multiple of 2, 4 or more, .*crops, got 7"),
        ("crops", 402, {}, "--fit.batch-size must be at most twice the 200 tracks .*, got 402"),
        ("extremes", 12, {"positives": "group"}, "--sampling.positives must be tags, got group"),
        ("errors", 12, {"positives": "group"}, "--sampling.positives must be tags, got group"),
    ],
)
def test_what_does_not_fit_is_one_line(batches, batch_size, settings, message):
    with pytest.raises(InputError, match=message) as raised:
        _rows(_pool(), batches, batch_size, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("pool", "batches", "settings", "message"),
    [
        (_tags("0", "1", "2"), "balanced", {}, "needs a tag of 2 training tracks .* got none among 3 tracks with 3 tags"),
        (_tags("0", "1", "2"), "triplets", {}, "needs a tag of 2 training tracks"),
        (_tags("0", "0", ""), "balanced", {"positives": "group"}, "needs a group of 2 training tracks .* 3 tracks with 0 groups"),
        (_tags("0", "0", "", groups=[0, 1, 2]), "triplets", {"positives": "group"}, "needs a group of 2 training tracks .* with 3 groups"),
        (_tags("0", "01", "02"), "triplets", {}, "shares a tag with a second one and none with a third"),
        (_tags("0", "0", groups=[5, 5]), "triplets", {"positives": "group"}, "shares a group with a second one and none with a third"),
        (_tags("01", "12", "02"), "triplets", {}, "shares a tag with a second one and none with a third"),
        (_tags("0", "0"), "extremes", {}, "--sampling.tagger must be a run directory, got none"),
        (_tags("0", "0"), "errors", {}, "--sampling.tagger must be a run directory, got none"),
        (_tags("0", "0", scores=[[1], [1]]), "extremes", {}, "two tags of other tracks"),
        (_tags("0", "0", "1", "1", scores=[[1, 0], [1, 0], [0, 1], [0, 1]]), "errors", {}, "misses a tag and gives a wrong one"),
    ],
)
def test_nothing_to_draw_is_one_line(pool, batches, settings, message):
    with pytest.raises(InputError, match=message) as raised:
        _rows(pool, batches, **settings)
    assert "\n" not in str(raised.value)


def test_pool_checks_its_tables():
    labels, groups = np.array([[1, 0], [0, 1]]), np.array([0, -1])
    for arguments, message in [
        ((labels[0], groups), "labels must be of shape"),
        ((labels[:, :0], groups), "labels must be of shape"),
        ((labels * 2, groups), "labels must be 0 or 1, got 0 to 2"),
        ((labels, groups[:1]), "groups must be of shape"),
        ((labels, groups, np.zeros((2, 3))), "scores must be of the shape of labels"),
        ((labels, groups, labels), "scores must be floats, got int64"),
        ((labels, groups, np.array([[0, 1], [0, np.nan]])), "scores must be numbers, got nan for track 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Pool(*arguments)


@pytest.mark.parametrize(("mined", "positives", "negatives"), [("both", [1], [3]), ("positives", [1], [2, 3]), ("negatives", [0, 1], [3])])
def test_errors_of_one_side_leave_the_other_any_tag(mined, positives, negatives):
    """Track 0 has tags 0 and 1 and is given 0 and 3: 1 is missed, 3 is wrong, 2 is neither; track i + 1 has tag i alone. Only track 0 has
    an error of each kind: the others are given their own tag, which the table's ones keep in the lead."""
    labels = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    scores = labels.astype(np.float32)
    scores[0] = [1, 0, 0, 1]
    drawn = sampling.rows(Pool(labels, np.arange(7), scores), Sampling(batches="errors", tagger="run", mined=mined), 300, 1, 0, 0).reshape(-1, 3)
    drawn = drawn[drawn[:, 0] == 0]
    assert len(drawn) > 10
    assert set(np.flatnonzero(labels[drawn[:, 1]].any(axis=0) & (labels[0] == 1))) == set(positives)
    assert set(np.flatnonzero(labels[drawn[:, 2]].any(axis=0))) == set(negatives)
