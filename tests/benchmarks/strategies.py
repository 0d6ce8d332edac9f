"""All ways to train an embedding side by side on one collection: `python -m tests.benchmarks.strategies --records DIR --out DIR`.

Every row is trained for the same number of windows from the same initial weights, on the same log-mels, with three seeds, and is scored on the
test split by its best validation epoch. Not a speed: the table says which strategy learns most, and how far each is from chance. A run that is
finished is taken as it is, so an interrupted table goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras
import numpy as np

from tfmusic import run, training
from tfmusic.config import Data, Evaluation, Experiment, Fit, FrontEnd, Net, Sampling, Similarity

COLUMNS = ("recall_at_1", "recall_at_8", "map_at_r", "ndcg_at_8", "group_recall_at_1", "group_map_at_r")
TRIPLETS, CROPS = Sampling(batches="triplets"), Sampling(batches="crops")
ROWS: dict[str, dict] = {  # name -> what it changes of BASE
    "untrained": {"epochs": 0},
    "tagger, its own vector": {"tagger": True},
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
        tagger = arguments.out / f"{list(ROWS).index('tagger, its own vector'):02d}-{seed}"
        for name in sorted(arguments.only, key=lambda name: not ROWS[name].get("tagger")):  # others begin with its weights or errors
            directory = arguments.out / f"{list(ROWS).index(name):02d}-{seed}"
            if not (directory / run.METRICS).is_file():
                keras.backend.clear_session()
                experiment = experiment_of(ROWS[name], seed, arguments.epochs, arguments.crops, tagger)
                if (directory / run.EXPERIMENT).is_file():
                    training.resume(directory)
                else:
                    training.fit(experiment, arguments.records, directory)
            found.setdefault(name, []).append(json.loads((directory / run.METRICS).read_text("utf-8"))["test"])
    print_table(found)
    if arguments.json:
        print(json.dumps({name: [{column: row.get(column) for column in COLUMNS} for row in rows] for name, rows in found.items()}))


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
