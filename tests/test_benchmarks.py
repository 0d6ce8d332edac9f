"""Every benchmark runs at a tiny size and ends with a line of JSON; what the figures are is for a person to judge."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import common
from tfmusic import training

TINY = {
    "records": ["--clips", "3", "--clip-s", "5"],
    "memory": ["--clips", "12", "24"],
    "pipeline": ["--tracks", "18", "--track-s", "6", "--batches", "2", "--no-curve"],
    "payloads": ["--clips", "2", "--tracks", "18", "--track-s", "6", "--batches", "2"],
    "training": ["--batch-size", "4", "--steps", "1", "--epoch-steps", "2", "--width", "0.05"],
    "retrieval": ["--items", "300", "--queries", "2"],
    "inference": ["--windows", "2", "--width", "0.05"],
}


@pytest.mark.parametrize(
    "area", [pytest.param(area, marks=[pytest.mark.slow] * (area in ("memory", "payloads", "inference", "training", "pipeline"))) for area in TINY]
)
def test_a_benchmark_ends_with_its_figures_as_json(area, capsys, monkeypatch):
    monkeypatch.setattr(training, "precision_of", lambda setting: "float32")  # half the tracing
    benchmark = importlib.import_module(f"tests.benchmarks.{area}")
    common.run(benchmark.Sizes, benchmark.measure, ["--json", "--rounds", "1", *TINY[area]])
    *table, line = capsys.readouterr().out.rstrip().split("\n")
    result = json.loads(line)
    assert set(result) == {"area", "seconds", "machine", "versions", "rows"}
    assert result["area"] == area and result["machine"]["cores"] > 0 and "tensorflow" in result["versions"]
    assert len(table) == 2 + len(result["rows"])  # machine, heads
    for row in result["rows"]:
        assert set(row) == {"what", "unit", "ours", "peer_name", "peer", "ratio", "bar"}
        grows = row["unit"] == "bytes a clip"  # of a dozen clips: noise of either sign
        assert (grows or row["ours"] > 0) and (row["peer"] is None or row["peer"] > 0 and row["ratio"] > 0)
    assert any(row["peer"] for row in result["rows"])


def test_ratios_are_above_1_where_ours_is_better_and_medians_of_pairs():
    """Speeds 2, 8, 3 against 1, 2, 3: ratios 2, 4, 1, median 2; as times the ratios are 1/2, 1/4, 1."""
    ours, peer = [2.0, 8.0, 3.0], [1.0, 2.0, 3.0]
    faster = common.compare("x", "clips/s", ours, "peer", peer, higher=True)
    assert (faster.ours, faster.peer, faster.ratio) == (3, 2, 2)
    assert common.compare("x", "ms", ours, "peer", peer, higher=False).ratio == 0.5


def test_rounds_alternate_and_turn_round():
    order = []
    found = common.alternate({name: lambda name=name: order.append(name) or {"ms": len(order)} for name in "ab"}, rounds=3)
    assert "".join(order) == "abbaab"
    assert found == {"a": {"ms": [1, 4, 5]}, "b": {"ms": [2, 3, 6]}}


def test_the_readme_table_has_a_line_for_every_row_with_a_peer():
    rows = [common.Row("step", "ms", 36.04, "Keras", 153.0, 4.25), common.Row("storage", "of the audio", 2.1)]
    result = {"machine": {"cpu": "EPYC", "cores": 2}, "rows": [vars(row) for row in rows]}
    assert common.markdown([result]).split("\n")[2:] == ["| step, ms | 36 | 153 (Keras) | 4.25 | EPYC, 2 cores |"]


def test_synthesised_music_is_finite_and_heard():
    waveform = common.music(2, 16_000, seed=1)
    assert waveform.shape == (32_000, 2) and waveform.dtype == np.float32
    assert 0.01 < np.abs(waveform).mean() and np.abs(waveform).max() <= 1


def test_the_table_of_strategies_is_of_experiments_that_stand_and_shows_chance_and_spread(capsys):
    """Values .1, .2, .3: mean .2, standard deviation .1; a figure that there is not is a dash."""
    from tests.benchmarks import strategies

    for number, changes in enumerate(strategies.ROWS.values()):
        experiment = strategies.experiment_of(changes, seed=number, epochs=2, crops=1, tagger=Path("tagger"))
        assert experiment.fit.seed == number and experiment.recipe == experiment.task
    names = dict.fromkeys(strategies.COLUMNS)
    strategies.print_table({"ours": [{**names, "map_at_r": value, "map_at_r_random": 0.05} for value in (0.1, 0.2, 0.3)]})
    _, _, chance, ours = capsys.readouterr().out.splitlines()
    assert chance == "| random ranking | - | .050 | - | - | - | - |" and ours == "| ours | - | .200 ± .100 | - | - | - | - |"
