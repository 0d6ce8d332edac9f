"""report.html: one page with the figures, curves, pictures and sounds of a run; the same for TensorBoard; and the table that is printed."""

from __future__ import annotations

import csv
import dataclasses
import html
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tfmusic import board, catalogue, decisions, evaluate, exhibits, files, models, page, pictures, preview, run, schema, tables
from tfmusic.config import Augment, Experiment
from tfmusic.exhibits import Embedded
from tfmusic.page import Exhibit
from tfmusic.tables import NAMES, number
from tfmusic.tasks import TASKS

CONFUSIONS = 5  # that are named
RISING = 3  # epochs without a lower validation loss, while that of training falls, that are called overtraining,
RISEN = 0.01  # if it stands higher by this share, and by its usual change from epoch to epoch
AUGMENTED = 4  # training examples that are shown


@dataclasses.dataclass(frozen=True)
class Finished:
    """All that is shown of an evaluated run."""

    experiment: Experiment
    manifest: schema.Manifest
    figures: dict[str, dict]  # "validation" and "test"
    kept: dict[str, np.ndarray]  # `run.outputs`
    history: list[dict[str, float]]

    @property
    def test(self) -> dict:
        return self.figures["test"]

    @property
    def watched(self) -> list[str]:
        return [name for name in TASKS[self.experiment.task].watched if name in self.test]


def write(run_directory: Path | str) -> str:
    """Writes report.html of an evaluated run, and its pictures and sounds for TensorBoard.

    Args:
        run_directory: with metrics.json, history.csv and embeddings.npz.

    Returns:
        The table of the task's figures as text.
    """
    directory = Path(run_directory)
    info = run.read(directory)
    manifest = catalogue.limited(info.records, schema.read_manifest(info.records), info.experiment.data.limit)
    found = Finished(info.experiment, manifest, run.figures(directory), run.outputs(directory), _history(directory / run.HISTORY))
    shown = [*itertools.chain.from_iterable(section(found) for section in SECTIONS)]
    shown += exhibits.of_mistakes(found.kept, info.records, manifest)
    embedded = None
    if "embedding" in found.kept:
        kept = [found.kept[name] for name in ("y_true", "embedding")]
        embedded = Embedded(found.kept["ids"].tolist(), found.kept["groups"].tolist(), *kept, manifest.labels)
        shown += exhibits.of_embedding(embedded, info.records, manifest, info.experiment.fit.seed)
    shown += [*_augmented(info, manifest), *_labels(manifest), _card(directory, info, manifest, found)]
    rate_hz, test, rows = manifest.layout.sample_rate_hz, found.test, table(found.figures, found.watched)
    board.write(
        directory / run.TENSORBOARD / "test",
        [Exhibit("Figures", " ".join(tables.quick(found.experiment.data.limit)), rows), *shown],
        rate_hz,
        embedded,
        (found.kept["y_true"], found.kept["scores"], manifest.labels) if "scores" in found.kept else None,
        board.settings_of(info.experiment, info.records.name),
        {split: {name: known[name] for name in tables.of_task(info.experiment.task) if name in known} for split, known in found.figures.items()},
    )
    scored = "at once" if info.experiment.sequences else f"in {test['windows']} windows, one every {test['hop_s']:g} s"
    body = [
        f"<h1>{html.escape(info.experiment.recipe)}</h1>",
        *(f"<p><strong>{html.escape(line)}</strong></p>" for line in tables.quick(found.experiment.data.limit)),
        page.table(rows),
        f"<p>{test['tracks']} whole test tracks, scored {scored}. Brackets: 95 % bootstrap interval, of retrieval over groups of tracks, of all "
        "else over tracks.</p>",
        *(page.section(exhibit, rate_hz) for exhibit in shown),
        f"<h2>Settings</h2><pre>{html.escape(info.model_dump_json(indent=1))}</pre>",
    ]
    files.write_text(directory / run.REPORT, page.document(directory.name, body))
    return "\n".join([tables.text(rows), *tables.quick(found.experiment.data.limit)])


