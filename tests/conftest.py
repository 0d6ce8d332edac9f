"""A tiny labelled collection, its records, and one trained run, made once per test process."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import soundfile

from tfmusic.config import Data, Evaluation, Experiment, Fit, FrontEnd, Layout, Net

ROOT = Path(__file__).parent.parent
RATE_HZ = 8_000
LAYOUT = Layout(sample_rate_hz=RATE_HZ, chunk_s=0.8, stride_s=0.3)
EXPERIMENT = Experiment(
    recipe="tiny",
    frontend=FrontEnd(sample_rate_hz=RATE_HZ, window_s=0.5, n_fft=256, hop_samples=128, n_mels=16),
    data=Data(crops_per_clip=2),
    net=Net(name="cnn2d", width=0.125, dropout=0.2),
    fit=Fit(epochs=4, batch_size=8, learning_rate=1e-2, deterministic=True),
    evaluation=Evaluation(hop_s=0.25, bootstrap=20),
)
LONGEST = (  # files, most seconds first: where each goes to a process as a whole, the last one to begin should not be long
    "similarity", "training", "end_to_end", "tasks", "deploy", "export", "models", "recipes", "metadata", "build", "cli", "frontend", "similar",
    "embedding_losses",
)  # fmt: skip


def pytest_configure(config):
    """pytest-xdist would begin with the files of the most tests, and those of a few long ones would come last."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Longest files first, then by name; the tests of a file in their order."""
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(place)), item.path))


def call_here(script: str, *arguments) -> subprocess.CompletedProcess:
    """A program of the repository run in this process, which has TensorFlow already: a process of its own imports it for seconds."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code = 0
    with (
        contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), contextlib.chdir(ROOT),
        mock.patch.object(sys, "argv", [script, *map(str, arguments)]),
    ):  # fmt: skip
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
    if isinstance(code, str):  # what the interpreter does with it
        code, _ = 1, errors.write(f"{code}\n")
    return subprocess.CompletedProcess(script, code, *(stream.buffer.getvalue().decode() for stream in (out, errors)))


SEQUENCE_PARTS = {  # of EXPERIMENT, for a net that reads sequences
    "frontend": FrontEnd(sample_rate_hz=RATE_HZ),
    "data": Data(),
    "evaluation": Evaluation(bootstrap=20),
}


def tone(frequency_hz: float, seconds: float, rate_hz: int = RATE_HZ, level: float = 0.3, seed: int = 0) -> np.ndarray:
    """A sine in a little noise, float `[shape=(samples,)]`."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time_s))
    return level * np.sin(2 * np.pi * frequency_hz * time_s) + noise


def write_csv(path: Path, rows: list[dict]) -> Path:
    """A csv with the keys of the first row as columns."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a csv."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@contextlib.contextmanager
def new_environment(requirements: str, directory: Path):
    """The interpreter of a virtual environment of one of requirements/; it holds gigabytes, so it does not outlive its user."""
    environment = directory / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    command = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--retries", "1", "-r", ROOT / "requirements" / requirements]
    installed = subprocess.run(command, capture_output=True, text=True)
    if "(from versions: none)" in installed.stderr:  # of any package: no index, or none of its files for this machine
        pytest.skip(f"pip finds no package index, or no wheel for this machine: {installed.stderr.strip().splitlines()[-1]}")
    assert not installed.returncode, installed.stderr
    yield environment / "bin" / "python"
    shutil.rmtree(environment)


def finished_run(directory: Path, figures: dict, kept: dict, **changes) -> Path:
    """A run directory as evaluation leaves it, without a model: its figures of both splits and what it keeps of the test tracks."""
    from tfmusic import files, run

    directory.mkdir(parents=True)
    experiment = Experiment.model_validate(EXPERIMENT.model_dump() | changes)
    files.write_text(directory / run.EXPERIMENT, run.describe(experiment, directory.parent / "records", "0", "0").model_dump_json())
    files.write_json(directory / run.METRICS, {"validation": figures, "test": figures})
    files.write_npz(directory / run.EMBEDDINGS, **kept)
    return directory


@pytest.fixture(scope="session")
def collection(tmp_path_factory) -> Path:
    """60 clips of .4 to 2 s: low or high tones, half of them over noise; artists in one split each; one tag is absent from the test split."""
    directory = tmp_path_factory.mktemp("collection")
    random = np.random.default_rng(1)
    rows = []
    for index in range(60):
        split = "train" if index < 32 else "valid" if index < 44 else "test"
        high, noisy = index % 2, index // 2 % 2
        waveform = tone(random.uniform(1500, 3000) if high else random.uniform(150, 500), random.uniform(0.4, 2.0), seed=index)
        waveform += noisy * random.normal(0, 0.1, len(waveform))
        name = f"{split}/{index:02d}.{'flac' if index % 3 else 'wav'}"
        (directory / split).mkdir(exist_ok=True)
        soundfile.write(directory / name, waveform, RATE_HZ)
        tags = ["high" if high else "low", *(["noisy"] if noisy else []), *(["rare"] if index == 3 else [])]
        rows.append({"path": name, "split": split, "group": f"{split}{index // 4}", "tags": "|".join(tags), "pitch": round(random.uniform(), 3)})
    write_csv(directory / "clips.csv", rows)
    return directory


@pytest.fixture(scope="session")
def records(collection, tmp_path_factory) -> Path:
    """Records of `collection`."""
    from records.build import build
    from records.datasets.clip import Source

    out = tmp_path_factory.mktemp("records") / "shards"
    build(Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",)), out, LAYOUT)
    return out


@pytest.fixture(scope="session")
def one_label(collection, tmp_path_factory) -> Path:
    """Records of `collection` for one label of all: a clip is high or low; its pitch in Hz says which, unknown for every fifth; noise is 1 or 0."""
    from records.build import build
    from records.datasets.clip import Source

    rows = []
    for number, row in enumerate(read_csv(collection / "clips.csv")):
        tags = row["tags"].split("|")
        height = "high" if "high" in tags else "low"
        pitch = "" if number % 5 == 0 else {"high": 2250, "low": 325}[height]
        rows.append(row | {"tags": height, "pitch": pitch, "noise": float("noisy" in tags)})
    out = tmp_path_factory.mktemp("one_label") / "records"
    listing = write_csv(out.parent / "clips.csv", rows)
    build(Source(dataset="csv", csv=listing, audio=collection, targets=("pitch", "noise")), out, LAYOUT)
    return out


@pytest.fixture(scope="session")
def trained(records, tmp_path_factory) -> Path:
    """A finished run on `records`."""
    from tfmusic import training

    return training.fit(EXPERIMENT, records, tmp_path_factory.mktemp("runs") / "run")
