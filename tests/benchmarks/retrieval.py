"""Recall@1, 2, 4 and 8 of a collection: neighbours and figure, from embeddings and labels in memory.

`python -m tests.benchmarks.retrieval` (`--items 25000 100000` for the larger size too, `--dims 256`)

Equal on all sides: unit embeddings in float32 that know a little of the labels, 50 of them, of which an item has 1 to 3; every item a query against
all others, its own row left out by its number. Peers are faiss' IndexFlatIP with the query's own row asked for and dropped, numpy (a product of 512
queries, argpartition, a sort of the nine), and the loop that the reports print: a query at a time, a sort of all distances, sets of labels. The
loop is timed on a few queries and its seconds are multiplied up to all. numpy and faiss use all cores for the product, the loop too.

The figures of every side must agree to five digits, or the run stops. Ours settles in exact arithmetic what float32 leaves open and the others do
not, so that a neighbour in some ten thousand differs, among items that are equally far.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydantic

from tests.benchmarks import common
from tfmusic import retrieval, search
from tfmusic.config import InputError

try:
    import faiss
except ImportError:
    faiss = None

LABELS, ROWS = 50, 512
KS, K = retrieval.KS, retrieval.KS[-1]
BARS = {25_000: 1.2, 100_000: 1.5}  # against faiss


class Sizes(common.Sizes):
    """Recall@K against faiss, numpy and a loop."""

    items: tuple[int, ...] = pydantic.Field((25_000,), min_length=1, description="Sizes of collections; 100000 takes minutes.")
    dims: int = pydantic.Field(128, gt=0, description="Of an embedding.")
    queries: int = pydantic.Field(50, gt=0, description="Queries of the loop, whose time is extrapolated.")
    report: bool = pydantic.Field(False, description="Times `figures`, the whole report with intervals, too; it has no peer.")
    rounds: int = pydantic.Field(3, gt=0, description="Pairs; figures and ratios are medians over them.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Sizes:
        if min(self.items) <= K:
            raise ValueError(f"--items must be > {K}, the neighbours, got {min(self.items)}")
        return self


def measure(sizes: Sizes, directory: Path) -> list[common.Row]:
    """Rows of every size against every peer."""
    if faiss is None:
        print("faiss is not installed: pip install faiss-cpu", file=sys.stderr)
    return [row for items in sizes.items for row in _rows(items, sizes)]


def _rows(items: int, sizes: Sizes) -> list[common.Row]:
    embeddings, labels = _collection(items, sizes.dims)
    embeddings.setflags(write=False)
    looped, tags = min(sizes.queries, items), [set(np.flatnonzero(row)) for row in labels]
    sides = {
        "ours": lambda: _recalls(labels, search.nearest(embeddings, K)),
        "numpy": lambda: _recalls(labels, _numpy(embeddings)),
        "faiss": lambda: _recalls(labels, _faiss(embeddings)),
        "loop": lambda: _loop(embeddings, tags, looped),
    }
    if faiss is None:
        del sides["faiss"]
    found: dict[str, list[float]] = {}
    runs = {side: _timed(side, function, found) for side, function in sides.items()}
    search.nearest(embeddings[: min(items, 2000)], K)  # starts threads
    seconds = {side: figures["wall_s"] for side, figures in common.alternate(runs, sizes.rounds).items()}
    seconds["loop"] = [once * items / looped for once in seconds["loop"]]
    _agree(found, [float(figure[:looped].mean()) for figure in _per_query(labels, search.nearest(embeddings, K))])

    names = {"faiss": "faiss IndexFlatIP", "numpy": "numpy, argpartition", "loop": f"the reports' loop, from {looped} queries"}
    what = f"Recall@1/2/4/8, {items:,} x {sizes.dims}"
    rows = [
        common.compare(what, "s", seconds["ours"], names[side], seconds[side], higher=False, bar=BARS.get(items) if side == "faiss" else None)
        for side in names
        if side in seconds
    ]
    if sizes.report:
        report_s = common.clocked(lambda: retrieval.figures(embeddings, labels, None, 500, 0))["wall_s"]
        rows.append(common.Row(f"figures(), {items:,} x {sizes.dims}", "s", report_s))
    return rows


def _collection(items: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings and 0/1 labels."""
    random = np.random.default_rng(0)
    labels = np.zeros((items, LABELS), bool)
    labels[np.arange(items)[:, None], random.integers(LABELS, size=(items, 3))] = True
    embeddings = random.normal(size=(items, dims)) + labels @ random.normal(size=(LABELS, dims))
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32), labels


def _timed(side: str, function: Callable[[], list[float]], found: dict[str, list[float]]) -> Callable[[], dict[str, float]]:
    """A function that times a side, and keeps what it found."""
    return lambda: common.clocked(lambda: found.update({side: function()}))


def _agree(found: dict[str, list[float]], ours_of_the_loop: list[float]) -> None:
    """Stops where a side's figures differ from ours, the loop's from ours over its few queries."""
    for side, figures in found.items():
        expected = ours_of_the_loop if side == "loop" else found["ours"]
        if np.abs(np.subtract(figures, expected)).max() > 1e-5:
            raise InputError(f"recall of {side} must be {expected}, as ours, got {figures}")


def _per_query(labels: np.ndarray, neighbours: np.ndarray) -> list[np.ndarray]:
    return [retrieval.recall_at_k(labels, neighbours, k) for k in KS]


def _recalls(labels: np.ndarray, neighbours: np.ndarray) -> list[float]:
    return [float(np.nanmean(figure)) for figure in _per_query(labels, neighbours)]


def _numpy(embeddings: np.ndarray) -> np.ndarray:
    items = len(embeddings)
    neighbours = np.empty((items, K), np.int64)
    for start in range(0, items, ROWS):
        rows = np.arange(start, min(start + ROWS, items))
        similarities = embeddings[rows] @ embeddings.T
        similarities[np.arange(len(rows)), rows] = -np.inf
        best = np.argpartition(similarities, items - K, axis=1)[:, items - K :]
        order = np.argsort(-np.take_along_axis(similarities, best, axis=1), axis=1)
        neighbours[rows] = np.take_along_axis(best, order, axis=1)
    return neighbours


def _faiss(embeddings: np.ndarray) -> np.ndarray:
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    found = index.search(embeddings, K + 1)[1]
    others = found != np.arange(len(found))[:, None]
    others[others.all(axis=1), -1] = False  # the query's own is not among them: the last goes
    return found[others].reshape(-1, K)


def _loop(embeddings: np.ndarray, tags: list[set], queries: int) -> list[float]:
    """The mean recall of the first queries, as the reports' code computes it."""
    recalls = []
    for query in range(queries):
        distances = 1 - embeddings @ embeddings[query]
        order = [item for item in np.argsort(distances)[: K + 1] if item != query]
        recalls.append([len(tags[query] & set().union(*(tags[item] for item in order[:k]))) / len(tags[query]) for k in KS])
    return np.mean(recalls, axis=0).tolist()


if __name__ == "__main__":
    common.run(Sizes, measure)
