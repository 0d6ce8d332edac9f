"""What helps rare labels: `python -m tests.benchmarks.imbalance --records DIR --out DIR`.

Report S2's comparison: plain cross-entropy, inverse-frequency weights, focal loss with biases at the labels' shares, oversampling, and all of
them, on a long-tailed subset of records: training tracks of the rarer half of the labels are left out until their numbers fall exponentially (as
Cui et al., CVPR 2019, make long-tailed sets of balanced ones); validation and test tracks stay. All rows learn from the same number of windows.
Seeds are other weights, orders and crops on these very tracks. A run that is finished is taken as it is, so an interrupted table goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import catalogue, cli, files, run, schema, training
from tfmusic.config import Data, Evaluation, Experiment, Fit, FrontEnd, InputError, Loss, Net
from tfmusic.summary import LEVEL, student_t

PLAIN = "plain"
ROWS: dict[str, dict] = {  # name -> what it changes; "oversample": by --share
    PLAIN: {},
    "class weights": {"loss": Loss(class_weights=True)},
    "focal, prior bias": {"loss": Loss(name="focal", prior_bias=True)},
    "oversampling": {"oversample": True},
    "all of them": {"loss": Loss(name="focal", prior_bias=True, class_weights=True), "oversample": True},
}
COLUMNS = ("map", "map_tail", "map_head", "roc_auc")
NOTE = "tail.json"  # beside the subset: its labels that were thinned


def experiment_of(changes: dict, seed: int, epochs: int, width: float, share: float) -> Experiment:
    """A row's experiment: the 2D CNN without augmentation or dropout, 72 bands, a hop of 512 samples."""
    return Experiment(
        recipe="tagging",
        frontend=FrontEnd(n_mels=72, hop_samples=512, n_fft=1024),
        data=Data(oversample=share if changes.get("oversample") else None),
        net=Net(width=width),
        loss=changes.get("loss", Loss()),
        fit=Fit(epochs=epochs, patience=epochs + 1, seed=seed),
        evaluation=Evaluation(bootstrap=0),
    )