def table(figures: dict[str, dict], watched: Sequence[str]) -> list[list[str]]:
    """Rows of text: a heading, then a row per figure with its interval, a column per split; for retrieval a last column with chance."""
    columns, test = dict(figures), figures["test"]
    if any(f"{name}_random" in test for name in watched):
        columns["random"] = {name: test[f"{name}_random"] for name in watched if f"{name}_random" in test}
    heading, *rows = tables.of_figures(columns, watched)
    return [heading, ["tracks", *(str(found.get("tracks", test["tracks"])) for found in columns.values())], *rows]


# --- sections: each yields what a run has of its kind ---------------------------------------------------------------------------------
def _training(found: Finished) -> Iterator[Exhibit]:
    monitor = found.experiment.fit.monitor
    yield Exhibit(
        "Training",
        f"{course(found.history, monitor)} {overtraining(found.history)}".strip(),
        figure=pictures.curves(found.history, monitor, found.watched),
    )


def overtraining(history: list[dict[str, float]]) -> str:
    """Whether the validation loss has risen for some epochs while that of training fell; nothing where there is no validation loss.

    >>> overtraining([{"epoch": 0, "loss": 0.5, "val_loss": 0.4}, *({"epoch": n, "loss": 0.3, "val_loss": 0.6} for n in (1, 2, 3))])
    'Overtrained after epoch 1: in 3 epochs since, the training loss fell from 0.500 to 0.300 and the validation loss rose from 0.400 to 0.600.'
    """
    known = [row for row in history if not math.isnan(row.get("val_loss", math.nan))]
    if not known:
        return ""
    if len(known) <= RISING:
        return f"Too few epochs to tell whether it overtrained: {len(known)}."
    lowest, last = min(known, key=lambda row: row["val_loss"]), known[-1]
    changes = [abs(after["val_loss"] - before["val_loss"]) for before, after in itertools.pairwise(known)]
    risen = last["val_loss"] - lowest["val_loss"] > max(RISEN * abs(lowest["val_loss"]), statistics.median(changes))
    since = int(last["epoch"] - lowest["epoch"])
    trained, validated = (f"from {number(lowest[name])} to {number(last[name])}" for name in ("loss", "val_loss"))
    if since >= RISING and risen and last["loss"] < lowest["loss"]:
        return (
            f"Overtrained after epoch {lowest['epoch'] + 1:g}: in {since} epochs since, the training loss fell {trained} and the validation loss "
            f"rose {validated}."
        )
    return f"Not overtrained: the validation loss was lowest in epoch {lowest['epoch'] + 1:g} of {len(history)}, {number(lowest['val_loss'])}."


def course(history: list[dict[str, float]], monitor: str) -> str:
    """What became of training loss and monitor after the best epoch.

    >>> course([{"epoch": 0, "loss": 0.5, "val_map": 0.4}, {"epoch": 1, "loss": 0.3, "val_map": 0.3}], "val_map")
    'Best of 2 epochs: 1, val_map 0.400. From there to the last the training loss went from 0.500 to 0.300 and val_map to 0.300.'
    """
    if not history:
        return "No epoch of training: these are the weights it began with."
    best, last = pictures.best_epoch(history, monitor), history[-1]
    begin = f"Best of {len(history)} epochs: {best['epoch'] + 1:g}, {monitor} {number(best[monitor])}."
    if best["epoch"] == last["epoch"]:
        return f"{begin} It was the last: more epochs may help."
    change = f"the training loss went from {number(best['loss'])} to {number(last['loss'])} and {monitor} to {number(last[monitor])}"
    return f"{begin} From there to the last {change}."


def _learnt(found: Finished) -> Iterator[Exhibit]:
    rows = tables.of_figures(found.figures, [*tables.LEARNT])
    if len(rows) > 1:
        text = ""
        if "roc_auc" in found.test:
            text = f"Means over labels; {found.test['absent']} of {found.test['classes']} labels have no positive among the test tracks."
        if "thresholds" in found.test:
            text += " Accuracy and F1 need thresholds, which were tuned on validation, so that validation itself has no such figure."
        yield Exhibit("All figures", text.strip(), rows)


