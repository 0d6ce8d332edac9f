"""Figures of what the nearest neighbours of whole-track embeddings are worth, each beside what chance would reach."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfmusic import cli, search

KS = (1, 2, 4, 8)
DEPTH = KS[-1]  # ranks that nDCG looks at
LABEL_FIGURES = (*(f"recall_at_{k}" for k in KS), *(f"precision_at_{k}" for k in KS), "map_at_r", f"ndcg_at_{DEPTH}")
FILTERED = tuple(f"filtered_{name}" for name in LABEL_FIGURES)  # the query's group taken out of the collection
FIGURES = (*LABEL_FIGURES, *FILTERED, "group_recall_at_1", "group_map_at_r", f"graded_ndcg_at_{DEPTH}")  # in the order of a report


# --- figures of each query, from labels and neighbours ------------------------------------------------------------------------------------
def recall_at_k(labels: np.ndarray, neighbours: np.ndarray, k: int) -> np.ndarray:
    """Share of a query's labels that its k nearest cover together: `n(y_q & (y_1 | ... | y_k)) / n(y_q)`.

    Items with many labels cover by themselves: read it beside `random_recall_at_k`.

    Args:
        labels: 0/1 `[shape=(items, labels)]`.
        neighbours: row numbers, nearest first, the query left out; -1: no more remain `[shape=(items, >= k)]`.
        k: neighbours that count `int > 0`.

    Returns:
        `0 <= float64 <= 1`, nan for a query without labels or neighbours `[shape=(items,)]`.

    Raises:
        ValueError: fewer than k columns.

    >>> recall_at_k(np.array([[1, 1], [1, 0], [0, 0]]), np.array([[1], [0], [0]]), k=1)  # 1 of 2 labels, 1 of 1, no label
    array([0.5, 1. , nan])
    """
    labels, neighbours = _first(labels, neighbours, k)
    covered = np.zeros_like(labels)
    for column in neighbours.T:
        covered |= labels[column] & (column >= 0)[:, None]
    return _share((covered & labels).sum(axis=1), labels.sum(axis=1) * (neighbours[:, 0] >= 0))


def precision_at_k(labels: np.ndarray, neighbours: np.ndarray, k: int) -> np.ndarray:
    """Share of the k nearest that have a label in common with the query; of those that remain, where they are fewer.

    Args, Returns and Raises are those of `recall_at_k`.

    >>> precision_at_k(np.array([[1, 1], [1, 0], [0, 0]]), np.array([[1, 2], [0, 2], [0, 1]]), k=2)
    array([0.5, 0.5, nan])
    """
    labels, neighbours = _first(labels, neighbours, k)
    hits = (jaccard(labels, neighbours) > 0).sum(axis=1)
    return _share(hits, (neighbours >= 0).sum(axis=1) * labels.any(axis=1))


def map_at_r(relevant: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Average precision over the first R ranks, R the number of relevant items: `1/R sum_{i<=R} precision(i) rel(i)`.

    Other than recall at 1 it asks for all R and for their order (Musgrave et al., "A metric learning reality check", ECCV 2020).

    Args:
        relevant: 0/1 in the order of rank, the query left out, at least as many ranks as the largest R `[shape=(queries, ranks)]`.
        positives: R of each query `[shape=(queries,)]`.

    Returns:
        `0 <= float64 <= 1`, nan where R is 0 `[shape=(queries,)]`.

    Raises:
        ValueError: fewer ranks than R.

    >>> map_at_r(np.array([[1, 0, 1, 1]]), np.array([3]))  # (1/1 + 2/3) / 3
    array([0.55555556])
    """
    relevant, positives = np.asarray(relevant, bool), np.asarray(positives)
    if positives.max(initial=0) > relevant.shape[1]:
        raise ValueError(f"relevant must have at least {positives.max()} ranks, the largest R, got {relevant.shape[1]}")
    return np.array([_average_precision(*query) for query in zip(relevant, positives, strict=True)], np.float64)


