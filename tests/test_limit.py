"""A quick look at a few tracks: the same ones each time, counted as they are, and never taken for all of them."""

import json

import numpy as np
import pytest

import train
from export.bundle import bundle
from tests.conftest import EXPERIMENT, call_here
from tests.test_data import LENGTHS, ramps  # noqa: F401
from tfmusic import catalogue, data, evaluate, leaks, report, run, schema, tables, training


def test_a_few_tracks_of_each_split_are_the_same_and_some_of_more(records):
    """10 of 32, 12 and 16 tracks: labels counted from what is read, ids in the records' order; 5 of them are among the 10."""
    manifest = schema.read_manifest(records)
    views = {limit: catalogue.limited(records, manifest, limit) for limit in (5, 10)}
    assert catalogue.limited(records, manifest, 10) == views[10] and catalogue.limited(records, manifest, None) is manifest
    for split in ("valid", "test"):
        whole, ten, five = ([track.id for track in data.tracks(records, one, split)] for one in (manifest, views[10], views[5]))
        assert ten == [name for name in whole if name in ten] and {*five} <= {*ten} and (len(ten), len(five)) == (10, 5)
        labels = np.array([track.labels for track in data.tracks(records, views[10], split)])
        assert views[10].splits[split].label_counts == tuple(labels.sum(axis=0))
        assert views[10].splits[split].samples == sum(len(track.waveform) for track in data.tracks(records, views[10], split))
        assert catalogue.whole_tracks(records, views[10], split, {7})[7].id == ten[7]
    few, all_of_them = (catalogue.read(records, one) for one in (views[10], manifest))
    assert len(few) == 10 and {*few.ids} < {*all_of_them.ids}
    assert catalogue.limited(records, manifest, 1000).splits == manifest.splits
    leaks.check_apart(None, records, views[10])


def test_every_chunk_of_a_chosen_track_is_there(ramps):  # noqa: F811
    """Tracks of 1 to 8 chunks; in every epoch the same two of five tracks are heard, once each."""
    directory, manifest = ramps
    view = catalogue.limited(directory, manifest, 2)
    rows = [runs for shard in view.shards for runs in shard.runs]
    assert [one.tracks for one in rows] == [1, 1] and all(len(one.offsets) == one.parts for one in rows)
    heard = [[truth["labels"].argmax() for _, truth, _ in data.windows(directory, view, one_crop(), epoch).as_numpy_iterator()] for epoch in range(6)]
    assert all(sorted(tracks) == sorted({*heard[0]}) and len(tracks) == 2 for tracks in heard)
    for track in catalogue.tracks(catalogue.read(directory, view), view):
        assert len(track.waveform) == LENGTHS[int(track.id.removesuffix(".wav"))]


def one_crop():
    return EXPERIMENT.model_copy(update={"data": EXPERIMENT.data.model_copy(update={"crops_per_clip": 1})})


@pytest.fixture(scope="module")
def quick_run(records, tmp_path_factory):
    experiment = EXPERIMENT.model_copy(
        update={"data": EXPERIMENT.data.model_copy(update={"limit": 8}), "fit": EXPERIMENT.fit.model_copy(update={"epochs": 1})}
    )
    return training.fit(experiment, records, tmp_path_factory.mktemp("limit") / "run")


def test_a_limited_run_says_so_wherever_its_figures_stand(quick_run, records):
    """experiment.json, metrics.json, the printed table, report, model card and the bundle's card; resumed and evaluated again it sees the same."""
    info, found = run.read(quick_run), json.loads((quick_run / run.METRICS).read_text())
    assert info.experiment.data.limit == 8 and info.records_sha1 == schema.read_manifest(records).sha1
    assert found["test"]["tracks"] == found["validation"]["tracks"] == found["test"]["limit"] == 8
    assert evaluate.records_of(quick_run, info).split("train").tracks == 8
    line = "A quick look (--limit 8): trained, chosen and tested on 8 tracks of each split at most. These are not the records' figures."
    assert report.write(quick_run).splitlines()[-1] == line == tables.quick(8)[0]
    page = (quick_run / run.REPORT).read_text().replace("&#x27;", "'")
    assert page.count(line) == 2 and "Its figures hold for tracks like" not in page
    again = evaluate.evaluate(quick_run, "test")
    assert again["tracks"] == 8 and again["map"] == pytest.approx(found["test"]["map"])
    bundle(quick_run)
    assert line in (quick_run / "bundle" / "card.md").read_text() and "8 test clips" in (quick_run / "bundle" / "card.md").read_text()


def test_a_whole_run_says_nothing_of_it(trained):
    assert "limit" not in run.figures(trained)["test"] and "quick look" not in (report.write(trained) + (trained / run.REPORT).read_text())


def test_the_flag_is_short_for_a_setting_and_not_for_a_resumed_run(quick_run):
    assert train.defaults(train.Choice(task="tagging", limit=8), []).data.limit == 8
    assert "--resume takes no other flag, got 9" in call_here("train.py", "--resume", quick_run, "--limit", "9").stderr
    assert call_here("train.py", "--task", "tagging", "--limit", "0").returncode == 2
