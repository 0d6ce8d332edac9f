"""Exact nearest neighbours by cosine similarity, and whole rankings as sorted integers.

How alike two items are is computed without rounding: rows of unit length are rounded to multiples of 2^-24, so that their products and every
partial sum fit a float64, and no order of summation, block size, thread or processor changes a bit. Equal rows tie exactly, and a tie goes to
the lower row number. The query is left out by its row number, wherever it stands among duplicates.

Everything runs on the CPU and in blocks of rows: a GPU's float32 may be TF32, whose ten bits are too few here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

BLOCK_BYTES = 1 << 26  # of similarities; keys, gains and copies beside them come to a few times as much
PRODUCT_BYTES = 1 << 28  # of a float32 product without much beside it: larger ones run nearer to the processor's limit
CHUNK = 32  # columns whose maximum is looked at first
SPARE = 7  # candidates of `nearest` beyond those asked for: so many duplicates of a row cost nothing
GRID = 2.0**24  # of the unit rows
ONE = 1 << 29  # similarity 1 in a key; its step of 2e-9 is finer than what the rows' own rounding leaves
LAST = np.iinfo(np.int64).max  # key behind every item's


def nearest(embeddings: np.ndarray, k: int) -> np.ndarray:
    """The k items most alike to each item, by cosine similarity; exact.

    A float32 product is right where every similarity of the k nearest is ahead of the next by more than float32 can err, twice
    `(dims + 2) 2^-24`. Of the few rows that this leaves open, k + 8 candidates are compared again exactly; a row is settled when its k-th is
    ahead of everything that was not proposed. What is still left, rows among many near duplicates, is ranked exactly as a whole.

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
    unit = unit_rows(embeddings)
    items, dims = unit.shape
    if not 0 < k < items:
        raise ValueError(f"k must be in 1..{items - 1}, less than the items, got {k!r}")
    neighbours = np.empty((items, k), np.int32)
    settled = np.zeros(items, bool)
    candidates = k + 1 + SPARE
    if items >= candidates * CHUNK:
        padded = on_cpu(np.pad(unit, ((0, -items % CHUNK), (0, 0))))
        error = (dims + 2) * 2.0**-24 + 2 / ONE
        for rows in blocks(items, 4 * items, PRODUCT_BYTES):
            neighbours[rows], settled[rows] = _quick(padded, items, rows, k, error)
        unsettled = np.flatnonzero(~settled)
        for places in blocks(len(unsettled), 4 * items + 12 * candidates * dims):  # float32 similarities; candidates, gathered and widened
            rows = unsettled[places]
            keys, unproposed = _candidates(padded, items, rows, candidates)
            neighbours[rows] = items_of(keys[:, :k])
            settled[rows] = _similarities(keys[:, k - 1]) > unproposed + error
    unsettled = np.flatnonzero(~settled)
    if len(unsettled):
        wide = on_cpu(unit.astype(np.float64))
        for places in blocks(len(unsettled), 8 * items):
            keys = np.partition(keys_of(wide, unsettled[places]), k - 1, axis=1)[:, :k]
            neighbours[unsettled[places]] = items_of(np.sort(keys, axis=1))
    return neighbours


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Rows of length 1, zero vectors of 0, in multiples of 2^-24, which float32 holds exactly `[shape=(items, dims)]`."""
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ValueError(f"embeddings must be of shape (items, dims), got {embeddings.shape}")
    unit = np.empty(embeddings.shape, np.float32)
    for rows in blocks(len(embeddings), 8 * embeddings.shape[1]):
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


def _quick(padded: tf.Tensor, items: int, rows: slice, k: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest by float32, and whether no error of it can have changed them or their order `[shape=(rows, k)]`, `[shape=(rows,)]`."""
    with tf.device("CPU"):
        values, columns = (tensor.numpy() for tensor in top(tf.matmul(padded[rows], padded, transpose_b=True), k + 2))
    own = columns == np.arange(rows.start, rows.stop)[:, None]
    others = np.argsort(own, axis=1, kind="stable")[:, : k + 1]  # the query's own to the end
    values, columns = np.take_along_axis(values, others, axis=1), np.take_along_axis(columns, others, axis=1)
    apart = values[:, :-1] - values[:, 1:] > 2 * error
    return columns[:, :k], own.any(axis=1) & apart.all(axis=1) & (columns[:, :k] < items).all(axis=1)


def _candidates(padded: tf.Tensor, items: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact sorted keys of what float32 ranks first `[shape=(rows, count)]`, and the float32 similarity that nothing else exceeds."""
    with tf.device("CPU"):
        queries = tf.gather(padded, rows)
        values, columns = top(tf.matmul(queries, padded, transpose_b=True), count)
        found = tf.cast(tf.gather(padded, columns), tf.float64)  # (rows, count, dims)
        keys = _key(tf.linalg.matvec(found, tf.cast(queries, tf.float64))).numpy()
    columns = columns.numpy()
    keys |= columns.astype(np.int64) << 2
    keys[(columns == rows[:, None]) | (columns >= items)] = LAST
    keys.sort(axis=1)
    return keys, values[:, -1].numpy().astype(np.float64)


def top(values: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
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


def keys_of(wide: tf.Tensor, rows: np.ndarray) -> np.ndarray:
    """One int64 for every item: ascending, they are the ranking of a query; the query's own is LAST.

    The upper 32 bits are the similarity, greatest first, then 30 of the row number; the lowest two are free, for what is true of the item.

    Args:
        wide: `unit_rows` as float64 `[shape=(items, dims)]`.
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


def items_of(keys: np.ndarray) -> np.ndarray:
    """Row numbers in keys."""
    return (keys & 0xFFFFFFFF) >> 2


def on_cpu(array: np.ndarray) -> tf.Tensor:
    with tf.device("CPU"):
        return tf.constant(array)


def blocks(rows: int, bytes_a_row: int, block_bytes: int | None = None) -> Iterator[slice]:
    """Slices of at most so many bytes, BLOCK_BYTES unless given, or of one row."""
    step = max(1, (block_bytes or BLOCK_BYTES) // bytes_a_row)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