def _average_precision(relevant: np.ndarray, positives: int) -> float:
    """`map_at_r` of one query."""
    if not positives:
        return np.nan
    ranks = np.flatnonzero(relevant[:positives]) + 1
    return (np.arange(1, len(ranks) + 1) / ranks).sum() / positives


def ndcg(gains: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    """Discounted gain of the first ranks, as a share of the best that any ranking could reach there.

    `sum_i gain_i / log2(1 + i)` over that of the ideal order (Järvelin and Kekäläinen, TOIS 2002).

    Args:
        gains: of the nearest, in the order of rank `float >= 0` `[shape=(queries, ranks)]`.
        ideal: the largest of all other items, largest first `[shape=(queries, ranks)]`.

    Returns:
        `0 <= float64 <= 1`, nan where nothing has a gain `[shape=(queries,)]`.

    >>> ndcg(np.array([[0.0, 1.0]]), np.array([[1.0, 0.5]]))  # (1 / log2 3) / (1 + .5 / log2 3)
    array([0.47962493])
    """
    return _share(gains @ _discounts(gains.shape[1]), ideal @ _discounts(ideal.shape[1]))


def jaccard(labels: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Overlap of a query's labels with those of each neighbour, `|a & b| / |a | b|`, 0 without labels.

    Args:
        labels: 0/1 `[shape=(items, labels)]`.
        neighbours: row numbers, or -1: nothing `[shape=(items, k)]`.

    Returns:
        `0 <= float64 <= 1` `[shape=(items, k)]`.

    >>> jaccard(np.array([[1, 1], [1, 0], [0, 0]]), np.array([[1], [0], [0]])).ravel()
    array([0.5, 0.5, 0. ])
    """
    labels = np.asarray(labels, bool)
    both = np.stack([(labels & labels[column]).sum(axis=1) for column in neighbours.T], axis=1) * (neighbours >= 0)
    sizes = labels.sum(axis=1)
    return both / np.maximum(sizes[:, None] + sizes[neighbours] - both, 1)


def _first(labels: np.ndarray, neighbours: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < k <= neighbours.shape[1]:
        raise ValueError(f"k must be in 1..{neighbours.shape[1]}, the neighbours given, got {k!r}")
    return np.asarray(labels, bool), neighbours[:, :k]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, nan where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _discounts(ranks: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, ranks + 2))


# --- what a random order of the other items reaches: expectations, not simulations --------------------------------------------------------
def random_recall_at_k(labels: np.ndarray, k: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Expectation of `recall_at_k` over random rankings.

    A label that m of the M candidates have is covered unless all k drawn are without: `1 - C(M - m, k) / C(M, k)`, mean over the query's
    labels.

    Args:
        labels: 0/1 `[shape=(items, labels)]`.
        k: neighbours that count `int > 0`; with fewer candidates all of them do.
        groups: the query's own is taken out of the candidates, -1: of none `[shape=(items,)]`; none: only the query is taken out.

    Returns:
        `0 <= float64 <= 1`, nan for a query without labels or candidates `[shape=(items,)]`.

    >>> random_recall_at_k(np.array([[1, 1], [1, 0], [0, 0]]), k=1)  # label 0: one of two others has it; label 1: none
    array([0.25, 0.5 ,  nan])
    """
    labels = np.asarray(labels, bool)
    clusters = _clusters(groups, len(labels))
    candidates = _outside(clusters)
    queries, columns = np.nonzero(labels)
    _, pairs, inside = np.unique(clusters[queries] * labels.shape[1] + columns, return_inverse=True, return_counts=True)
    carriers = labels.sum(axis=0)[columns] - inside[pairs]  # of the query's label, among its candidates: m
    missed = np.ones(len(queries))
    for drawn in range(k):
        left = candidates[queries] - drawn
        missed *= np.where(left > 0, np.maximum(left - carriers, 0) / np.maximum(left, 1), 1)
    covered = np.bincount(queries, 1 - missed, minlength=len(labels))
    return _share(covered, labels.sum(axis=1) * (candidates > 0))


def random_map_at_r(positives: np.ndarray, others: np.ndarray | int) -> np.ndarray:
    """Expectation of `map_at_r` over random rankings: `1/M [H_R + (R - 1) / (M - 1) (R - H_R)]`, `H_R = 1 + 1/2 + ... + 1/R`.

    Rank i is relevant with chance R / M, and then (i - 1) (R - 1) / (M - 1) of the i - 1 before it are, too.

    Args:
        positives: R of each query `[shape=(queries,)]`.
        others: M, the items that are ranked `int >= R`, one for all or one a query.

    Returns:
        `0 <= float64 <= 1`, nan where R is 0 `[shape=(queries,)]`.

    >>> random_map_at_r(np.array([1, 0]), others=4)
    array([0.25,  nan])
    """
    positives, others = np.asarray(positives), np.asarray(others)
    harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, positives.max(initial=0) + 1))])[positives]
    expected = (harmonic + (positives - 1) / np.maximum(others - 1, 1) * (positives - harmonic)) / np.maximum(others, 1)
    return np.where(positives > 0, expected, np.nan)


