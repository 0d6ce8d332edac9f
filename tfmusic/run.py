"""A run directory: what lies in it.

experiment.json   all that is needed to repeat the run        labels.txt      the vocabulary
best.keras        the deployed model of the best epoch        state.npz       what resume needs, of the last finished epoch
history.csv       the logs of every epoch                     tensorboard/    event files
metrics.json      figures of validation and test              report.html     the same, to look at
embeddings.npz    outputs for the test tracks, and their truth scores.npz      a tagger's of the training tracks, where triplets come from them
bundle/           what is shipped
"""

from __future__ import annotations

import json
import platform
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tfmusic.config import VERSION, Experiment, InputError, Settings
from tfmusic.files import Location, RemotePath

if TYPE_CHECKING:
    import numpy as np  # at run time where it is needed: --list and --help do without

EXPERIMENT, LABELS, BEST, STATE = "experiment.json", "labels.txt", "best.keras", "state.npz"
HISTORY, METRICS, REPORT, TENSORBOARD = "history.csv", "metrics.json", "report.html", "tensorboard"
EMBEDDINGS, SCORES = "embeddings.npz", "scores.npz"
PACKAGES = ("tensorflow", "keras", "numpy")  # whose versions a run notes


class RunInfo(Settings):
    """experiment.json."""

    experiment: Experiment
    records: Location
    records_sha1: str  # of their manifest
    vocabulary_sha1: str
    code_version: str
    versions: dict[str, str]
    frozen_sha256: str | None = None  # of the best model of the run that --frozen names


def describe(experiment: Experiment, records: Path | RemotePath, records_sha1: str, vocabulary_sha1: str) -> RunInfo:
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


def thresholds(run: Path) -> list[float] | None:
    """Thresholds of the labels that the validation split gave; none: the run is not evaluated, or needs none."""
    return figures(run)["validation"].get("thresholds") if (run / METRICS).is_file() else None


def figures(run: Path) -> dict[str, dict]:
    """metrics.json: the figures of "validation" and "test".

    Raises:
        InputError: the run is not evaluated yet, or the file is damaged.
    """
    path = run / METRICS
    try:
        found = json.loads(path.read_text("utf-8"))
        return {split: found[split] for split in ("validation", "test")}
    except OSError as error:
        raise InputError(f"{run} must be a run with {METRICS}: {error.strerror}; finish it with: python train.py --resume {run}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} must hold the figures of a run, got {str(error)[:100]!r}") from error


def outputs(run: Path) -> dict[str, np.ndarray]:
    """embeddings.npz: what `evaluate.kept` kept of the test tracks.

    Raises:
        InputError: the run is not evaluated yet, or the file is damaged.
    """
    import numpy as np

    path = run / EMBEDDINGS
    try:
        with np.load(path) as kept:
            return dict(kept)
    except OSError as error:
        raise InputError(f"{run} must be a run with {EMBEDDINGS}: {error.strerror}; finish it with: python train.py --resume {run}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged; evaluate the run again: python train.py --resume {run}") from error


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
