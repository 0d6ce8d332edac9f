"""Slow: tests/golden/addons.npz, the numbers that test_embedding_losses.py compares with, made again by tensorflow-addons itself."""

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT, new_environment

GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def python(tmp_path):
    """The interpreter of a new environment of requirements/addons.txt: 1.7 GB, so it does not outlive the test."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip(
            f"TensorFlow 2.15 and tensorflow-addons have wheels together for Python 3.11 only, this is {sys.version_info[0]}.{sys.version_info[1]}"
        )
    with new_environment("addons.txt", tmp_path) as interpreter:
        yield interpreter


@pytest.mark.slow
def test_the_committed_numbers_are_those_of_tensorflow_addons(python, tmp_path):
    """Another processor may round otherwise, in the last place or two."""
    made = subprocess.run([python, GOLDEN / "addons.py", tmp_path / "addons.npz"], capture_output=True, text=True)
    assert not made.returncode, made.stderr
    again, committed = np.load(tmp_path / "addons.npz"), np.load(GOLDEN / "addons.npz")
    assert again.files == committed.files
    for name in committed.files:
        np.testing.assert_allclose(again[name], committed[name], rtol=1e-6, atol=1e-6, err_msg=name)