def random_ndcg(gain_sum: np.ndarray, ideal: np.ndarray, others: np.ndarray | int) -> np.ndarray:
    """Expectation of `ndcg` over random rankings: every rank gains the mean, so `gain_sum / M sum of discounts`, over the ideal.

    Args:
        gain_sum: of all others `[shape=(queries,)]`.
        ideal: the largest gains, largest first `[shape=(queries, ranks)]`.
        others: M, the items that are ranked `int >= 0`, one for all or one a query; no more ranks are discounted.

    Returns:
        `0 <= float64 <= 1`, nan where nothing has a gain `[shape=(queries,)]`.

    >>> random_ndcg(np.array([1.0]), np.array([[1.0]]), others=4)
    array([0.25])
    """
    discounts = _discounts(ideal.shape[1])
    discounted = np.concatenate([[0], np.cumsum(discounts)])[np.minimum(others, len(discounts))]
    return _share(gain_sum / np.maximum(others, 1) * discounted, ideal @ discounts)


def _clusters(groups: np.ndarray | None, items: int) -> np.ndarray:
    """Groups numbered from 0; an item of none is one of its own `[shape=(items,)]`."""
    if groups is None:
        return np.arange(items)
    groups = np.asarray(groups, np.int64)
    return np.unique(np.where(groups < 0, groups.max() + 1 + np.arange(items), groups), return_inverse=True)[1]


def _outside(clusters: np.ndarray) -> np.ndarray:
    """How many items are of another cluster than each."""
    return len(clusters) - np.bincount(clusters)[clusters]


# --- all of them in one pass --------------------------------------------------------------------------------------------------------------
class Ranked(NamedTuple):
    """What one pass over all pairs leaves of every query, of a ranking of its candidates."""

    neighbours: np.ndarray  # the first DEPTH of them, -1: no more remain (items, DEPTH)
    positives: np.ndarray  # candidates with a label in common (items,)
    map_at_r: np.ndarray
    gain_sum: np.ndarray  # Jaccard overlaps with all candidates
    ideal: np.ndarray  # the largest of them (items, DEPTH)


class Pass(NamedTuple):
    everything: Ranked  # candidates are all other items
    filtered: Ranked  # those of other groups, or of none
    group_positives: np.ndarray  # others of the group (items,)
    group_map_at_r: np.ndarray


