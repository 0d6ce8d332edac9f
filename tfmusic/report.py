"""report.html: one page with the figures, curves, pictures and sounds of a run; the same for TensorBoard; and the table that is printed."""

from __future__ import annotations

import base64
import contextlib
import csv
import html
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfmusic import audio, exhibits, files, retrieval, run, schema
from tfmusic.exhibits import Embedded, Exhibit
from tfmusic.tasks import TASKS

LABEL_NAMES = {
    **{f"recall_at_{k}": f"Recall@{k}" for k in retrieval.KS}, **{f"precision_at_{k}": f"precision@{k}" for k in retrieval.KS},
    "map_at_r": "mAP@R", "ndcg_at_8": "nDCG@8 (Jaccard gain)",
}  # fmt: skip
NAMES = {
    "roc_auc": "ROC-AUC", "map": "PR-AUC (mAP)",
    **LABEL_NAMES, **{f"filtered_{name}": f"{text}, other groups only" for name, text in LABEL_NAMES.items()},
    "group_recall_at_1": "nearest of the same group", "group_map_at_r": "mAP@R of groups", "graded_ndcg_at_8": "nDCG@8 (group 2, tag 1)",
}  # fmt: skip
STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color-scheme: light dark }
td { padding: .2em .8em; border-bottom: 1px solid #8884 }
img { max-width: 100% }
audio { height: 2em; vertical-align: middle }
"""


def write(run_directory: Path | str) -> str:
    """Writes report.html of an evaluated run, and its pictures and sounds for TensorBoard.

    Args:
        run_directory: with metrics.json, history.csv and embeddings.npz.

    Returns:
        The table of test figures as text.
    """
    directory = Path(run_directory)
    info = run.read(directory)
    figures = json.loads((directory / run.METRICS).read_text("utf-8"))
    manifest = schema.read_manifest(info.records)
    watched = tuple(name for name in TASKS[info.experiment.task].watched if name in figures["test"])
    shown = [Exhibit("Training", figure=curves(_history(directory / run.HISTORY), info.experiment.fit.monitor, watched))]
    if "map" in figures["test"]:
        shown.append(Exhibit("ROC-AUC of each tag", figure=per_label(figures["test"], "roc_auc", chance=0.5)))
        shown.append(Exhibit("Average precision of each tag", figure=per_label(figures["test"], "map", chance=None)))
    with np.load(directory / run.EMBEDDINGS) as kept:
        embedded = Embedded(kept["ids"].tolist(), kept["groups"].tolist(), kept["y_true"], kept["embedding"], manifest.labels)
    shown += exhibits.of_embedding(embedded, info.records, manifest, info.experiment.fit.seed)
    shown.append(Exhibit("Labels", figure=label_counts(manifest)))
    _tensorboard(directory / run.TENSORBOARD / "test", shown, embedded, manifest.layout.sample_rate_hz)

    rows = table(figures, watched)
    body = [f"<h1>{html.escape(info.experiment.recipe)}</h1>", _table(rows)]
    test = figures["test"]
    body.append(
        f"<p>{test['tracks']} whole test tracks ({test['windows']} windows, one every {test['hop_s']:g} s, averaged). Brackets: 95 % bootstrap "
        "interval, of tags over tracks, of retrieval over groups of tracks.</p>"
    )
    if "map" in test:
        body.append(f"<p>ROC-AUC and mAP are means over labels; {test['absent']} of {test['classes']} labels have no positive there.</p>")
    retrieved = [name for name in NAMES if test.get(f"{name}_random") is not None]
    found = [["retrieval among the test tracks", "embedding", "random ranking"]]
    found += [[NAMES[name], _with_interval(test[name], test[f"{name}_interval"]), _with_interval(test[f"{name}_random"], None)] for name in retrieved]
    body += ["<h2>Retrieval</h2>", _table(found)]
    body.append(
        f"<p>{test['unlabelled']} tracks without a tag are no queries. Other groups only: the tracks of the query's own group (what the records' "
        "reader groups by: artist, song or instrument) are taken out of the collection, as they share its tags and its recording.</p>"
    )
    body += [_section(exhibit, manifest.layout.sample_rate_hz) for exhibit in shown]
    body.append(f"<h2>Settings</h2><pre>{html.escape(info.model_dump_json(indent=1))}</pre>")
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(directory.name)}</title><style>{STYLE}</style>{''.join(body)}\n"
    files.write_text(directory / run.REPORT, page)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def table(figures: dict, watched: tuple[str, ...]) -> list[list[str]]:
    """Rows of text: a heading, then a row per split with each figure and its interval; for retrieval a last row with chance."""
    rows = [["split", "tracks", *(NAMES[name] for name in watched)]]
    for split, values in figures.items():
        rows.append([split, str(values["tracks"]), *(_with_interval(values[name], values[f"{name}_interval"]) for name in watched)])
    test = figures["test"]
    if f"{watched[0]}_random" in test:
        rows.append(["random", str(test["tracks"]), *(_with_interval(test[f"{name}_random"], None) for name in watched)])
    return rows


def _table(rows: list[list[str]]) -> str:
    return f"<table>{''.join('<tr>' + ''.join(f'<td>{html.escape(cell)}' for cell in row) for row in rows)}</table>"


def _section(exhibit: Exhibit, rate_hz: int) -> str:
    """An exhibit as HTML, its picture and sounds inside."""
    parts = [f"<h2>{html.escape(exhibit.title)}</h2>"]
    if exhibit.text:
        parts.append(f"<p>{html.escape(exhibit.text)}</p>")
    if exhibit.figure:
        parts.append(f"<img alt='{html.escape(exhibit.title, quote=True)}' src='data:image/png;base64,{_base64(_png(exhibit.figure))}'>")
    for sound in exhibit.sounds:
        source = f"data:audio/flac;base64,{_base64(audio.encode_flac(sound.waveform, rate_hz))}"
        parts.append(f"<p><audio controls preload=none src='{source}'></audio> {html.escape(sound.caption)}</p>")
    return "".join(parts)


def _tensorboard(directory: Path, shown: list[Exhibit], embedded: Embedded, rate_hz: int) -> None:
    """The exhibits as images, audio and text, and the projector's files, in place of those of an earlier report."""
    import tensorflow as tf

    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.closing(tf.summary.create_file_writer(str(directory))) as writer, writer.as_default(step=0):
        for exhibit in shown:
            if exhibit.figure:
                tf.summary.image(exhibit.title, tf.image.decode_png(_png(exhibit.figure), channels=4)[None])
            for number, sound in enumerate(exhibit.sounds):
                waveform = sound.waveform[None, :, None].astype(np.float32) / 32768
                tf.summary.audio(f"{exhibit.title}/{number}", waveform, rate_hz, description=sound.caption)
    rows = [["id", "group", "tag", "tags"]]
    for row, (name, group) in enumerate(zip(embedded.ids, embedded.groups, strict=True)):
        first = np.flatnonzero(embedded.y_true[row])[:1]
        rows.append([name, group, embedded.labels[first[0]] if len(first) else "", embedded.tags(row)])
    np.savetxt(directory / "embedding.tsv", embedded.embedding, fmt="%.5g", delimiter="\t")
    files.write_text(directory / "metadata.tsv", "".join("\t".join(re.sub(r"\s", " ", cell) for cell in row) + "\n" for row in rows))
    projector = 'embeddings { tensor_name: "test tracks" tensor_path: "embedding.tsv" metadata_path: "metadata.tsv" }\n'
    files.write_text(directory / "projector_config.pbtxt", projector)


def curves(history: list[dict[str, float]], monitor: str, watched: tuple[str, ...]) -> Figure:
    """Loss, validation figures and the share of active triplets over epochs; the best epoch is marked."""
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    axes[0].plot(epochs, [row["loss"] for row in history], marker=".")
    axes[0].set(xlabel="epoch", ylabel="training loss")
    shown = [name for name in dict.fromkeys([*(f"val_{name}" for name in watched), monitor, "active"]) if history and name in history[0]]
    for name in shown:
        axes[1].plot(epochs, [row[name] for row in history], label=name, marker=".", linestyle=":" if name == "active" else "-")
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


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
