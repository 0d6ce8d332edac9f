"""search and retrieval: orders against float64 and scikit-learn, every figure against a plain loop, chance against simulation."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import ndcg_score
from sklearn.neighbors import NearestNeighbors

from tfmusic import retrieval, search
from tfmusic.retrieval import figures
from tfmusic.search import nearest

NAN = np.nan


def _embeddings(items, dims=16, seed=0):
    return np.random.default_rng(seed).normal(size=(items, dims)).astype(np.float32)


def _problem(items=60, seed=0):
    """Embeddings that know a little of the labels, with duplicates and zero vectors; a fifth of the items has no label, some no group."""
    random = np.random.default_rng(seed)
    labels = (random.random((items, 5)) < 0.3) & (random.random((items, 1)) < 0.8)
    labels[:, 4] = np.arange(items) == 3  # nobody shares it
    labels[3, :4] = False
    embeddings = random.normal(size=(items, 8)) + labels @ random.normal(size=(5, 8))
    embeddings[10:16] = embeddings[9]
    embeddings[20:23] = 0
    return embeddings, labels, random.integers(-1, items // 4, items)


def _order(embeddings):
    """Ranking of the others by float64 cosine, items `[shape=(items, items - 1)]`; equal rows share one similarity, ties to the lower number."""
    rows, number = np.unique(np.asarray(embeddings, np.float64), axis=0, return_inverse=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(length > 0, length, 1)
    cosine = (rows @ rows.T)[np.ix_(number.ravel(), number.ravel())]
    return np.array([[item for item in np.argsort(-row, kind="stable") if item != query] for query, row in enumerate(cosine)])


# --- neighbours ---------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [1, 8, 30])
@pytest.mark.parametrize("items", [31, 700, 1500], ids=lambda items: f"items={items}")
@pytest.mark.parametrize("copies", [0, 5, 60], ids=lambda copies: f"copies={copies}")
def test_nearest_is_the_exact_order(items, k, copies):
    embeddings = _embeddings(items)
    chosen = np.random.default_rng(1).permutation(items)[:copies]
    embeddings[chosen] = embeddings[0]
    embeddings[chosen[: copies // 3]] *= np.float32(4)  # as long as one likes
    embeddings[chosen[:2]] = 0
    scaled = embeddings.copy()
    scaled[chosen[: copies // 3]] /= 4
    found = nearest(embeddings, k)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, _order(scaled)[:, :k])


def test_nearest_of_scikit_learn():
    embeddings = _embeddings(900, 32)
    expected = NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute").fit(embeddings).kneighbors(return_distance=False)
    np.testing.assert_array_equal(nearest(embeddings, 5), expected)


def test_the_nearest_come_first():
    """At 0, 10, 30 and 180 degrees: from 0 the order is 10, 30, 180; from 30 it is 10, 0, 180. A distance taken for a similarity turns it round."""
    angles = np.radians([0, 10, 30, 180])
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_array_equal(nearest(circle, 3), [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]])


def test_a_query_is_removed_by_its_identity():
    """Rows 0, 1 and 3 are equal, so each finds the other two; who drops the first of the sorted finds row 1 its own neighbour, and row 0 lost."""
    embeddings = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(nearest(embeddings, 3), [[1, 3, 2], [0, 3, 2], [0, 1, 3], [0, 1, 2]])


@pytest.mark.parametrize("items", [20, 600])
@pytest.mark.parametrize("value", [0.0, 1.0], ids=["zero vectors", "one point"])
def test_a_collapsed_net_ranks_by_row_number(items, value):
    found = nearest(np.full((items, 4), value), 3)
    np.testing.assert_array_equal(found[:5], [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]])
    assert (found[5:] == [0, 1, 2]).all()


def test_near_duplicates_that_float32_cannot_tell_apart():
    """600 points within 1e-6 to 1e-4 of one: their cosines differ by less than a float32 near 1 resolves."""
    random = np.random.default_rng(0)
    embeddings = np.concatenate([np.ones(16) + random.normal(size=(600, 16)) * 1e-4, random.normal(size=(600, 16))])
    unit = search.unit_rows(embeddings).astype(np.float64)  # the rows as they are compared
    cosine = np.array([[math.fsum(row * other) for other in unit] for row in unit[:40]])
    found = nearest(embeddings, 8)
    for query, row in enumerate(np.rint(cosine * search.ONE)):
        order = [item for item in np.argsort(-row, kind="stable") if item != query]
        np.testing.assert_array_equal(found[query], order[:8])


def test_only_rows_that_float32_leaves_open_are_ranked_as_a_whole(monkeypatch):
    asked = []
    keys = search.keys_of
    monkeypatch.setattr(search, "keys_of", lambda wide, rows: asked.extend(rows) or keys(wide, rows))
    embeddings = _embeddings(1000)
    embeddings[5 : 6 + search.SPARE] = embeddings[4]
    nearest(embeddings, 8)
    assert len(asked) < 20  # margins this narrow are rare
    embeddings[100:120] = embeddings[99]
    asked.clear()
    nearest(embeddings, 8)
    assert set(range(99, 120)) <= set(asked) and len(asked) < 100


def test_length_does_not_matter():
    """Powers of two, so that the scaled rows are exact; squares of the largest overflow and of the smallest vanish."""
    embeddings = _embeddings(40).astype(np.float64)
    scaled = embeddings * 2.0 ** np.random.default_rng(0).integers(-900, 900, (40, 1))
    np.testing.assert_array_equal(nearest(scaled, 5), nearest(embeddings, 5))


def test_blocks_change_nothing(monkeypatch):
    embeddings, labels, groups = _problem(items=520)
    neighbours, report = nearest(embeddings, 8), figures(embeddings, labels, groups, 20, 0)
    for rows in (1, 60):
        monkeypatch.setattr(search, "BLOCK_BYTES", rows * 8 * len(embeddings))
        np.testing.assert_array_equal(nearest(embeddings, 8), neighbours)
        assert figures(embeddings, labels, groups, 20, 0) == report


@pytest.mark.parametrize("items", [25_000, 100_000, 1_000_000])
def test_a_block_is_bounded_whatever_the_items(items):
    """At 100,000 items 83 queries a block: similarities and keys of 8 bytes, 67 MB each."""
    for bytes_a_row in (4 * items, 8 * items):
        blocks = list(search.blocks(items, bytes_a_row))
        assert blocks[0].start == 0 and blocks[-1].stop == items
        assert all(before.stop == after.start for before, after in zip(blocks, blocks[1:], strict=False))
        assert max(block.stop - block.start for block in blocks) * bytes_a_row <= search.BLOCK_BYTES <= 200e6
    if items == 100_000:
        assert blocks[0] == slice(0, 83)


# --- figures of a query -------------------------------------------------------------------------------------------------------------------
def test_recall_counts_the_union_and_leaves_out_the_unlabelled():
    """{a, b} finds {a}, then {b}: 1/2, and together 2/2, not 1/2 twice. {c} finds nothing. {} has no figure, and the mean is no nan."""
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    neighbours = np.array([[1, 2], [0, 2], [1, 0], [4, 0], [0, 1]])
    np.testing.assert_array_equal(retrieval.recall_at_k(labels, neighbours, 1), [0.5, 1, 0, 0, NAN])
    np.testing.assert_array_equal(retrieval.recall_at_k(labels, neighbours, 2), [1, 1, 1, 0, NAN])
    np.testing.assert_array_equal(retrieval.precision_at_k(labels, neighbours, 2), [1, 0.5, 0.5, 0, NAN])
    report = figures(np.eye(5), labels, None, 0, 0)
    assert (report["queries"], report["unlabelled"], report["alone"]) == (4, 1, 1)
    assert 0 <= report["recall_at_1"] <= 1


def test_map_at_r_by_hand():
    """R = 3: found at 1 and 3, (1 + 2/3) / 3; what stands at 4 is too late. R = 1 at rank 2: 0. R = 0: none."""
    relevant = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(retrieval.map_at_r(relevant, np.array([3, 1, 0, 4])), [5 / 9, 0, NAN, 1], rtol=1e-15)
    with pytest.raises(ValueError, match="relevant must have at least 5 ranks, the largest R, got 4"):
        retrieval.map_at_r(relevant, np.array([5, 1, 0, 4]))


def test_jaccard_and_ndcg_by_hand():
    """{a, b} and {a}: 1 of 2; {a, b} and {b, c}: 1 of 3. Gains 1/3 then 1/2: (1/3 + 1/2 / log2 3) / (1/2 + 1/3 / log2 3)."""
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    gains = retrieval.jaccard(labels, np.array([[2, 1], [0, 2], [0, 1]]))
    np.testing.assert_allclose(gains, [[1 / 3, 1 / 2], [1 / 2, 0], [1 / 3, 0]], rtol=1e-15)
    second = 1 / math.log2(3)
    found = retrieval.ndcg(gains, -np.sort(-gains))
    np.testing.assert_allclose(found, [(1 / 3 + second / 2) / (1 / 2 + second / 3), 1, 1], rtol=1e-15)
    np.testing.assert_array_equal(retrieval.ndcg(np.zeros((1, 2)), np.zeros((1, 2))), [NAN])


def test_ndcg_of_scikit_learn():
    embeddings, labels, _ = _problem(items=80)
    gains = retrieval.jaccard(labels, _order(embeddings))
    has = gains.any(axis=1)
    expected = ndcg_score(gains[has], np.tile(-np.arange(79.0), (has.sum(), 1)), k=8)
    assert figures(embeddings, labels, None, 0, 0)["ndcg_at_8"] == pytest.approx(expected, rel=1e-6)


# --- the report against a plain loop ------------------------------------------------------------------------------------------------------
def _plain(embeddings, labels, groups):
    """Every figure as one would write it down, query by query; the filtered of a collection whose rows of the group are deleted."""
    names = [{label for label in np.flatnonzero(row)} for row in labels]
    found = {}

    def note(name, value):
        found.setdefault(name, []).append(value)

    def average_precision(relevant):
        hits, total = 0, 0.0
        for rank, hit in enumerate(relevant[: sum(relevant)], 1):
            hits += hit
            total += hits / rank if hit else 0
        return total / sum(relevant)

    def discounted(gains):
        return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(gains[:8], 1))

    def note_labels(prefix, own, order):
        relevant = [bool(own & names[item]) for item in order]
        if own and len(order):
            for k in (1, 2, 4, 8):
                note(f"{prefix}recall_at_{k}", len(own & set().union(*(names[item] for item in order[:k]))) / len(own))
                note(f"{prefix}precision_at_{k}", np.mean(relevant[:k]))
        if any(relevant):
            note(f"{prefix}map_at_r", average_precision(relevant))
            gains = [len(own & names[item]) / len(own | names[item]) for item in order]
            note(f"{prefix}ndcg_at_8", discounted(gains) / discounted(sorted(gains, reverse=True)))
        return relevant

    for query, order in enumerate(_order(embeddings)):
        own = names[query]
        same = [bool(groups[query] >= 0 and groups[item] == groups[query]) for item in order]
        relevant = note_labels("", own, order)
        note_labels("filtered_", own, [item for item, mate in zip(order, same, strict=True) if not mate])
        if any(same):
            note("group_recall_at_1", float(same[0]))
            note("group_map_at_r", average_precision(same))
        graded = [2 if mate else int(hit) for mate, hit in zip(same, relevant, strict=True)]
        if any(graded):
            note("graded_ndcg_at_8", discounted(graded) / discounted(sorted(graded, reverse=True)))
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("items", [60, 300], ids=lambda items: f"items={items}")
def test_figures_of_a_plain_loop(items, seed):
    embeddings, labels, groups = _problem(items, seed)
    report, plain = figures(embeddings, labels, groups, 0, 0), _plain(embeddings, labels, groups)
    assert set(plain) == set(retrieval.FIGURES)
    for name, values in plain.items():
        assert report[name] == pytest.approx(np.mean(values), rel=1e-6), name
        assert report[f"{name}_interval"] is None
    assert report["queries"] == labels.any(axis=1).sum() == items - report["unlabelled"]
    assert report["alone"] >= 1  # item 3
    assert report["group_queries"] == sum((groups == group).sum() > 1 for group in groups if group >= 0)


@pytest.mark.parametrize("items", [5, 9, 14])
def test_a_group_that_leaves_fewer_than_k(items):
    """Two items are of no group, one or two of a small one, and all others of a third: 3 or 4 candidates remain for those."""
    embeddings, labels, _ = _problem(items + 40)
    groups = np.where(np.arange(items) < 2, -1, 5)
    groups[2:items:6] = 3
    report = figures(embeddings[:items], labels[:items], groups, 0, 0)
    for name, values in _plain(embeddings[:items], labels[:items], groups).items():
        assert report[name] == pytest.approx(np.mean(values), rel=1e-6), name


def test_the_filter_takes_out_the_own_recording():
    """Two recordings of two takes each, both of label a, and one of b between them: each take finds the other, and without it the b.

    At 0, 2, 50, 98 and 100 degrees: with the other take gone, 0 and 2 are nearest to 50, and so are 98 and 100. The b, a group of its own,
    has neighbours that share nothing. In mAP@R each of the four has R = 2 at ranks 2 and 3: (0 + 1/2) / 2 = 1/4.
    """
    angles = np.radians([0, 2, 50, 98, 100])
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [1, 0]])
    report = figures(np.stack([np.cos(angles), np.sin(angles)], axis=1), labels, np.array([0, 0, 1, 2, 2]), 0, 0)
    assert report["precision_at_1"] == report["recall_at_1"] == 4 / 5
    assert report["filtered_precision_at_1"] == report["filtered_recall_at_1"] == 0
    assert report["filtered_precision_at_1_random"] == pytest.approx(4 * (2 / 3) / 5)
    assert report["filtered_precision_at_8"] == pytest.approx(4 * (2 / 3) / 5)  # all three that remain
    assert report["filtered_recall_at_8"] == report["filtered_recall_at_8_random"] == pytest.approx(4 / 5)
    assert report["filtered_map_at_r"] == pytest.approx(1 / 4)
    assert report["filtered_ndcg_at_8"] == pytest.approx((1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3)))
    plain = figures(np.stack([np.cos(angles), np.sin(angles)], axis=1)[[0, 1, 3, 4]], labels[[0, 1, 3, 4]], np.array([0, 0, 2, 2]), 0, 0)
    assert plain["precision_at_1"] == plain["filtered_precision_at_1"] == 1  # without the b there is nothing else to find


def test_a_query_that_nothing_remains_for_is_left_out():
    """One group: the filtered have no query. With one more item of no group, each finds it, and it finds them: label or not."""
    one = figures(np.eye(4), np.ones((4, 1)), np.zeros(4, int), 5, 0)
    assert all(one[name + end] is None for name in retrieval.FILTERED for end in ("", "_random", "_interval"))
    more = figures(np.eye(4), np.ones((4, 1)), np.array([7, 7, 7, -1]), 5, 0)
    assert all(more[name] == more[f"{name}_random"] == 1 for name in retrieval.FILTERED)


def test_items_of_no_group_filter_only_themselves():
    """Two mates in a collection of items of none: the other queries' figures are the unfiltered, so that of N queries two may differ."""
    embeddings, _, _ = _problem(items=50)
    labels = np.eye(3)[np.arange(50) % 3]
    groups = np.full(50, -1)
    groups[[5, 30]] = 2
    report = figures(embeddings, labels, groups, 0, 0)
    for name in retrieval.LABEL_FIGURES:
        assert abs(report[f"filtered_{name}"] - report[name]) <= 2 / 50
    assert report["filtered_precision_at_1_random"] == pytest.approx(report["precision_at_1_random"], abs=2 / 50 / 49)


