"""Every benchmark runs at a tiny size and ends with a line of JSON; what the figures are is for a person to judge."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import common
from tests.test_data import ramps  # noqa: F401
from tfmusic import catalogue, schema, training
from tfmusic.config import InputError

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


def test_a_long_tail_falls_as_asked_and_its_records_are_those_of_the_source(ramps, tmp_path):  # noqa: F811
    """Of labels that 40, 30, 20 and 20 tracks have alone the rarer two get 30 (3 / 30)^(1/2) = 9 and 3. Of five tracks of one label each the three
    last keep one, all of their chunks as they were."""
    from tests.benchmarks import imbalance

    labels = np.repeat(np.eye(4, dtype=int), [40, 30, 20, 20], axis=0)
    kept, tail = imbalance.thinned(labels, 3)
    assert labels[kept].sum(axis=0).tolist() == [40, 30, 9, 3] and tail.tolist() == [2, 3]
    directory, manifest = ramps
    names = imbalance.subset(directory, tmp_path / "tail", 1)
    thinned = schema.read_manifest(tmp_path / "tail")
    found, source = catalogue.read(tmp_path / "tail", thinned), catalogue.read(directory, manifest)
    assert len(found) == thinned.split("train").tracks == 5 and len(names) == 3 and np.diff(found.first).max() > 1
    for track in catalogue.tracks(found, thinned):
        row = source.ids.index(track.id)
        np.testing.assert_array_equal(track.waveform, catalogue.waveform(source, manifest, row))
    assert imbalance.subset(directory, tmp_path / "tail", 1) == names
    with pytest.raises(InputError, match="of other records or --fewest"):
        imbalance.subset(directory, tmp_path / "tail", 2)


def test_the_table_of_rare_labels_has_intervals_of_seeds_and_of_pairs(capsys):
    """.5, .6, .7: t(2) = 4.303 times .1 / sqrt(3) = .248; pairs differ by .1 each: no spread."""
    from tests.benchmarks import imbalance

    for number, changes in enumerate(imbalance.ROWS.values()):
        assert imbalance.experiment_of(changes, number, 2, 0.25, 0.03).fit.seed == number
    rows = {name: [dict.fromkeys(imbalance.COLUMNS, value) for value in values] for name, values in
            (("plain", (0.5, 0.6, 0.7)), ("class weights", (0.6, 0.7, 0.8)))}  # fmt: skip
    imbalance.print_table(rows)
    *_, plain, _, difference = capsys.readouterr().out.splitlines()
    assert plain.startswith("| plain | 0.600 [0.352, 0.848] |") and difference.startswith("| class weights - plain | +0.100 [+0.100, +0.100] |")