def figures(embeddings: np.ndarray, labels: np.ndarray | None, groups: np.ndarray | None, resamples: int, seed: int) -> dict:
    """How well the nearest items agree with labels and groups, each beside its expectation under random rankings; ready for JSON.

    A figure is a mean over queries. Of labels, over queries that have one ("recall", "precision") and, for mAP@R and nDCG, share one with
    another item; of groups, over queries whose group has another member; of the graded nDCG, gain 2 for the group, else 1 for a common
    label, over queries that something has a gain for. With 8 others or fewer, K stops at all of them.

    Items of one artist, song or instrument tend to share every label, and to be found by how they were recorded. The "filtered" figures of
    labels take the query's group out of the collection: candidates, R, ideal and chance are of what remains, and a query that nothing
    remains for is left out (Pampalk, Flexer and Widmer, ISMIR 2005; Flexer, "A closer look on artist filters", ISMIR 2007). An item of no
    group filters only itself.

    Queries of one group are no independent evidence either, so the intervals come from a cluster bootstrap: groups are drawn with
    replacement, as many as there are, each with all its queries; an item of no group is a group of its own. With group g drawn w_g times, a
    figure summing to S_g over its n_g queries there, a draw is `sum_g w_g S_g / sum_g w_g n_g`; the interval holds the middle 95 % of the
    draws. The index stays as it is: the interval says how far a figure depends on which queries were asked, not how it would fall in a
    larger collection, and with fewer than some twenty groups it is too narrow. All figures share the draws.

    Every query's ranking is sorted as far as its R, on all cores: time grows with the square of the items, and memory is a few times
    `search.BLOCK_BYTES` plus four times the embeddings in float32.

    Args:
        embeddings: as `search.nearest` `[shape=(items >= 2, dims)]`.
        labels: 0/1 `[shape=(items, labels)]`; none: no item has a label.
        groups: artist, instrument or track `int >= 0`, -1: of none `[shape=(items,)]`; none: no groups.
        resamples: bootstrap draws `int >= 0`; 0: the intervals are None.
        seed: of the draws `int >= 0`.

    Returns:
        Of FIGURES "recall_at_K", "precision_at_K" for K = 1, 2, 4, 8; "map_at_r", "ndcg_at_8" (Jaccard gain); all of them "filtered_...";
        "group_recall_at_1", "group_map_at_r", "graded_ndcg_at_8". None where no query has the figure; where no group has two members, the
        filtered, which would repeat the others, and those of groups are all None.
        Each with "..._random", its expectation by chance, and "..._interval", [low, high], None where all its queries are of one group.
        "queries": items with a label; "unlabelled": those without; "alone": queries that share no label with another item;
        "group_queries": items whose group has another member.

    Raises:
        ValueError: embeddings that are not finite, shapes that differ, labels other than 0 and 1, groups that are no integers.
    """
    unit = search.unit_rows(embeddings)
    items = len(unit)
    labels = np.zeros((items, 0), bool) if labels is None else _checked_labels(labels, items)
    groups = np.full(items, -1) if groups is None else np.asarray(groups)
    if items < 2:
        raise ValueError(f"embeddings must be of 2 items or more, got {items}")
    if groups.shape != (items,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(f"groups must be integers of shape ({items},), got {groups.dtype} of {groups.shape}")
    if resamples < 0:
        raise ValueError(f"resamples must be >= 0, got {resamples!r}")
    clusters, single = _clusters(groups, items), np.arange(items)
    found = _pass(unit, labels, clusters)
    grouped = found.group_positives > 0
    nothing = np.full(items, np.nan), np.full(items, np.nan)

    # Of every query the figure and its expectation, nan where it is left out.
    per_query = dict(zip(LABEL_FIGURES, _of_labels(labels, single, found.everything), strict=True))
    filtered = _of_labels(labels, clusters, found.filtered) if grouped.any() else [nothing] * len(FILTERED)
    per_query |= dict(zip(FILTERED, filtered, strict=True))

    neighbours, others = found.everything.neighbours, items - 1
    same = (clusters[neighbours] == clusters[:, None]) & (neighbours >= 0)
    per_query["group_recall_at_1"] = np.where(grouped, same[:, 0], np.nan), np.where(grouped, found.group_positives / others, np.nan)
    per_query["group_map_at_r"] = found.group_map_at_r, random_map_at_r(found.group_positives, others)
    twos, ones = found.group_positives, found.filtered.positives  # how many others have which gain
    gains = np.where(same, 2.0, jaccard(labels, neighbours) > 0)
    ideal = 1.0 * (np.arange(DEPTH) < twos[:, None]) + (np.arange(DEPTH) < (twos + ones)[:, None])
    graded = ndcg(gains, ideal), random_ndcg(2.0 * twos + ones, ideal, others)
    per_query[f"graded_ndcg_at_{DEPTH}"] = graded if grouped.any() else nothing

    values, expected = (np.stack(columns, axis=1) for columns in zip(*per_query.values(), strict=True))  # (items, figures)
    intervals = _intervals(values, clusters, resamples, seed)
    report: dict = {}
    for name, value, chance, interval in zip(per_query, _means(values), _means(expected), intervals, strict=True):
        report |= {name: value, f"{name}_random": chance, f"{name}_interval": interval}
    labelled = labels.any(axis=1)
    queries = int(labelled.sum())
    alone = int((labelled & (found.everything.positives == 0)).sum())
    return report | {"queries": queries, "unlabelled": items - queries, "alone": alone, "group_queries": int(grouped.sum())}


def _of_labels(labels: np.ndarray, clusters: np.ndarray, ranked: Ranked) -> list[tuple[np.ndarray, np.ndarray]]:
    """LABEL_FIGURES of every query and their expectations, the candidates being what is of another cluster."""
    candidates = _outside(clusters)
    chance = _share(ranked.positives, candidates * labels.any(axis=1))
    gains = jaccard(labels, ranked.neighbours).astype(np.float32)  # as the ideal: 1/3 is to be 1/3 on both sides
    return [
        *((recall_at_k(labels, ranked.neighbours, k), random_recall_at_k(labels, k, clusters)) for k in KS),
        *((precision_at_k(labels, ranked.neighbours, k), chance) for k in KS),
        (ranked.map_at_r, random_map_at_r(ranked.positives, candidates)),
        (ndcg(gains, ranked.ideal), random_ndcg(ranked.gain_sum, ranked.ideal, candidates)),
    ]


def _checked_labels(labels: np.ndarray, items: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 2 or len(labels) != items:
        raise ValueError(f"labels must be of shape ({items}, labels), got {labels.shape}")
    found = labels.astype(bool)
    if not np.array_equal(found, labels):
        raise ValueError(f"labels must be 0 or 1, got {labels[found != labels][0]}")
    return found


def _pass(unit: np.ndarray, labels: np.ndarray, clusters: np.ndarray) -> Pass:
    """Similarities and overlaps of a block of queries at a time; the sorting of its rows on all cores."""
    items = len(unit)
    wide = search.on_cpu(unit.astype(np.float64))
    padding = max(-items % search.CHUNK, DEPTH * search.CHUNK - items)  # `search.top` wants whole chunks, and enough of them
    padded = search.on_cpu(np.pad(labels, ((0, padding), (0, 0))).astype(np.float32))
    parts = []
    with concurrent.futures.ThreadPoolExecutor(cli.cores()) as pool:
        for block in search.blocks(items, 8 * items):
            rows = np.arange(block.start, block.stop)
            keys = search.keys_of(wide, rows)
            gains, ideal, filtered_ideal = _overlaps(padded, rows, np.pad(clusters, (0, padding)))
            shares = [slice(*pair) for pair in _even(len(rows))]
            ranked = pool.map(lambda share: _rank(keys[share], gains[share, :items], rows[share], clusters), shares)  # noqa: B023
            parts.append((*(np.concatenate(column) for column in zip(*ranked, strict=True)), ideal, filtered_ideal))
    *both, group_positives, group_map_at_r, ideal, filtered_ideal = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pass(Ranked(*both[:4], ideal), Ranked(*both[4:], filtered_ideal), group_positives, group_map_at_r)


def _overlaps(padded: tf.Tensor, rows: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Jaccard overlap of queries with every item, 0 with themselves `[shape=(rows, items)]`; its largest DEPTH, and of other clusters."""
    with tf.device("CPU"):
        queries = tf.gather(padded, rows)
        both = tf.matmul(queries, padded, transpose_b=True)  # whole numbers: exact in float32
        either = tf.reduce_sum(queries, 1, keepdims=True) + tf.reduce_sum(padded, 1) - both
        own = tf.range(padded.shape[0], dtype=tf.int64) == rows[:, None]
        gains = tf.where(own, 0.0, both / tf.maximum(either, 1.0))
        filtered = tf.where(tf.constant(clusters) == clusters[rows, None], 0.0, gains)
        return gains.numpy(), *(search.top(values, DEPTH)[0].numpy().astype(np.float64) for values in (gains, filtered))


def _rank(keys: np.ndarray, gains: np.ndarray, rows: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of some queries the first four fields of both `Ranked`, then the last two of `Pass`; works on one core, and in `keys`."""
    same = clusters == clusters[rows, None]
    same[np.arange(len(rows)), rows] = False
    filtered_gains = np.where(same, 0, gains)
    positives, filtered_positives, group_positives = (mask.sum(axis=1) for mask in (gains > 0, filtered_gains > 0, same))
    keys |= gains > 0
    keys |= same.astype(np.int8) << 1
    neighbours = np.full((2, len(rows), DEPTH), -1, np.int32)
    precisions = np.empty((3, len(rows)))
    for number, row in enumerate(keys):
        # R, or DEPTH, of the other clusters come after at most the whole of the own one: most of a sort is saved.
        needed = max(DEPTH, filtered_positives[number]) + group_positives[number]
        if 2 * needed < len(row):
            row.partition(needed)
            row = row[:needed]
        row.sort()
        row = row[row < search.LAST]
        filtered = row[row & 2 == 0]
        for near, ranking in zip(neighbours[:, number], (row, filtered), strict=True):
            near[: len(ranking)] = search.items_of(ranking[:DEPTH])
        ranked = (row & 1, positives), (filtered & 1, filtered_positives), (row & 2, group_positives)
        precisions[:, number] = [_average_precision(relevant, counts[number]) for relevant, counts in ranked]
    gain_sums = (values.sum(axis=1, dtype=np.float64) for values in (gains, filtered_gains))
    both = zip(neighbours, (positives, filtered_positives), precisions[:2], gain_sums, strict=True)
    return *(column for ranked in both for column in ranked), group_positives, precisions[2]


def _even(rows: int) -> Iterator[tuple[int, int]]:
    """A share of the rows for every core, (start, stop)."""
    edges = np.linspace(0, rows, min(rows, cli.cores()) + 1).astype(int).tolist()
    return zip(edges[:-1], edges[1:], strict=True)


def _means(values: np.ndarray) -> list[float | None]:
    """Mean of every column over its numbers; None where there is none."""
    counts = (~np.isnan(values)).sum(axis=0)
    return [float(total / count) if count else None for total, count in zip(np.nansum(values, axis=0), counts, strict=True)]


def _intervals(values: np.ndarray, clusters: np.ndarray, resamples: int, seed: int) -> list[list[float] | None]:
    """Middle 95 % of the columns' means over drawn clusters, [low, high]; None without resamples, or without numbers of two clusters.

    Args:
        values: figures of the queries, nan where one has none `[shape=(queries, figures)]`.
        clusters: from 0, without gaps `[shape=(queries,)]`.
        resamples: draws `int >= 0`.
        seed: of the draws `int >= 0`.
    """
    valid = ~np.isnan(values)
    both = np.zeros((clusters.max() + 1, 2 * values.shape[1]))  # sums and counts: S_g and n_g
    np.add.at(both, clusters, np.hstack([np.where(valid, values, 0), valid]))
    random = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for number in range(resamples):
        weights = np.bincount(random.integers(len(both), size=len(both)), minlength=len(both))
        means[number] = _share(*np.split(weights @ both, 2))
    means[:, np.count_nonzero(both[:, values.shape[1] :], axis=0) < 2] = np.nan  # whatever is drawn, one cluster has one mean
    columns = [column[~np.isnan(column)] for column in means.T]  # a resample without any of the figure's queries says nothing
    return [np.percentile(column, [2.5, 97.5]).tolist() if len(column) else None for column in columns]