def test_neighbours_that_agree_are_perfect():
    """Two clusters of ten, labelled and grouped by cluster: everything found in order; at K = 8, 8 of 9 mates."""
    embeddings = np.repeat(np.eye(2), 10, axis=0) + 0.01 * _embeddings(20, 2)
    cluster = np.arange(20) // 10
    report = figures(embeddings, np.eye(2)[cluster], cluster, 50, 0)
    for name in ("recall_at_1", "precision_at_8", "map_at_r", "ndcg_at_8", "group_recall_at_1", "group_map_at_r", "graded_ndcg_at_8"):
        assert report[name] == 1 and report[f"{name}_interval"] == [1, 1]
        assert 0 < report[f"{name}_random"] < 1
    assert report["precision_at_8_random"] == report["group_recall_at_1_random"] == pytest.approx(9 / 19)


def test_every_order_of_equal_gains_is_ideal():
    """{a, b, c} among nineteen {a}: 1/3 wherever one looks, and the nineteen are 1 to each other; rounding must not make it more than ideal."""
    labels = np.ones((20, 1)) * [1, 0, 0]
    labels[0] = 1
    embeddings = np.eye(2)[[1] + [0] * 19]
    assert figures(embeddings, labels, None, 0, 0)["ndcg_at_8"] == 1


