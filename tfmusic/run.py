"""A run directory: what lies in it, and how its files are written so that a kill leaves no half one.

experiment.json   all that is needed to repeat the run        labels.txt      the vocabulary
best.keras        the deployed model of the best epoch        state.npz       what resume needs, of the last finished epoch
history.csv       the logs of every epoch                     tensorboard/    event files
metrics.json      figures of validation and test              report.html     the same, to look at
bundle/           what is shipped
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tfmusic.config import VERSION, Experiment, InputError, Settings

EXPERIMENT, LABELS, BEST, STATE = "experiment.json", "labels.txt", "best.keras", "state.npz"
HISTORY, METRICS, REPORT, TENSORBOARD = "history.csv", "metrics.json", "report.html", "tensorboard"
PACKAGES = ("tensorflow", "keras", "numpy")  # whose versions a run notes


class RunInfo(Settings):
    """experiment.json."""

    experiment: Experiment
    records: Path
    records_sha1: str  # of their manifest
    vocabulary_sha1: str
    code_version: str
    versions: dict[str, str]


def describe(experiment: Experiment, records: Path, records_sha1: str, vocabulary_sha1: str) -> RunInfo:
    """The run's own description, with the versions it ran on."""
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
    return RunInfo(
        experiment=experiment,
        records=records.resolve(),
        records_sha1=records_sha1,
        vocabulary_sha1=vocabulary_sha1,
        code_version=VERSION,
        versions=versions,
    )


def read(run: Path) -> RunInfo:
    """Reads experiment.json.

    Raises:
        InputError: the directory is no run, or its experiment.json does not fit this code.
    """
    path = run / EXPERIMENT
    try:
        return RunInfo.model_validate_json(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{run} must be a run directory with {EXPERIMENT}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} does not fit version {VERSION}: {' '.join(str(error).split())[:200]}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a file under its name only when complete."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # a power cut after the rename must not find it empty
    os.replace(temporary, path)


def write_json(path: Path, values: Any) -> None:
    """`write_text` of JSON; nan and infinity become null, for JSON has neither."""
    write_text(path, json.dumps(_finite(values), indent=1))


def write_csv(path: Path, rows: list[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """`write_text` of rows; columns: those of the first row unless given."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