def thinned(labels: np.ndarray, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """Which tracks a long-tailed subset keeps, and which labels are its tail.

    The rarer half of the labels, most frequent first, is to have `n (fewest / n)^(i / k)` tracks for i = 1..k, n those of the least frequent label
    of the other half. From the rarest on, surplus tracks are left out in a fixed random order; a track of several labels leaves them all.

    Args:
        labels: 0/1 `[shape=(tracks, labels)]`.
        fewest: tracks of the rarest label `int > 0`.

    Returns:
        Numbers of tracks, rising; numbers of labels.
    """
    counts = labels.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    tail, most = order[len(order) // 2 :], int(counts[order[len(order) // 2 - 1]])
    kept = np.random.default_rng(0).permutation(len(labels))
    for number in range(len(tail), 0, -1):
        wanted = round(most * (fewest / most) ** (number / len(tail)))
        of_label = labels[kept, tail[number - 1]] > 0
        kept = kept[~of_label | (np.cumsum(of_label) <= max(wanted, fewest))]
    return np.sort(kept), np.sort(tail)


def subset(records: Path, out: Path, fewest: int) -> list[str]:
    """Writes long-tailed records, unless they are there; returns the names of the tail's labels."""
    source = schema.read_manifest(records)
    note = {"source": source.sha1, "fewest": fewest}
    if (out / NOTE).is_file():
        found = json.loads((out / NOTE).read_text())
        if {name: found[name] for name in note} != note:
            raise InputError(f"--out must be empty or of the same table, got {out} of other records or --fewest")
        return found["tail"]
    tracks = catalogue.read(records, source)
    kept, tail = thinned(tracks.labels, fewest)
    out.mkdir(parents=True, exist_ok=True)
    shards = [shard for shard in source.shards if shard.split != "train"]
    for shard in shards:
        shutil.copyfile(records / shard.file, out / shard.file)
    starts, parts = tracks.first[kept], np.diff(tracks.first)[kept]
    runs, name = [], "train-00000-of-00001.tfrecord"
    with tf.io.TFRecordWriter(str(out / name)) as writer:
        for many in sorted({*parts.tolist()}):
            rows = np.flatnonzero(parts == many)
            offsets = []
            for part in range(many):
                writer.flush()
                offsets.append((out / name).stat().st_size)
                paths = [tracks.files[tracks.file[kept[row]]] for row in rows]
                places = tf.data.Dataset.from_tensor_slices((paths, tracks.offsets[starts[rows] + part]))
                for record in places.flat_map(lambda path, offset: schema.records_at(path, offset).take(1)).as_numpy_iterator():
                    writer.write(record)
            runs.append(schema.Runs(parts=many, tracks=len(rows), offsets=tuple(offsets)))
    shard = schema.Shard(split="train", file=name, bytes=(out / name).stat().st_size, sha256=schema.sha256_of(out / name), runs=tuple(runs))
    labels = tracks.labels[kept]
    share = len(kept) / len(tracks)
    split = schema.Split(
        tracks=len(kept), samples=round(source.split("train").samples * share), unlabelled=int((labels.sum(axis=1) == 0).sum()),
        label_counts=tuple(labels.sum(axis=0, dtype=int).tolist()),
    )  # fmt: skip
    manifest = source.model_copy(update={"shards": (*shards, shard), "splits": {**source.splits, "train": split}})
    files.write_text(out / schema.MANIFEST, manifest.model_dump_json(indent=1))
    names = [source.labels[column] for column in tail]
    files.write_json(out / NOTE, {**note, "tail": names})
    return names


def figures(directory: Path, tail: Sequence[str]) -> dict[str, float]:
    """Test figures of a finished run; mean average precision of the tail's labels, and of all others, by themselves."""
    test = run.figures(directory)["test"]
    known = {label: value for label, value in zip(test["labels"], test["map_per_class"], strict=True) if value is not None}
    of_tail, of_head = ([value for label, value in known.items() if (label in tail) == inside] for inside in (True, False))
    return {"map": test["map"], "roc_auc": test["roc_auc"], "map_tail": statistics.fmean(of_tail), "map_head": statistics.fmean(of_head)}


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the subset and the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--fewest", type=int, default=6, help="training tracks of the rarest label")
    parser.add_argument("--share", type=float, default=0.03, help="oversampling: least share of every label")
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    arguments = parser.parse_args()
    records = arguments.out / "records"
    tail = subset(arguments.records, records, arguments.fewest)
    manifest = schema.read_manifest(records)
    counts = dict(zip(manifest.labels, manifest.split("train").label_counts, strict=True))
    print(f"{manifest.split('train').tracks} training tracks; tail: {', '.join(f'{name} {counts[name]}' for name in tail)}", flush=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.only}
    for seed in range(arguments.seeds):
        for name in arguments.only:
            keras.backend.clear_session()
            directory = arguments.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            experiment = experiment_of(ROWS[name], seed, arguments.epochs, arguments.width, arguments.share)
            training.fit_or_resume(experiment, records, directory)
            found[name].append(figures(directory, tail))
            print(name, seed, found[name][-1], flush=True)
        print_table(found)


def print_table(found: dict[str, list[dict[str, float]]]) -> None:
    """Mean and t interval over the seeds; then the difference from `plain`, seed by seed; Markdown."""
    print(f"| rows | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    for name, rows in found.items():
        print(f"| {name} | {' | '.join(cell([row[column] for row in rows]) for column in COLUMNS)} |")
    for name, rows in found.items():
        if name != PLAIN and PLAIN in found:
            pairs = list(zip(rows, found[PLAIN], strict=True))
            print(f"| {name} - {PLAIN} | {' | '.join(cell([own[column] - plain[column] for own, plain in pairs], '+') for column in COLUMNS)} |")


def cell(values: Sequence[float], sign: str = "") -> str:
    """Mean and `mean -+ t(n - 1) s / sqrt(n)`.

    >>> cell([0.5, 0.6, 0.7])  # 4.303 * .1 / sqrt(3)
    '0.600 [0.352, 0.848]'
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:{sign}.3f}"
    reach = student_t(LEVEL, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:{sign}.3f} [{mean - reach:{sign}.3f}, {mean + reach:{sign}.3f}]"


if __name__ == "__main__":
    cli.main(main)