def test_groups_without_labels_and_labels_without_groups():
    embeddings, labels, groups = _problem()
    both = figures(embeddings, labels, groups, 10, 0)
    for none in (None, np.zeros((60, 0)), np.zeros((60, 3))):
        report = figures(embeddings, none, groups, 10, 0)
        assert report["recall_at_1"] is report["map_at_r_random"] is report["ndcg_at_8_interval"] is None
        assert (report["queries"], report["unlabelled"]) == (0, 60)
        for name in ("group_recall_at_1", "group_map_at_r"):
            assert report[name] == both[name] and report[f"{name}_interval"] == both[f"{name}_interval"]
        assert 0 < report["graded_ndcg_at_8"] <= 1
    for none in (None, np.full(60, -1), np.arange(60)):
        report = figures(embeddings, labels, none, 10, 0)
        assert report["group_recall_at_1"] is report["group_map_at_r_interval"] is report["graded_ndcg_at_8"] is None
        assert report["filtered_map_at_r"] is report["filtered_recall_at_1_random"] is report["filtered_ndcg_at_8_interval"] is None
        assert report["map_at_r"] == both["map_at_r"] and report["group_queries"] == 0
    assert json.loads(json.dumps(both, allow_nan=False)) == both


@pytest.mark.parametrize("items", [2, 3, 9])
def test_few_items_stop_at_all_of_them(items):
    """All alike: every K and every rank finds the label, at random too."""
    report = figures(_embeddings(items), np.ones((items, 1)), np.zeros(items, int), 5, 0)
    for name in ("recall_at_8", "precision_at_8", "map_at_r", "ndcg_at_8", "group_recall_at_1", "group_map_at_r", "graded_ndcg_at_8"):
        assert report[name] == pytest.approx(1) and report[f"{name}_random"] == pytest.approx(1)


