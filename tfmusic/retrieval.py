"""Nearest neighbours of whole-track embeddings, exact, and figures of what they are worth, each beside what chance would reach.

How alike two items are is the cosine of their embeddings, computed without rounding: rows of unit length are rounded to multiples of 2^-24,
so that their products and every partial sum fit a float64, and no order of summation, block size, thread or processor changes a bit. Equal
rows tie exactly, and a tie goes to the lower row number. The query is left out by its row number, wherever it stands among duplicates.

Everything runs on the CPU and in blocks of rows: a GPU's float32 may be TF32, whose ten bits are too few here.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

KS = (1, 2, 4, 8)
DEPTH = KS[-1]  # ranks that nDCG looks at
FIGURES = (  # of labels and of groups, in the order of a report
    *(f"recall_at_{k}" for k in KS),
    *(f"precision_at_{k}" for k in KS),
    *("map_at_r", f"ndcg_at_{DEPTH}", "group_recall_at_1", "group_map_at_r", f"graded_ndcg_at_{DEPTH}"),
)
BLOCK_BYTES = 1 << 26  # of similarities; keys, gains and copies beside them come to a few times as much
CHUNK = 32  # columns whose maximum is looked at first
SPARE = 7  # candidates of `nearest` beyond those asked for: so many duplicates of a row cost nothing
GRID = 2.0**24  # of the unit rows
ONE = 1 << 29  # similarity 1 in a key; its step of 2e-9 is finer than what the rows' own rounding leaves
LAST = np.iinfo(np.int64).max  # key behind every item's


# --- similarities and their order ---------------------------------------------------------------------------------------------------------
def nearest(embeddings: np.ndarray, k: int) -> np.ndarray:
    """The k items most alike to each item, by cosine similarity; exact.

    A float32 product proposes k + 8 candidates a row, and their similarities are computed again exactly. The row is settled when its k-th
    is ahead of everything that was not proposed by more than float32 can err, `(dims + 2) 2^-24`. What is left, rows among many near
    duplicates, is ranked exactly as a whole, which is several times slower.

    Args:
        embeddings: of any length; a zero vector is at 0 from everything `[shape=(items, dims)]`.
        k: neighbours `0 < int < items`.

    Returns:
        Row numbers, nearest first, never the query's own; ties in the order of the rows. int32 `[shape=(items, k)]`.

    Raises:
        ValueError: k out of range, or embeddings that are not finite.

    >>> nearest(np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.5]]), k=1).ravel()
    array([2, 2, 0], dtype=int32)
    """
    unit = _unit(embeddings)
    items, dims = unit.shape
    if not 0 < k < items:
        raise ValueError(f"k must be in 1..{items - 1}, less than the items, got {k!r}")
    neighbours = np.empty((items, k), np.int32)
    settled = np.zeros(items, bool)
    candidates = k + 1 + SPARE
    if items >= candidates * CHUNK:
        padded = _on_cpu(np.pad(unit, ((0, -items % CHUNK), (0, 0))))
        margin = (dims + 2) * 2.0**-24 + 2 / ONE
        for rows in _blocks(items, 4 * items + 12 * candidates * dims):  # float32 similarities; candidates, gathered and widened
            keys, unproposed = _candidates(padded, items, rows, candidates)
            neighbours[rows] = _items(keys[:, :k])
            settled[rows] = _similarities(keys[:, k - 1]) > unproposed + margin
    unsettled = np.flatnonzero(~settled)
    if len(unsettled):
        wide = _on_cpu(unit.astype(np.float64))
        for places in _blocks(len(unsettled), 8 * items):
            keys = np.partition(_keys(wide, unsettled[places]), k - 1, axis=1)[:, :k]
            neighbours[unsettled[places]] = _items(np.sort(keys, axis=1))
    return neighbours


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Rows of length 1, zero vectors of 0, in multiples of 2^-24, which float32 holds exactly `[shape=(items, dims)]`."""
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ValueError(f"embeddings must be of shape (items, dims), got {embeddings.shape}")
    unit = np.empty(embeddings.shape, np.float32)
    for rows in _blocks(len(embeddings), 8 * embeddings.shape[1]):
        block = embeddings[rows].astype(np.float64)
        largest = np.abs(block).max(axis=1)  # nan and infinity show in it; divided by it, no square overflows or vanishes
        if not np.isfinite(largest).all():
            row = rows.start + np.flatnonzero(~np.isfinite(largest))[0]
            raise ValueError(f"embeddings must be finite, got {embeddings[row]} in row {row}")
        block /= np.where(largest > 0, largest, 1)[:, None]
        length = np.sqrt((block**2).sum(axis=1))
        block /= np.where(length > 0, length, 1)[:, None]
        unit[rows] = np.rint(block * GRID) / GRID
    return unit


