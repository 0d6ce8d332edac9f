"""What TensorBoard's own plugins read back from the event files: curves, the table over runs, sounds."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups
from tensorboard.plugins.pr_curve import pr_curves_plugin

from tests.conftest import EXPERIMENT
from tfmusic import board
from tfmusic.page import Exhibit, Sound

RATE_HZ = 8_000


def opened(directory):
    """TensorBoard's view of a folder of runs, as its plugins get it."""
    found = plugin_event_multiplexer.EventMultiplexer()
    found.AddRunsFromDirectory(str(directory))
    found.Reload()
    return base_plugin.TBContext(data_provider=data_provider.MultiplexerDataProvider(found, str(directory)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in learning rate and score; four classes, of which one is of no track and one of all."""
    directory, random = tmp_path_factory.mktemp("board"), np.random.default_rng(0)
    y_true = np.stack([*(random.random((2, 50)) < 0.4), np.zeros(50, bool), np.ones(50, bool)], axis=1)
    scores = np.clip(random.random((50, 4)) * 0.7 + 0.3 * y_true, 0, 1).round(1).astype("float32")
    sound = Sound("a track", np.arange(800, dtype=np.int16))
    for name, rate, value in (("one", 1e-3, 0.5), ("two", 1e-2, 0.75)):
        experiment = EXPERIMENT.model_copy(update={"fit": EXPERIMENT.fit.model_copy(update={"learning_rate": rate})})
        board.write(
            directory / name / "tensorboard" / "test",
            [Exhibit("Heard", "of <b>one</b>", [["a", "b"], ["1", "2"]], sounds=(sound,))],
            RATE_HZ,
            tagged=(y_true, scores, ["a/b", "c", "nobody's", "all"]),
            settings=board.settings_of(experiment, "mine"),
            figures={"validation": {"map": value}, "test": {"map": value - 0.1, "accuracy": None}},
        )
    return directory, y_true, scores


def test_precision_recall_curves_are_scikit_learns(runs):
    """At the thresholds that are scores; classes of no track or of all have no curve."""
    directory, y_true, scores = runs
    plugin, ctx = pr_curves_plugin.PrCurvesPlugin(opened(directory)), context.RequestContext()
    tags = plugin.tags_impl(ctx, "experiment")["one/tensorboard/test"]
    assert {tag: found["displayName"] for tag, found in tags.items()} == {f"precision-recall/{name}/pr_curves": name for name in ("a/b", "c")}
    for column, tag in enumerate(tags):
        (found,) = plugin.pr_curves_impl(ctx, "experiment", ["one/tensorboard/test"], tag)["one/tensorboard/test"]
        precision, recall, thresholds = sklearn_metrics.precision_recall_curve(y_true[:, column], scores[:, column])
        ours = {round(value, 3): place for place, value in enumerate(found["thresholds"])}
        places = [ours[round(float(value), 3)] for value in thresholds]
        np.testing.assert_allclose(np.array(found["precision"])[places], precision[:-1], atol=1e-6)
        np.testing.assert_allclose(np.array(found["recall"])[places], recall[:-1], atol=1e-6)


def test_the_table_over_runs_has_settings_and_figures(runs):
    """A row a run; what differs is the learning rate alone; a figure that does not exist is no scalar."""
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        slice_size=10,
        col_params=[{"hparam": "fit.learning_rate"}, {"metric": {"tag": "test/map"}}],
    )
    backend, ctx = backend_context.Context(opened(runs[0])), context.RequestContext()
    experiment = get_experiment.Handler(ctx, backend, "experiment", api_pb2.GetExperimentRequest()).run()
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["fit.learning_rate"]
    assert {(info.name.group, info.name.tag) for info in experiment.metric_infos} == {("", "validation/map"), ("", "test/map")}
    groups = list_session_groups.Handler(ctx, backend, "experiment", request).run().session_groups
    rows = {(group.hparams["fit.learning_rate"].number_value, round(group.metric_values[0].value, 6)) for group in groups}
    assert rows == {(1e-3, 0.4), (1e-2, 0.65)}


def test_settings_are_what_the_table_takes():
    found = board.settings_of(EXPERIMENT, "mine")
    assert found["fit.learning_rate"] == 1e-2 and found["fit.deterministic"] is True and found["frozen"] == "none" and found["records"] == "mine"
    assert found["frontend.features"] == "log_mel" and found["augment.waveform.noise_snr_db"] == "10.0 40.0"
    assert {type(value) for value in found.values()} <= {bool, int, float, str}


def test_texts_and_sounds_are_there_once(runs):
    """Written again, an evaluation stands in place of the earlier one."""
    directory = runs[0] / "two" / "tensorboard" / "test"
    assert len([*directory.iterdir()]) == 1
    provider, ctx = opened(runs[0]).data_provider, context.RequestContext()
    heard = provider.list_blob_sequences(ctx, experiment_id="experiment", plugin_name="audio")["two/tensorboard/test"]
    told = provider.list_tensors(ctx, experiment_id="experiment", plugin_name="text")["two/tensorboard/test"]
    assert [*heard] == ["Heard/0"] and [*told] == ["Heard/text"]
    board.write(directory, [], RATE_HZ)
    assert len([*directory.iterdir()]) == 1
    assert not opened(runs[0]).data_provider.list_tensors(ctx, experiment_id="experiment", plugin_name="text").get("two/tensorboard/test")