# --- chance and intervals -----------------------------------------------------------------------------------------------------------------
def test_chance_by_hand():
    """Four items, three others. Label 0 has items 0 to 2: two of three others, at K = 2 missed never; at K = 1 with 1/3. Label 1: item 0 alone.

    mAP@R of R = 2, M = 3: 1/3 (3/2 + 1/2 * 1/2) = 7/12; by hand, of the hits at (1, 2), (1, 3), (2, 3): 1, 1/2 and 1/4, mean 7/12.
    """
    labels = np.array([[1, 1], [1, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(retrieval.random_recall_at_k(labels, 1), [1 / 3, 2 / 3, 2 / 3, NAN], rtol=1e-15)
    np.testing.assert_allclose(retrieval.random_recall_at_k(labels, 2), [1 / 2, 1, 1, NAN], rtol=1e-15)
    np.testing.assert_allclose(retrieval.random_map_at_r(np.array([2, 0, 3]), 3), [7 / 12, NAN, 1], rtol=1e-15)
    np.testing.assert_array_equal(retrieval.random_map_at_r(np.array([1]), 1), [1])


def test_chance_is_what_random_embeddings_reach_on_average():
    """400 random collections of the same labels: the mean figure is within 4 standard errors of its expectation, and those are small."""
    _, labels, groups = _problem(items=30)
    reports = [figures(_embeddings(30, 4, seed), labels, groups, 0, 0) for seed in range(400)]
    names = [name.removesuffix("_random") for name in reports[0] if name.endswith("_random")]
    assert names == list(retrieval.FIGURES)
    for name in names:
        values = np.array([report[name] for report in reports])
        error = values.std() / 20
        assert len({report[f"{name}_random"] for report in reports}) == 1
        assert abs(values.mean() - reports[0][f"{name}_random"]) < 4 * error < 0.03, name


def test_chance_with_groups_is_what_random_orders_reach():
    """Each query's candidates shuffled 2,000 times; one group of 7 leaves 3 for its members, fewer than K and than the ranks of nDCG."""
    random = np.random.default_rng(0)
    labels, groups = random.random((10, 4)) < 0.5, np.array([0] * 7 + [1, 1, -1])
    clusters = retrieval._clusters(groups, 10)
    left = [np.flatnonzero(clusters != cluster) for cluster in clusters]
    counts = retrieval._outside(clusters)
    np.testing.assert_array_equal(counts, [3] * 7 + [8, 8, 9])
    neighbours = np.full((2000, 10, 9), -1)
    for draw in neighbours:
        for row, items in zip(draw, left, strict=True):
            row[: len(items)] = random.permutation(items)
    gains = np.array([retrieval.jaccard(labels, draw) for draw in neighbours])
    positives = (gains[0] > 0).sum(axis=1)
    ideal = -np.sort(-gains[0], axis=1)[:, :8]
    pairs = {"map": (retrieval.random_map_at_r(positives, counts), [retrieval.map_at_r(draw > 0, positives) for draw in gains])}
    pairs["ndcg"] = retrieval.random_ndcg(gains[0].sum(axis=1), ideal, counts), [retrieval.ndcg(draw[:, :8], ideal) for draw in gains]
    for k in (1, 2, 4, 8):
        pairs[f"recall {k}"] = (
            retrieval.random_recall_at_k(labels, k, groups),
            [retrieval.recall_at_k(labels, draw, k) for draw in neighbours],
        )
    for name, (expected, values) in pairs.items():
        error, none = np.std(values, axis=0) / np.sqrt(2000), np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(np.mean(values, axis=0)), none, err_msg=name)
        assert (np.abs(np.mean(values, axis=0) - expected) <= 4 * error + 1e-12)[~none].all(), name


def test_intervals_are_percentiles_of_resampled_queries():
    """The same draws, gathered and averaged as they are; every query is a group of its own."""
    values = np.random.default_rng(0).random((50, 3))
    values[::4, 1], values[:, 2] = NAN, NAN
    random = np.random.default_rng(7)
    means = [np.nanmean(values[random.integers(50, size=50), :2], axis=0) for _ in range(80)]
    first, second, none = retrieval._intervals(values, np.arange(50), 80, 7)
    np.testing.assert_allclose([first, second], np.percentile(means, [2.5, 97.5], axis=0).T, rtol=1e-12)
    assert none is None
    assert retrieval._intervals(values, np.arange(50), 0, 7) == [None] * 3


def test_intervals_are_percentiles_of_resampled_groups():
    """The queries of twelve drawn groups put together and averaged; a figure that only one group has is not certain, so it has no interval."""
    random = np.random.default_rng(0)
    values, clusters = random.random((50, 3)), np.concatenate([np.arange(12), random.integers(12, size=38)])
    values[::4, 1] = NAN
    values[clusters != 3, 2] = NAN
    random = np.random.default_rng(7)
    drawn = [np.concatenate([np.flatnonzero(clusters == group) for group in random.integers(12, size=12)]) for _ in range(80)]
    first, second, none = retrieval._intervals(values, clusters, 80, 7)
    expected = np.percentile([np.nanmean(values[rows, :2], axis=0) for rows in drawn], [2.5, 97.5], axis=0).T
    np.testing.assert_allclose([first, second], expected, rtol=1e-12)
    assert none is None


def test_intervals_of_groups_hold_the_truth():
    """150 collections of 60 groups of 1 to 39 queries around means of their own, uniform in 0.2 to 0.8: the true mean is 0.5.

    The interval holds it in about 95 % of them. Taken one by one the queries seem to know more than they do. Over groups the deviation is
    0.6 / 12^.5 = 0.17, over the queries of one 0.12; with 20 of them the mean over a collection has a variance of 0.03 (1 + cv^2) / 60, cv the
    sizes' of 0.56, and is taken for one of (0.03 + 0.013) / 1200: intervals 4.3 times too narrow, which hold it in 35 %.
    """
    random = np.random.default_rng(0)
    held, alone = [], []
    for _ in range(150):
        sizes = random.integers(1, 40, size=60)
        clusters = np.repeat(np.arange(60), sizes)
        values = (random.uniform(0.2, 0.8, 60)[clusters] + random.uniform(-0.2, 0.2, len(clusters)))[:, None]
        ((low, high),) = retrieval._intervals(values, clusters, 200, 0)
        held.append(low <= 0.5 <= high)
        if len(alone) < 50:
            ((low, high),) = retrieval._intervals(values, np.arange(len(clusters)), 100, 0)
            alone.append(low <= 0.5 <= high)
    assert 0.89 <= np.mean(held) <= 0.99
    assert np.mean(alone) < 0.6


def test_without_groups_queries_are_drawn_one_by_one():
    """None, no group known, or nobody's group shared: the same draws. Groups of several widen what is an interval over their queries."""
    embeddings, labels, groups = _problem()
    report = figures(embeddings, labels, None, 50, 0)
    assert figures(embeddings, labels, np.full(60, -1), 50, 0) == figures(embeddings, labels, np.arange(60), 50, 0) == report
    assert figures(embeddings, labels, groups, 50, 0)["map_at_r_interval"] != report["map_at_r_interval"]
    np.testing.assert_array_equal(retrieval._clusters(np.array([4, -1, 0, 4, -1]), 5), [1, 2, 0, 1, 3])


def test_an_interval_is_as_wide_as_theory():
    """Of a mean: 3.92 deviations over the root of the queries."""
    values = np.random.default_rng(0).random((400, 1)) < 0.3
    ((low, high),) = retrieval._intervals(values.astype(np.float64), np.arange(400), 1000, 0)
    assert (high - low) / (3.92 * values.std() / 20) == pytest.approx(1, abs=0.1)


def test_the_bootstrap_follows_its_seed():
    first, again, other = (figures(*_problem(), 20, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first["map_at_r"] == other["map_at_r"]


# --- arguments ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [0, 5, -1])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=f"k must be in 1..4, less than the items, got {k}"):
        nearest(np.eye(5), k)
    with pytest.raises(ValueError, match=f"k must be in 1..4, the neighbours given, got {k}"):
        retrieval.recall_at_k(np.eye(5), nearest(np.eye(5), 4), k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_not_finite_is_named(value, monkeypatch):
    embeddings = _embeddings(50, 3)
    embeddings[[37, 41], 1] = value
    for block_bytes in (1 << 26, 8 * 3 * 10):
        monkeypatch.setattr(search, "BLOCK_BYTES", block_bytes)
        for function in (lambda: nearest(embeddings, 1), lambda: figures(embeddings, None, None, 0, 0)):
            with pytest.raises(ValueError, match=r"embeddings must be finite, got \[.*(nan|inf).*\] in row 37"):
                function()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.ones(4)}, r"embeddings must be of shape \(items, dims\), got \(4,\)"),
        ({"embeddings": np.ones((1, 2)), "labels": None}, "embeddings must be of 2 items or more, got 1"),
        ({"labels": np.ones((3, 2))}, r"labels must be of shape \(4, labels\), got \(3, 2\)"),
        ({"labels": np.full((4, 1), 0.5)}, "labels must be 0 or 1, got 0.5"),
        ({"groups": np.zeros(3, int)}, r"groups must be integers of shape \(4,\), got int64 of \(3,\)"),
        ({"groups": np.zeros(4)}, r"groups must be integers of shape \(4,\), got float64 of \(4,\)"),
        ({"resamples": -1}, "resamples must be >= 0, got -1"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"embeddings": np.eye(4), "labels": np.ones((4, 2)), "groups": None, "resamples": 0, "seed": 0}
    with pytest.raises(ValueError, match=message):
        figures(**arguments | change)


def test_what_numpy_holds_at_a_time_is_bounded_by_the_block(monkeypatch):
    """2,000 items: all keys at once are 32 MB and their copies more; blocks of 64 kB and what is kept of every query stay far below."""
    random = np.random.default_rng(0)
    embeddings, labels = random.normal(size=(2000, 8)), random.random((2000, 5)) < 0.3
    monkeypatch.setattr(search, "BLOCK_BYTES", 1 << 16)
    retrieval.figures(embeddings[:50], labels[:50], None, 0, 0)
    tracemalloc.start()
    try:
        retrieval.figures(embeddings, labels, np.arange(2000) // 4, 0, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6
