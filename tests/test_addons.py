"""Slow: tests/golden/addons.npz, the numbers that test_embedding_losses.py compares with, made again by tensorflow-addons itself."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def python(tmp_path):
    """The interpreter of a new environment of requirements/addons.txt: 1.7 GB, so it does not outlive the test."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip(
            f"TensorFlow 2.15 and tensorflow-addons have wheels together for Python 3.11 only, this is {sys.version_info[0]}.{sys.version_info[1]}"
        )
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    command = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--retries", "1", "-r", ROOT / "requirements" / "addons.txt"]
    installed = subprocess.run(command, capture_output=True, text=True)
    if "(from versions: none)" in installed.stderr:  # of any package: no index, or none of its files for this machine
        pytest.skip(f"pip finds no package index, or no wheel for this machine: {installed.stderr.strip().splitlines()[-1]}")
    assert not installed.returncode, installed.stderr
    yield environment / "bin" / "python"
    shutil.rmtree(environment)


@pytest.mark.slow
def test_the_committed_numbers_are_those_of_tensorflow_addons(python, tmp_path):
    """Another processor may round otherwise, in the last place or two."""
    made = subprocess.run([python, GOLDEN / "addons.py", tmp_path / "addons.npz"], capture_output=True, text=True)
    assert not made.returncode, made.stderr
    again, committed = np.load(tmp_path / "addons.npz"), np.load(GOLDEN / "addons.npz")
    assert again.files == committed.files
    for name in committed.files:
        np.testing.assert_allclose(again[name], committed[name], rtol=1e-6, atol=1e-6, err_msg=name)