def _decided(found: Finished) -> Iterator[Exhibit]:
    test = found.test
    if "precision_macro" not in test:
        return
    tuned = test.get("thresholds")
    how = "Thresholds tuned on validation, each label's for its F1." if tuned else "The class of the highest score is chosen."
    rows = [
        ["", "precision", "recall", "F1"],
        *([mean, *(number(test[f"{name}_{mean}"]) for name in decisions.PER_CLASS)] for mean in decisions.MEANS),
    ]
    text = f"{how} Macro: every label counts alike; weighted: each by its positives; micro: every decision counts alike."
    yield Exhibit("Precision, recall and F1", text, rows)

    names = {"precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC-AUC", "map": "AP"}
    values = [[number(value) for value in test[f"{name}_per_class"]] for name in names]
    columns = [test["labels"], map(str, test["positives"]), map(str, test["decided"]), *([map(number, tuned)] if tuned else []), *values]
    heading = ["label", "positives", "decided" if tuned else "chosen", *(["threshold"] if tuned else []), *names.values()]
    text = "none: a label without positives has no figure, one that was never decided no precision."
    yield Exhibit("Each label", f"{how} {text}", [heading, *map(list, zip(*columns, strict=True))])


def _confusion(found: Finished) -> Iterator[Exhibit]:
    if "confusion" not in found.test:
        return
    counts, labels = np.array(found.test["confusion"]), found.test["labels"]
    wrong = counts - np.diag(np.diag(counts))
    first = sorted(np.argwhere(wrong).tolist(), key=lambda place: -wrong[*place])[:CONFUSIONS]
    listed = ", ".join(f"{labels[row]} taken for {labels[column]} ({wrong[row, column]})" for row, column in first)
    text = f"Most frequent confusions: {listed}." if first else "No track was confused."
    yield Exhibit("Confusion", text, figure=pictures.confusion(counts.tolist(), labels))


def _curves(found: Finished) -> Iterator[Exhibit]:
    if "scores" not in found.kept:
        return
    shown = [("label", found.manifest.labels, found.kept["y_true"], found.kept["scores"])]
    if "families_true" in found.kept:
        shown.append(("family", found.test["families"], found.kept["families_true"], found.kept["family_scores"]))
    for kind, names, truth, values in shown:
        count, drawn = len(names), len(pictures.most_frequent(np.sum(truth, axis=0).tolist(), len(truth)))
        if drawn:
            rest = "those of most positives" if drawn == pictures.CURVES else "the others are true of no test track, or of all"
            text = f"{drawn} of {count}: {rest}." if drawn < count else ""
            text += " Guessing is the diagonal of the one, and in the other precision at the share of positives."
            yield Exhibit(f"ROC and precision-recall of each {kind}", text.strip(), figure=pictures.roc_and_precision(truth, values, names))


def _per_label(found: Finished) -> Iterator[Exhibit]:
    for name, title, chance in (("roc_auc", "ROC-AUC of each label", 0.5), ("map", "Average precision of each label", None)):
        if f"{name}_per_class" in found.test:
            yield Exhibit(title, figure=pictures.per_label(found.test, name, chance))


def _targets(found: Finished) -> Iterator[Exhibit]:
    if "targets_true" not in found.kept:
        return
    shorts = ("r2", "spearman", "pearson", "mse")
    names = [name for short in shorts for name in (short, f"{short}_interval")]
    columns = {target: {name: found.test[f"{name}_per_target"][place] for name in names} for place, target in enumerate(found.test["targets"])}
    rows = [list(row) for row in zip(*tables.of_figures(columns, shorts), strict=True)]  # a row per target
    text = "R2: share of the spread that is explained; 0 is the mean of the test tracks, worse is negative. MSE: in squared units of the target."
    picture = pictures.scatter(found.kept["targets_true"], found.kept["targets"], found.test)
    yield Exhibit("True and predicted numbers", text, rows, picture)


