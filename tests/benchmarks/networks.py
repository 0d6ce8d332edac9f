"""Every network on one collection with the same budget: `python -m tests.benchmarks.networks --records DIR --out DIR`.

Each is trained for the same number of windows of the same log-mels with the same augmentation at a quarter of its width, and scored on the test
split by the epoch of the best validation mAP. Not a speed: the table says what each gets out of little data and a short training, which is not what
it would reach with much of both. A run that is finished is taken as it is, so an interrupted table goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import keras

from tfmusic import cli, evaluate, models, run, training
from tfmusic.config import Augment, Evaluation, Experiment, Fit, FrontEnd, Net, SpecAugment

MINUTES = "minutes.json"  # in the run: processor time of its training and evaluation


def experiment_of(name: str, epochs: int, width: float) -> Experiment:
    """The recipe `tagging` with another net."""
    return Experiment(
        recipe="tagging",
        frontend=FrontEnd(n_mels=72),
        augment=Augment(spec_augment=SpecAugment(probability=0.5, time_frames=16, mel_bands=8), mixup_alpha=0.2),
        net=Net(name=name, width=width, dropout=0.2),
        fit=Fit(epochs=epochs, patience=epochs + 1),
        evaluation=Evaluation(bootstrap=200),
    )


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=float, default=0.25)
    names = [name for name in models.MODELS if name != "mlp"]  # it reads the vector of a frozen net
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only:
        rows.append(row(experiment_of(name, arguments.epochs, arguments.width), arguments.records, arguments.out / name))
        print(name, *rows[-1], flush=True)
    print_table(dict(zip(arguments.only, rows, strict=True)))


def row(experiment: Experiment, records: Path, directory: Path) -> tuple[int, dict, float]:
    """Parameters, test figures and processor minutes of one network."""
    keras.backend.clear_session()
    begin = time.process_time()
    training.fit_or_resume(experiment, records, directory)
    if not (directory / MINUTES).is_file():
        (directory / MINUTES).write_text(json.dumps((time.process_time() - begin) / 60))
    _, net, _ = models.parts(evaluate.load_best(directory))
    figures = json.loads((directory / run.METRICS).read_text("utf-8"))["test"]
    parameters = sum(int(weight.shape.num_elements()) for weight in (variable.value for variable in net.trainable_weights))
    return parameters, {name: figures[name] for name in ("roc_auc", "map", "map_interval")}, json.loads((directory / MINUTES).read_text())


def print_table(rows: dict[str, tuple[int, dict, float]]) -> None:
    """Markdown, the best mAP on top."""
    print("| network | trainable parameters | ROC-AUC | mAP | processor minutes |\n|---|---|---|---|---|")
    for name, (parameters, figures, minutes) in sorted(rows.items(), key=lambda item: -item[1][1]["map"]):
        low, high = figures["map_interval"]
        scores = f"{figures['roc_auc']:.3f} | {figures['map']:.3f} [{low:.3f}, {high:.3f}]".replace("0.", ".")
        print(f"| `{name}` | {parameters:,} | {scores} | {minutes:.1f} |")


if __name__ == "__main__":
    cli.main(main)
