"""Figures as people read them: their names, a number with its interval, rows of text. No TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Rows = Sequence[Sequence[str]]

KS = (1, 2, 4, 8)  # those of `retrieval.KS`, which needs TensorFlow
OF_LABELS = {
    **{f"recall_at_{k}": f"Recall@{k}" for k in KS}, **{f"precision_at_{k}": f"precision@{k}" for k in KS},
    "map_at_r": "mAP@R", "ndcg_at_8": "nDCG@8 (Jaccard gain)",
}  # fmt: skip
RETRIEVAL = {
    **OF_LABELS, **{f"filtered_{name}": f"{text}, other groups only" for name, text in OF_LABELS.items()},
    "group_recall_at_1": "nearest of the same group", "group_map_at_r": "mAP@R of groups", "graded_ndcg_at_8": "nDCG@8 (group 2, tag 1)",
}  # fmt: skip
LEARNT = {  # all other figures that a run may have, in the order of its report
    "roc_auc": "ROC-AUC", "map": "PR-AUC (mAP)", "d_prime": "d'", "lwlrap": "lwlrap",
    "family_roc_auc": "ROC-AUC of families", "family_map": "mAP of families",
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "subset_accuracy": "all labels of a track right",
    "f1_macro": "F1, macro", "f1_micro": "F1, micro",
    "r2": "R2", "spearman": "Spearman", "pearson": "Pearson", "mse": "MSE",
}  # fmt: skip
NAMES = LEARNT | RETRIEVAL


def of_task(task: str) -> list[str]:
    """The figures that are printed of a task: every net has an embedding, whose retrieval is of interest where that was learnt."""
    return [*(NAMES if task == "similarity" else LEARNT)]


def number(value: float | None) -> str:
    """Three decimals; four digits of what is large, such as a squared error in Hz.

    >>> number(0.12345), number(123456.7), number(None)
    ('0.123', '1.235e+05', 'none')
    """
    if value is None or math.isnan(value):
        return "none"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """A figure, and in brackets its interval, if it has one.

    >>> with_interval(0.5, [0.4, 0.6]), with_interval(0.5, None)
    ('0.500 [0.400, 0.600]', '0.500')
    """
    return number(value) + (f" [{number(interval[0])}, {number(interval[1])}]" if interval and number(value) != "none" else "")


def of_figures(columns: Mapping[str, Mapping], names: Sequence[str]) -> list[list[str]]:
    """A heading and a row for each figure that one of the columns has.

    Args:
        columns: heading to figures, with their "..._interval" beside them.
        names: of the figures, keys of `NAMES`.

    >>> of_figures({"test": {"map": 0.5, "map_interval": [0.4, 0.6]}}, ["map"])
    [['', 'test'], ['PR-AUC (mAP)', '0.500 [0.400, 0.600]']]
    """

    def cell(figures: Mapping, name: str) -> str:
        return with_interval(figures[name], figures.get(f"{name}_interval")) if name in figures else "-"

    present = [name for name in names if any(name in figures for figures in columns.values())]
    return [["", *columns], *([NAMES[name], *(cell(figures, name) for figures in columns.values())] for name in present)]


def text(rows: Rows) -> str:
    """The rows with their columns aligned.

    >>> print(text([["a", "bc"], ["def", "g"]]))
    a    bc
    def  g
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def quick(limit: int | None) -> list[str]:
    """The line that keeps figures of a few tracks from being taken for those of all; none: all were looked at.

    >>> quick(None)
    []
    """
    if limit is None:
        return []
    return [
        f"A quick look (--limit {limit}): trained, chosen and tested on {limit} tracks of each split at most. These are not the records' figures."
    ]