def _retrieval(found: Finished) -> Iterator[Exhibit]:
    test = found.test
    retrieved = [name for name in tables.RETRIEVAL if test.get(f"{name}_random") is not None]
    if not retrieved:
        return
    rows = [["among the test tracks", "embedding", "random ranking"]]
    rows += [[NAMES[name], tables.with_interval(test[name], test[f"{name}_interval"]), number(test[f"{name}_random"])] for name in retrieved]
    text = (
        f"{test['unlabelled']} tracks without a tag are no queries. Other groups only: the tracks of the query's own group (what the records' "
        "reader groups by: artist, song or instrument) are taken out of the collection, as they share its tags and its recording."
    )
    yield Exhibit("Retrieval", text, rows)


SECTIONS: tuple[Callable[[Finished], Iterator[Exhibit]], ...] = (
    _training, _learnt, _confusion, _decided, _curves, _per_label, _targets, _retrieval,
)  # fmt: skip


def _augmented(info: run.RunInfo, manifest: schema.Manifest) -> Iterator[Exhibit]:
    """The first windows that training heard, before and after augmentation, if there was any."""
    if info.experiment.augment != Augment():
        yield from preview.exhibits(preview.examples(info.records, manifest, info.experiment, AUGMENTED), info.experiment.augment)


def _labels(manifest: schema.Manifest) -> Iterator[Exhibit]:
    if manifest.labels:
        yield Exhibit("Labels", figure=pictures.label_counts(manifest))
    if manifest.merges:
        text = f"{len(manifest.counts_before)} labels of the dataset, {len({*manifest.merges} & {*manifest.counts_before})} of them merged."
        yield Exhibit("Labels before and after merging", text, figure=pictures.merged(manifest))


def _card(directory: Path, info: run.RunInfo, manifest: schema.Manifest, found: Finished) -> Exhibit:
    """What the model is, what it learnt from and what it is good for, after Mitchell et al., Model Cards for Model Reporting, FAT* 2019."""
    experiment, layout, test = info.experiment, manifest.layout, found.test
    deployed = evaluate.load_best(directory)
    _, net, activation = models.parts(deployed)
    windows = f"windows of {experiment.frontend.window_s:g} s at {layout.sample_rate_hz} Hz, as {' and '.join(experiment.frontend.features)}"
    splits = ", ".join(f"{name} {split.tracks}" for name, split in manifest.splits.items())
    best = pictures.best_epoch(found.history, experiment.fit.monitor) if found.history else None
    rows = [
        ["", "model"],
        ["task", f"{experiment.task}, recipe {experiment.recipe}"],
        ["net", f"{experiment.net.name}, {net.count_params():,} parameters"],
        ["hears", f"sequences of {experiment.sequences.kind}" if experiment.sequences else windows],
        ["says", ", ".join(f"{name} ({activation})" if name == "tags" else name for name in deployed.output)],
        ["labels", ", ".join(manifest.labels) or "none"],
        ["learnt from", f"{manifest.dataset}: {splits} tracks, {manifest.hours('train'):.2f} hours of training"],
        ["trained", f"{len(found.history)} epochs, the best {best['epoch'] + 1:g} by {experiment.fit.monitor}" if best else "not here"],
        ["tested", f"{test['tracks']} tracks: " + ", ".join(f"{NAMES[name]} {number(test[name])}" for name in found.watched)],
        ["made with", ", ".join(f"{name} {version}" for name, version in {"tfmusic": info.code_version, **info.versions}.items())],
    ]
    text = " ".join(tables.quick(experiment.data.limit)) or (
        "Its figures hold for tracks like those of the test split, by the same labelling, and for no others: listen to what it says of yours before "
        "you rely on it. What it never heard in training it has no label for."
    )
    return Exhibit("Model card", text, rows)


def _history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
