"""README tells the truth: its commands are what CI runs, their flags exist, its files are there, its Python runs."""

import functools
import re
import subprocess
import sys

import pytest

from records.datasets import READERS
from tests.conftest import ROOT, tone
from tfmusic import recipes

README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = re.findall(r"(?:^    |`)(?:python )?((?:-m (?:records|export|tfmusic) \w+|train\.py)[^`\n]*)", README.replace("python -m", "-m"), re.M)


def test_ci_runs_the_first_two_commands():
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.M | re.S)
    assert "pip install -q -r requirements.txt && python train.py --task tagging" in blocks[0]
    assert "requirements/test.txt" in blocks[1] and "pytest" in blocks[1]
    assert "for number in 1 2" in (ROOT / ".ci" / "run").read_text()


@functools.cache
def help_of(*program):
    return subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_flags_of_a_command_exist(command):
    words = command.split()
    known = help_of(*(words[: 4 if words[2] == "similar" else 3] if words[0] == "-m" else words[:1]))
    for flag in re.findall(r"--[a-z][\w.-]*", re.sub(r'"[^"]*"', "", command)):
        assert flag in known, f"{command}: {flag}"
    recipe = re.search(r"--recipe (\w+)", command)
    assert recipe is None or recipe[1] in recipes.RECIPES


@pytest.mark.parametrize("options", re.findall(r'--beam-options="([^"]*)"', README))
def test_options_of_beam_are_ones_that_beam_knows(options):
    pipeline_options = pytest.importorskip("apache_beam.options.pipeline_options")
    known = pipeline_options.PipelineOptions(options.split()).get_all_options(drop_default=True)
    assert {word.split("=")[0].lstrip("-") for word in options.split()} <= {*known}


@pytest.mark.parametrize("dataset", [name for name, reader in READERS.items() if reader.label_sets])
def test_the_datasets_and_their_options_are_named(dataset):
    (line,) = [line for line in README.splitlines() if line.startswith(f"| `{dataset}` |")]
    assert all(name in line for name in READERS[dataset].label_sets)


def test_files_of_the_map_exist():
    names = re.findall(r"(\w+\.py)\b|\b(\w+)/ ", README[README.index("## Where things are") : README.index("## Dependencies")])
    for file, folder in names:
        name = file or folder
        assert any((ROOT / place / name).exists() for place in ("", "tfmusic", "records", "export", "tests")), name


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"^[A-Z]{3,}$", README, re.M)


def test_the_python_examples_run(trained, records, tmp_path, monkeypatch):
    """Each block, with this suite's run, records and waveform in the place of the reader's."""
    from export.bundle import bundle
    from tests.conftest import EXPERIMENT, RATE_HZ

    (tmp_path / "runs").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(records)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "tagging", lambda: EXPERIMENT.model_copy(update={"fit": EXPERIMENT.fit.model_copy(update={"epochs": 1})}))
    names = {"waveform": tone(2000, 1.0), "sample_rate_hz": RATE_HZ}
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    assert len(blocks) == 3
    for block in blocks:
        if "Predictor" in block:
            bundle("runs/mine")
        exec(block, names)
    assert names["figures"]["tracks"] == 16 and set(names["predict"](names["waveform"], RATE_HZ)) == {"high", "low", "noisy", "rare"}
