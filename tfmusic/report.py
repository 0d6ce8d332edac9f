"""report.html: one page with the figures, curves and pictures of a run, and the table that the program prints."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from tfmusic import files, run, schema
from tfmusic.tasks import TASKS

matplotlib.rcParams["text.parse_math"] = False  # labels may hold dollar signs
NAMES = {"roc_auc": "ROC-AUC", "map": "PR-AUC (mAP)"}
STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
td { padding: .2em .8em; border-bottom: 1px solid #ddd }
img { max-width: 100% }
"""


def write(run_directory: Path | str) -> str:
    """Writes report.html of an evaluated run.

    Args:
        run_directory: with metrics.json and history.csv.

    Returns:
        The table of test figures as text.
    """
    directory = Path(run_directory)
    info = run.read(directory)
    figures = json.loads((directory / run.METRICS).read_text("utf-8"))
    history = _history(directory / run.HISTORY)
    manifest = schema.read_manifest(info.records)
    pictures = {
        "Training": curves(history, info.experiment.fit.monitor),
        "ROC-AUC of each tag": per_label(figures["test"], "roc_auc", chance=0.5),
        "Average precision of each tag": per_label(figures["test"], "map", chance=None),
        "Labels": label_counts(manifest),
    }
    watched = TASKS[info.experiment.task].watched
    rows = table(figures, watched)
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows)
    body = [f"<h1>{html.escape(info.experiment.recipe)}</h1>", f"<table>{cells}</table>"]
    test = figures["test"]
    body.append(
        f"<p>Means over labels, of {test['tracks']} whole test tracks ({test['windows']} windows, one every {test['hop_s']:g} s, averaged); "
        f"{test['absent']} of {test['classes']} labels have no positive there and are left out. Brackets: 95 % bootstrap interval over tracks.</p>"
    )
    for title, figure in pictures.items():
        body.append(f"<h2>{title}</h2><img alt='{title}' src='data:image/png;base64,{_png(figure)}'>")
    body.append(f"<h2>Settings</h2><pre>{html.escape(info.model_dump_json(indent=1))}</pre>")
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(directory.name)}</title><style>{STYLE}</style>{''.join(body)}\n"
    files.write_text(directory / run.REPORT, page)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def table(figures: dict, watched: tuple[str, ...]) -> list[list[str]]:
    """Rows of text: a heading, then a row per split with each figure and its interval."""
    rows = [["split", "tracks", *(NAMES[name] for name in watched)]]
    for split, values in figures.items():
        rows.append([split, str(values["tracks"]), *(_with_interval(values[name], values[f"{name}_interval"]) for name in watched)])
    return rows


def curves(history: list[dict[str, float]], monitor: str) -> Figure:
    """Loss and validation figures over epochs; the best epoch is marked."""
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    axes[0].plot(epochs, [row["loss"] for row in history], marker=".")
    axes[0].set(xlabel="epoch", ylabel="training loss")
    for name in (key for key in (history[0] if history else {}) if key.startswith("val_")):
        axes[1].plot(epochs, [row[name] for row in history], label=name, marker=".")
    if history:
        best = max(history, key=lambda row: row[monitor])
        axes[1].axvline(best["epoch"] + 1, color="grey", linestyle=":", label=f"best {monitor}")
        axes[1].legend()
    axes[1].set(xlabel="epoch", ylabel="validation, whole tracks", ylim=(0, 1))
    return figure


def per_label(figures: dict, name: str, chance: float | None) -> Figure:
    """One bar per label, best on top, with the label's number of positives; chance as a line, or for average precision as a mark each."""
    shares = [count / figures["tracks"] for count in figures["positives"]]
    bars = [
        (value, f"{label} ({count})", share)
        for label, value, count, share in zip(figures["labels"], figures[f"{name}_per_class"], figures["positives"], shares, strict=True)
        if value is not None
    ]
    bars.sort()
    figure = Figure(figsize=(8, 1 + 0.22 * len(bars)), layout="constrained")
    axes = figure.subplots()
    axes.barh([label for _, label, _ in bars], [value for value, _, _ in bars])
    if chance is None:
        axes.plot([share for _, _, share in bars], range(len(bars)), "k|", markersize=9, label="chance")
    else:
        axes.axvline(chance, color="black", linestyle=":", label="chance")
    axes.set(xlim=(0, 1), xlabel=NAMES[name])
    axes.margins(y=0.01)
    axes.legend(loc="lower right")
    return figure


def label_counts(manifest: schema.Manifest) -> Figure:
    """Tracks of each label in each split, most frequent on top."""
    total = [sum(split.label_counts[i] for split in manifest.splits.values()) for i in range(len(manifest.labels))]
    order = sorted(range(len(total)), key=lambda i: total[i])
    figure = Figure(figsize=(8, 1 + 0.22 * len(order)), layout="constrained")
    axes = figure.subplots()
    left = [0] * len(order)
    for name, split in manifest.splits.items():
        counts = [split.label_counts[i] for i in order]
        axes.barh([manifest.labels[i] for i in order], counts, left=left, label=f"{name} ({split.tracks} tracks, {manifest.hours(name):.2f} h)")
        left = [before + count for before, count in zip(left, counts, strict=True)]
    axes.margins(y=0.01)
    axes.set(xlabel="tracks")
    axes.legend(loc="lower right")
    return figure


def _history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _with_interval(value: float | None, interval: list | None) -> str:
    if value is None:
        return "none"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _png(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return base64.b64encode(content.getvalue()).decode()
