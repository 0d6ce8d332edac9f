"""All ways to train an embedding side by side on one collection: `python -m tests.benchmarks.strategies --records DIR --out DIR`.

Every row is trained for the same number of windows on the same log-mels, with three seeds, and scored on the test split by the epoch of the best
validation mAP@R; the taggers by their mAP, and what begins with a tagger has its training in addition. Not a speed: the table says which strategy
learns most, and how far each is from chance. A run that is finished is taken as it is, so an interrupted table goes on.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import keras
import numpy as np

from tfmusic import run, schema, training
from tfmusic.config import Data, Evaluation, Experiment, Fit, FrontEnd, InputError, Net, Sampling, Similarity

COLUMNS = ("recall_at_1", "map_at_r", "ndcg_at_8", "filtered_recall_at_1", "filtered_map_at_r", "group_map_at_r")
TAGGER = "tagger, its own vector"
TRIPLETS, CROPS = Sampling(batches="triplets"), Sampling(batches="crops")
ROWS: dict[str, dict] = {  # name -> what it changes of `experiment_of`
    "untrained": {"epochs": 0},
    TAGGER: {"tagger": True},
    "linear, triplets": {"net": "linear", "sampling": TRIPLETS},
    "triplets": {"sampling": TRIPLETS},
    "triplets by group": {"sampling": Sampling(batches="triplets", positives="group")},
    "extremes": {"extremes": {}},
    "errors": {"errors": {}},
    "errors, clean negatives": {"errors": {"clean_negatives": True}},
    "semi-hard, shuffled": {"sampling": Sampling(batches="shuffled")},
    "semi-hard, balanced": {},
    "hard": {"similarity": Similarity(mining="hard")},
    "all": {"similarity": Similarity(mining="all")},
    "weighted": {"similarity": Similarity(mining="weighted")},
    "distance-weighted": {"similarity": Similarity(mining="distance_weighted")},
    "semi-hard, IDF, from .3": {"similarity": Similarity(overlap="idf", positive_from=0.3)},
    "semi-hard, euclidean": {"similarity": Similarity(distance="euclidean")},
    "semi-hard, soft margin": {"similarity": Similarity(soft_margin=True)},
    "semi-hard, group": {"sampling": Sampling(positives="group")},
    "contrastive": {"similarity": Similarity(loss="supervised_contrastive")},
    "contrastive, IDF": {"similarity": Similarity(loss="supervised_contrastive", overlap="idf")},
    "contrastive, group": {"similarity": Similarity(loss="supervised_contrastive"), "sampling": Sampling(positives="group")},
    "contrastive, with tags": {"similarity": Similarity(loss="supervised_contrastive", tag_weight=1.0)},
    "ProxyNCA": {"similarity": Similarity(loss="proxy_nca")},
    "proxy anchor": {"similarity": Similarity(loss="proxy_anchor")},
    "NT-Xent, two crops": {"similarity": Similarity(loss="nt_xent"), "sampling": CROPS},
    "tagger as backbone, triplets": {"init": True, "sampling": TRIPLETS},
    "tagger as backbone, contrastive": {"init": True, "similarity": Similarity(loss="supervised_contrastive")},
    "errors, positives alone": {"errors": {"mined": "positives"}},
    "errors, negatives alone": {"errors": {"mined": "negatives"}},
}


def experiment_of(changes: dict, seed: int, epochs: int, crops: int, tagger: Path) -> Experiment:
    """A row's experiment: quarter-width 2D CNN, 72 bands, a hop of 512 samples, so that a run is a minute on two cores."""
    tagging = changes.get("tagger", False)
    sampling = changes.get("sampling", Sampling())
    for batches in {"extremes", "errors"} & changes.keys():
        sampling = Sampling(batches=batches, tagger=tagger, **changes[batches])
    return Experiment(
        recipe="tagging" if tagging else "similarity",
        task="tagging" if tagging else "similarity",
        init=tagger if changes.get("init") else None,
        frontend=FrontEnd(n_mels=72, hop_samples=512, n_fft=1024),
        data=Data(crops_per_clip=crops),
        net=Net(name=changes.get("net", "cnn2d"), width=0.25, embedding=0 if tagging else 64),
        sampling=sampling,
        similarity=changes.get("similarity", Similarity()),
        fit=Fit(
            epochs=changes.get("epochs", epochs),
            batch_size=16 if tagging else 48,
            patience=epochs + 1,
            seed=seed,
            monitor="val_map" if tagging else "val_map_at_r",
        ),
        evaluation=Evaluation(bootstrap=0),
    )


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--crops", type=int, default=1, help="windows of every clip in an epoch")
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, list[dict]] = {}
    for seed in range(arguments.seeds):
        tagger = arguments.out / f"{_slug(TAGGER)}-{seed}"
        for name in sorted(arguments.only, key=lambda name: name != TAGGER):  # others begin with its weights or errors
            experiment = experiment_of(ROWS[name], seed, arguments.epochs, arguments.crops, tagger)
            found.setdefault(name, []).append(_figures(experiment, arguments.records, arguments.out / f"{_slug(name)}-{seed}"))
    print_table(found)
    if arguments.json:
        print(json.dumps({name: [{column: row.get(column) for column in COLUMNS} for row in rows] for name, rows in found.items()}))


def _figures(experiment: Experiment, records: Path, directory: Path) -> dict:
    """Test figures of a run, which is trained, gone on with, or read when it is finished."""
    keras.backend.clear_session()
    if not (directory / run.EXPERIMENT).is_file():
        training.fit(experiment, records, directory)
    info = run.read(directory)
    if info.experiment != training.settled(experiment) or info.records_sha1 != schema.read_manifest(records).sha1:
        raise InputError(f"--out must be empty or of the same table, got {directory} with other settings or records")
    if not (directory / run.METRICS).is_file():
        training.resume(directory)
    return json.loads((directory / run.METRICS).read_text("utf-8"))["test"]


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def print_table(found: dict[str, list[dict]]) -> None:
    """Mean and standard deviation over the seeds, chance on top; Markdown."""
    print(f"| strategy | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    first = next(iter(found.values()))[0]
    print(f"| random ranking | {' | '.join(_cell([first.get(f'{column}_random')]) for column in COLUMNS)} |")
    for name, rows in found.items():
        print(f"| {name} | {' | '.join(_cell([row.get(column) for row in rows]) for column in COLUMNS)} |")


def _cell(values: list[float | None]) -> str:
    if None in values:
        return "-"
    return f"{np.mean(values):.3f}".lstrip("0") + (f" ± {np.std(values, ddof=1):.3f}".replace("0.", ".") if len(values) > 1 else "")


if __name__ == "__main__":
    main()
