"""How far to trust a figure: it is computed again on resamples of the test set, which only re-weigh the tracks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from statistics import NormalDist

import numpy as np

BLOCK = 1 << 18  # weights that are drawn at a time: bounds the memory, and stays in the processor's cache


def draws(tracks: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Resamples of as many tracks as there are, with replacement (Efron 1979), a block of rows at a time.

    Args:
        tracks: `int > 0`.
        resamples: rows altogether `int >= 0`.
        seed: `int >= 0`; how the rows are cut into blocks changes none of them.

    Yields:
        Times that each track was drawn `int64 >= 0`, a row sums to `tracks` `[shape=(rows, tracks)]`.

    >>> [weights.sum(axis=1).tolist() for weights in draws(tracks=5, resamples=2, seed=0)]
    [[5, 5]]
    """
    random = np.random.default_rng(seed)
    block = max(1, BLOCK // tracks)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = random.integers(tracks, size=(rows, tracks)) + tracks * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)  # multinomial; numpy's own is slower


def cumulative(weights: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Weight of the first 0, 1, 2, ... of these items `[shape=(resamples, len(items) + 1)]`."""
    line = np.zeros((len(weights), len(items) + 1), np.int64)
    np.cumsum(weights[:, items], axis=1, out=line[:, 1:])
    return line


def normal_interval(estimate: float, resampled: np.ndarray, level: float = 0.95, bounds: tuple[float, float] = (0, 1)) -> tuple[float, float]:
    """The bias-corrected normal interval of a figure (Davison and Hinkley 1997, chapter 5; R's `boot.ci`, type "norm").

    `(2 estimate - mean(resampled)) -+ z std(resampled)`, cut at the bounds, z the (1 + level) / 2 quantile of the standard normal. A positive
    counts itself among what it finds, so average precision reads high on few positives; a resample holds copies of positives, and reads
    high once more. `mean(resampled) - estimate` measures that and is taken off; the percentiles of the resamples would keep both.

    Args:
        estimate: figure of the test set.
        resampled: figures of its resamples; nan, a resample that has none, is left out `[shape=(resamples,)]`.
        level: `0 < float < 1`.
        bounds: least and greatest value that the figure can take.

    Returns:
        (low, high); nan without an estimate or resamples.

    >>> np.round(normal_interval(0.5, np.array([0.5, 0.7])), 3)  # .4 -+ 1.96 * .1
    array([0.204, 0.596])
    """
    resampled = np.asarray(resampled, np.float64)
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(estimate) or not len(resampled):
        return float("nan"), float("nan")
    centre, reach = 2 * estimate - resampled.mean(), NormalDist().inv_cdf((1 + level) / 2) * resampled.std()
    low, high = np.clip([centre - reach, centre + reach], *bounds).tolist()
    return low, high


def intervals(
    estimates: Mapping[Hashable, float],
    resample: Callable[[np.ndarray], Mapping[Hashable, np.ndarray]],
    tracks: int,
    resamples: int,
    seed: int,
    level: float = 0.95,
    bounds: Mapping[Hashable, tuple[float, float]] | None = None,
) -> dict[Hashable, tuple[float, float]]:
    """`normal_interval` of several figures, all from the same resamples.

    Args:
        estimates: figures of the test set.
        resample: times that each track counts `[shape=(rows, tracks)]` to the same figures `[shape=(rows,)]`, nan where there is none.
        tracks: in the test set `int > 0`.
        resamples: `int >= 0`.
        seed: of the draws `int >= 0`.
        level: `0 < float < 1`.
        bounds: least and greatest value of the figures that are not between 0 and 1.

    Returns:
        (low, high) of each figure, nan where there is none.

    Raises:
        ValueError: `resamples` or `level` out of range.

    >>> values = np.array([0.1, 0.5, 0.6])
    >>> intervals({"mean": 0.4}, lambda weights: {"mean": weights @ values / 3}, tracks=3, resamples=500, seed=0)["mean"]
    (0.14862236270154516, 0.633777637298455)
    """
    if resamples < 0:
        raise ValueError(f"resamples must be >= 0, got {resamples!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    blocks = [resample(weights) for weights in draws(tracks, resamples, seed)]
    resampled = {name: np.concatenate([block[name] for block in blocks]) if blocks else np.zeros(0) for name in estimates}
    return {name: normal_interval(estimates[name], resampled[name], level, (bounds or {}).get(name, (0, 1))) for name in estimates}


def for_json(value: float | np.ndarray | tuple[float, float]) -> float | list | None:
    """nan to None; an interval without bounds, and every entry of an array that is nan, likewise.

    >>> for_json(np.array([0.5, np.nan])), for_json((np.nan, np.nan)), for_json(np.nan), for_json((0.1, 0.3))
    ([0.5, None], None, None, [0.1, 0.3])
    """
    if isinstance(value, tuple):
        return None if np.isnan(value).any() else list(value)
    values = [None if np.isnan(one) else float(one) for one in np.ravel(value)]
    return values if np.ndim(value) else values[0]