def _candidates(padded: tf.Tensor, items: int, rows: slice, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact sorted keys of what float32 ranks first `[shape=(rows, count)]`, and the float32 similarity that nothing else exceeds."""
    with tf.device("CPU"):
        queries = padded[rows]
        values, columns = _top(tf.matmul(queries, padded, transpose_b=True), count)
        found = tf.cast(tf.gather(padded, columns), tf.float64)  # (rows, count, dims)
        keys = _key(tf.linalg.matvec(found, tf.cast(queries, tf.float64))).numpy()
    columns = columns.numpy()
    keys |= columns.astype(np.int64) << 2
    keys[(columns == np.arange(rows.start, rows.stop)[:, None]) | (columns >= items)] = LAST
    keys.sort(axis=1)
    return keys, values[:, -1].numpy().astype(np.float64)


def _top(values: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`tf.math.top_k` for long rows: what is among the greatest `count` lies in one of the `count` chunks with the greatest maxima.

    Args:
        values: columns a multiple of CHUNK, at least `count` chunks `[shape=(rows, columns)]`.
        count: `int > 0`.

    Returns:
        Values, greatest first, and their columns `[shape=(rows, count)]`; among equal values at the end it is open which are in.
    """
    chunks = tf.reshape(values, (values.shape[0], -1, CHUNK))
    best = tf.math.top_k(tf.reduce_max(chunks, -1), count, sorted=False).indices
    found = tf.reshape(tf.gather(chunks, best, batch_dims=1), (-1, count * CHUNK))
    values, places = tf.math.top_k(found, count)
    return values, tf.gather(best, places // CHUNK, batch_dims=1) * CHUNK + places % CHUNK


def _keys(wide: tf.Tensor, rows: np.ndarray) -> np.ndarray:
    """One int64 for every item: ascending, they are the ranking of a query; the query's own is LAST.

    The upper 32 bits are the similarity, greatest first, then 30 of the row number; the lowest two are free, for what is true of the item.

    Args:
        wide: `_unit` as float64 `[shape=(items, dims)]`.
        rows: queries `[shape=(queries,)]`.

    Returns:
        `[shape=(queries, items)]`.
    """
    with tf.device("CPU"):
        keys = _key(tf.matmul(tf.gather(wide, rows), wide, transpose_b=True))
        keys = (keys + 4 * tf.range(wide.shape[0], dtype=tf.int64)).numpy()
    keys[np.arange(len(rows)), rows] = LAST
    return keys


def _key(similarities: tf.Tensor) -> tf.Tensor:
    """Exact similarities as the upper half of keys."""
    return tf.cast(2 * ONE - tf.round(similarities * ONE), tf.int64) * (1 << 32)


def _similarities(keys: np.ndarray) -> np.ndarray:
    """Cosine similarities in keys; -2 in LAST."""
    return 2 - (keys >> 32) / ONE


def _items(keys: np.ndarray) -> np.ndarray:
    """Row numbers in keys."""
    return (keys & 0xFFFFFFFF) >> 2


def _on_cpu(array: np.ndarray) -> tf.Tensor:
    with tf.device("CPU"):
        return tf.constant(array)


def _blocks(rows: int, bytes_a_row: int) -> Iterator[slice]:
    """Slices of at most BLOCK_BYTES, or of one row."""
    step = max(1, BLOCK_BYTES // bytes_a_row)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


# --- figures of each query, from labels and neighbours ------------------------------------------------------------------------------------
def recall_at_k(labels: np.ndarray, neighbours: np.ndarray, k: int) -> np.ndarray:
    """Share of a query's labels that its k nearest cover together: `n(y_q & (y_1 | ... | y_k)) / n(y_q)`.

    Items with many labels cover by themselves: read it beside `random_recall_at_k`.

    Args:
        labels: 0/1 `[shape=(items, labels)]`.
        neighbours: row numbers, nearest first, the query left out `[shape=(items, >= k)]`.
        k: neighbours that count `int > 0`.

    Returns:
        `0 <= float64 <= 1`, nan for a query without labels `[shape=(items,)]`.

    Raises:
        ValueError: fewer than k neighbours.

    >>> recall_at_k(np.array([[1, 1], [1, 0], [0, 0]]), np.array([[1], [0], [0]]), k=1)  # 1 of 2 labels, 1 of 1, no label
    array([0.5, 1. , nan])
    """
    labels, neighbours = _first(labels, neighbours, k)
    covered = np.zeros_like(labels)
    for column in neighbours.T:
        covered |= labels[column]
    return _share((covered & labels).sum(axis=1), labels.sum(axis=1))


def precision_at_k(labels: np.ndarray, neighbours: np.ndarray, k: int) -> np.ndarray:
    """Share of the k nearest that have a label in common with the query.

    Args:
        labels: 0/1 `[shape=(items, labels)]`.
        neighbours: row numbers, nearest first, the query left out `[shape=(items, >= k)]`.
        k: neighbours that count `int > 0`.

    Returns:
        `0 <= float64 <= 1`, nan for a query without labels `[shape=(items,)]`.

    Raises:
        ValueError: fewer than k neighbours.

    >>> precision_at_k(np.array([[1, 1], [1, 0], [0, 0]]), np.array([[1, 2], [0, 2], [0, 1]]), k=2)
    array([0.5, 0.5, nan])
    """
    labels, neighbours = _first(labels, neighbours, k)
    hits = (jaccard(labels, neighbours) > 0).sum(axis=1)
    return np.where(labels.any(axis=1), hits / k, np.nan)


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
        neighbours: row numbers `[shape=(items, k)]`.

    Returns:
        `0 <= float64 <= 1` `[shape=(items, k)]`.

    >>> jaccard(np.array([[1, 1], [1, 0], [0, 0]]), np.array([[1], [0], [0]])).ravel()
    array([0.5, 0.5, 0. ])
    """
    labels = np.asarray(labels, bool)
    both = np.stack([(labels & labels[column]).sum(axis=1) for column in neighbours.T], axis=1)
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
def random_recall_at_k(labels: np.ndarray, k: int) -> np.ndarray:
    """Expectation of `recall_at_k` over random rankings.

    A label that m of the N - 1 others have is covered unless all k drawn are without: `1 - C(N-1-m, k) / C(N-1, k)`, mean over the query's
    labels.

    Args:
        labels: 0/1 `[shape=(items, labels)]`.
        k: neighbours that count `0 < int < items`.

    Returns:
        `0 <= float64 <= 1`, nan for a query without labels `[shape=(items,)]`.

    >>> random_recall_at_k(np.array([[1, 1], [1, 0], [0, 0]]), k=1)  # label 0: one of two others has it; label 1: none
    array([0.25, 0.5 ,  nan])
    """
    labels = np.asarray(labels, bool)
    others = len(labels) - 1
    drawn = np.arange(k)[:, None]
    without = np.maximum(others - (labels.sum(axis=0) - 1) - drawn, 0) / (others - drawn)  # (k, labels)
    return _share(labels @ (1 - without.prod(axis=0)), labels.sum(axis=1))


def random_map_at_r(positives: np.ndarray, others: int) -> np.ndarray:
    """Expectation of `map_at_r` over random rankings: `1/M [H_R + (R - 1) / (M - 1) (R - H_R)]`, `H_R = 1 + 1/2 + ... + 1/R`.

    Rank i is relevant with chance R / M, and then (i - 1) (R - 1) / (M - 1) of the i - 1 before it are, too.

    Args:
        positives: R of each query `[shape=(queries,)]`.
        others: M, the items that are ranked `int > 0`.

    Returns:
        `0 <= float64 <= 1`, nan where R is 0 `[shape=(queries,)]`.

    >>> random_map_at_r(np.array([1, 0]), others=4)
    array([0.25,  nan])
    """
    positives = np.asarray(positives)
    harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, others + 1))])[positives]
    expected = (harmonic + (positives - 1) / max(others - 1, 1) * (positives - harmonic)) / others
    return np.where(positives > 0, expected, np.nan)


def random_ndcg(gain_sum: np.ndarray, ideal: np.ndarray, others: int) -> np.ndarray:
    """Expectation of `ndcg` over random rankings: every rank gains the mean, so `gain_sum / M sum of discounts`, over the ideal.

    Args:
        gain_sum: of all others `[shape=(queries,)]`.
        ideal: the largest gains, largest first `[shape=(queries, ranks)]`.
        others: M, the items that are ranked `int > 0`.

    Returns:
        `0 <= float64 <= 1`, nan where nothing has a gain `[shape=(queries,)]`.

    >>> random_ndcg(np.array([1.0]), np.array([[1.0]]), others=4)
    array([0.25])
    """
    discounts = _discounts(ideal.shape[1])
    return _share(gain_sum / others * discounts.sum(), ideal @ discounts)


# --- all of them in one pass --------------------------------------------------------------------------------------------------------------
class Pass(NamedTuple):
    """What one pass over all pairs leaves of every query."""

    neighbours: np.ndarray  # the first DEPTH of the ranking, or all others (items, depth)
    positives: np.ndarray  # others with a label in common (items,)
    group_positives: np.ndarray  # others of the group
    label_only: np.ndarray  # others with a label in common and of another group or none
    map_at_r: np.ndarray
    group_map_at_r: np.ndarray
    gain_sum: np.ndarray  # Jaccard overlaps with all others
    ideal: np.ndarray  # the largest of them (items, depth)


def figures(embeddings: np.ndarray, labels: np.ndarray | None, groups: np.ndarray | None, resamples: int, seed: int) -> dict:
    """How well the nearest items agree with labels and groups, each beside its expectation under random rankings; ready for JSON.

    A figure is a mean over queries. Of labels, over queries that have one ("recall", "precision") and, for mAP@R and nDCG, share one with
    another item; of groups, over queries whose group has another member; of the graded nDCG, gain 2 for the group, else 1 for a common
    label, over queries that something has a gain for. With 8 others or fewer, K stops at all of them.

    The intervals hold the middle 95 % of means over queries drawn with replacement. The index stays as it is: they say how far the figure
    depends on which queries were asked, not how it would fall in a larger collection. A mean has no bias for a normal interval to correct,
    and percentiles stay between 0 and 1; all figures share the draws.

    Every query's ranking is sorted as far as its R, on all cores: time grows with the square of the items, and memory is a few times
    BLOCK_BYTES plus four times the embeddings in float32.

    Args:
        embeddings: as `nearest` `[shape=(items >= 2, dims)]`.
        labels: 0/1 `[shape=(items, labels)]`; none: no item has a label.
        groups: artist, instrument or track `int >= 0`, -1: of none `[shape=(items,)]`; none: no groups.
        resamples: bootstrap draws `int >= 0`; 0: the intervals are None.
        seed: of the draws `int >= 0`.

    Returns:
        "recall_at_K", "precision_at_K" for K = 1, 2, 4, 8; "map_at_r", "ndcg_at_8" (Jaccard gain); "group_recall_at_1", "group_map_at_r",
        "graded_ndcg_at_8": None where no query has the figure, and all three of groups None where no group has two members.
        Each with "..._random", its expectation by chance, and "..._interval", [low, high].
        "queries": items with a label; "unlabelled": those without; "alone": queries that share no label with another item;
        "group_queries": items whose group has another member.

    Raises:
        ValueError: embeddings that are not finite, shapes that differ, labels other than 0 and 1, groups that are no integers.
    """
    unit = _unit(embeddings)
    items = len(unit)
    labels = np.zeros((items, 0), bool) if labels is None else _checked_labels(labels, items)
    groups = np.full(items, -1) if groups is None else np.asarray(groups)
    if items < 2:
        raise ValueError(f"embeddings must be of 2 items or more, got {items}")
    if groups.shape != (items,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(f"groups must be integers of shape ({items},), got {groups.dtype} of {groups.shape}")
    if resamples < 0:
        raise ValueError(f"resamples must be >= 0, got {resamples!r}")
    found = _pass(unit, labels, groups)
    others, depth = items - 1, found.neighbours.shape[1]
    labelled, grouped = labels.any(axis=1), found.group_positives > 0

    per_query: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of every query the figure and its expectation, nan where it is left out
    for k in KS:
        near = min(k, depth)
        per_query[f"recall_at_{k}"] = recall_at_k(labels, found.neighbours, near), random_recall_at_k(labels, near)
    chance = np.where(labelled, found.positives / others, np.nan)
    for k in KS:
        per_query[f"precision_at_{k}"] = precision_at_k(labels, found.neighbours, min(k, depth)), chance
    per_query["map_at_r"] = found.map_at_r, random_map_at_r(found.positives, others)
    gains = jaccard(labels, found.neighbours).astype(np.float32)  # as the ideal: 1/3 is to be 1/3 on both sides
    per_query[f"ndcg_at_{DEPTH}"] = ndcg(gains, found.ideal), random_ndcg(found.gain_sum, found.ideal, others)

    same = (groups[found.neighbours] == groups[:, None]) & (groups >= 0)[:, None]
    per_query["group_recall_at_1"] = np.where(grouped, same[:, 0], np.nan), np.where(grouped, found.group_positives / others, np.nan)
    per_query["group_map_at_r"] = found.group_map_at_r, random_map_at_r(found.group_positives, others)
    rank = np.arange(depth)
    ideal = 1.0 * (rank < found.group_positives[:, None]) + (rank < (found.group_positives + found.label_only)[:, None])
    graded = ndcg(np.where(same, 2.0, gains > 0), ideal), random_ndcg(2.0 * found.group_positives + found.label_only, ideal, others)
    per_query[f"graded_ndcg_at_{DEPTH}"] = graded if grouped.any() else (np.full(items, np.nan),) * 2

    values, expected = (np.stack(columns, axis=1) for columns in zip(*per_query.values(), strict=True))  # (items, figures)
    intervals = _intervals(values, resamples, seed)
    report: dict = {}
    for name, value, chance, interval in zip(per_query, _means(values), _means(expected), intervals, strict=True):
        report |= {name: value, f"{name}_random": chance, f"{name}_interval": interval}
    queries = int(labelled.sum())
    alone = int((labelled & (found.positives == 0)).sum())
    return report | {"queries": queries, "unlabelled": items - queries, "alone": alone, "group_queries": int(grouped.sum())}


def _checked_labels(labels: np.ndarray, items: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 2 or len(labels) != items:
        raise ValueError(f"labels must be of shape ({items}, labels), got {labels.shape}")
    found = labels.astype(bool)
    if not np.array_equal(found, labels):
        raise ValueError(f"labels must be 0 or 1, got {labels[found != labels][0]}")
    return found


def _pass(unit: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Pass:
    """Similarities and overlaps of a block of queries at a time; the sorting of its rows on all cores."""
    items = len(unit)
    depth = min(DEPTH, items - 1)
    wide = _on_cpu(unit.astype(np.float64))
    padding = max(-items % CHUNK, DEPTH * CHUNK - items)  # `_top` wants whole chunks, and enough of them
    padded = _on_cpu(np.pad(labels, ((0, padding), (0, 0))).astype(np.float32))
    parts = []
    with concurrent.futures.ThreadPoolExecutor(_cores()) as pool:
        for block in _blocks(items, 8 * items):
            rows = np.arange(block.start, block.stop)
            keys = _keys(wide, rows)
            gains, ideal = _overlaps(padded, rows)
            shares = [slice(*pair) for pair in _even(len(rows))]
            ranked = pool.map(lambda share: _rank(keys[share], gains[share, :items], rows[share], groups, depth), shares)  # noqa: B023
            columns = [np.concatenate(column) for column in zip(*ranked, strict=True)]
            parts.append((*columns, ideal[:, :depth]))
    return Pass(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _overlaps(padded: tf.Tensor, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Jaccard overlap of queries with every item, 0 with themselves `[shape=(rows, items)]`, and its largest DEPTH."""
    with tf.device("CPU"):
        queries = tf.gather(padded, rows)
        both = tf.matmul(queries, padded, transpose_b=True)  # whole numbers: exact in float32
        either = tf.reduce_sum(queries, 1, keepdims=True) + tf.reduce_sum(padded, 1) - both
        own = tf.range(padded.shape[0], dtype=tf.int64) == rows[:, None]
        gains = tf.where(own, 0.0, both / tf.maximum(either, 1.0))
        return gains.numpy(), _top(gains, DEPTH)[0].numpy().astype(np.float64)


def _rank(keys: np.ndarray, gains: np.ndarray, rows: np.ndarray, groups: np.ndarray, depth: int) -> tuple[np.ndarray, ...]:
    """The fields of `Pass` but the last, of some queries; works on one core, and in `keys`."""
    shared = gains > 0
    same = (groups == groups[rows, None]) & (groups[rows, None] >= 0)
    same[np.arange(len(rows)), rows] = False
    keys |= shared
    keys |= same.astype(np.int8) << 1
    positives, group_positives = shared.sum(axis=1), same.sum(axis=1)
    label_only = (shared & ~same).sum(axis=1)
    precisions = np.empty((2, len(rows)))
    for number, row in enumerate(keys):
        counts = positives[number], group_positives[number]
        needed = max(depth, *counts)  # R is all that mAP@R looks at: most of a sort is saved
        if 2 * needed < len(row):
            row.partition(needed)
            row = row[:needed]
        row.sort()
        for bit, count in enumerate(counts):
            precisions[bit, number] = _average_precision(row[:count] >> bit & 1, count)
    return _items(keys[:, :depth]).astype(np.int32), positives, group_positives, label_only, *precisions, gains.sum(axis=1, dtype=np.float64)


def _even(rows: int) -> Iterator[tuple[int, int]]:
    """A share of the rows for every core, (start, stop)."""
    edges = np.linspace(0, rows, min(rows, _cores()) + 1).astype(int).tolist()
    return zip(edges[:-1], edges[1:], strict=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _means(values: np.ndarray) -> list[float | None]:
    """Mean of every column over its numbers; None where there is none."""
    counts = (~np.isnan(values)).sum(axis=0)
    return [float(total / count) if count else None for total, count in zip(np.nansum(values, axis=0), counts, strict=True)]


def _intervals(values: np.ndarray, resamples: int, seed: int) -> list[list[float] | None]:
    """Middle 95 % of the columns' means over drawn rows, [low, high]; None without resamples, or without numbers.

    Args:
        values: figures of the queries, nan where one has none `[shape=(queries, figures)]`.
        resamples: draws `int >= 0`.
        seed: of the draws `int >= 0`.
    """
    valid = ~np.isnan(values)
    both = np.hstack([np.where(valid, values, 0), valid])
    random = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for number in range(resamples):
        weights = np.bincount(random.integers(len(values), size=len(values)), minlength=len(values))
        means[number] = _share(*np.split(weights @ both, 2))
    columns = [column[~np.isnan(column)] for column in means.T]  # a resample without any of the figure's queries says nothing
    return [np.percentile(column, [2.5, 97.5]).tolist() if len(column) else None for column in columns]
