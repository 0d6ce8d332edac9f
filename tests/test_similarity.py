"""`--task similarity` from records to a run: every loss and kind of batch trains, a backbone is brought and frozen, and it goes on."""

import csv
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from export.bundle import bundle
from tests.conftest import EXPERIMENT, LAYOUT, RATE_HZ, write_csv
from tfmusic import catalogue, data, evaluate, models, report, run, schema, training, transfer
from tfmusic.config import Experiment, InputError, Sampling, Similarity

TINY = {
    **EXPERIMENT.model_dump(),
    "task": "similarity",
    "net": {"name": "cnn2d", "width": 0.125, "embedding": 8},
    "fit": {**EXPERIMENT.fit.model_dump(), "batch_size": 12, "monitor": "val_map_at_r"},
    "sampling": {"clips_per_label": 3},
}


def experiment(epochs=4, **changes):
    fit = {**TINY["fit"], "epochs": epochs, **changes.pop("fit", {})}
    return Experiment.model_validate({**TINY, "fit": fit, **changes})


@pytest.fixture(scope="module")
def embedded(records, tmp_path_factory):
    return training.fit(experiment(), records, tmp_path_factory.mktemp("runs") / "run")


def figures_of(directory):
    return json.loads((directory / run.METRICS).read_text())["test"]


def test_high_and_low_tones_move_apart(embedded):
    """Random ranking of the 16 test tracks would reach the baseline beside each figure."""
    figures = figures_of(embedded)
    for name in ("recall_at_1", "map_at_r", "ndcg_at_8", "filtered_map_at_r"):
        assert figures[name] > figures[f"{name}_random"] + 0.1
        assert figures[f"{name}_interval"][0] <= figures[name] <= figures[f"{name}_interval"][1]
    assert figures["group_recall_at_1"] is not None and "map" not in figures


def test_the_log_of_every_epoch_has_retrieval_figures_and_the_share_of_active_triplets(embedded):
    header, *rows = (embedded / run.HISTORY).read_text().splitlines()
    assert {"loss", "active", "val_recall_at_1", "val_map_at_r", "val_ndcg_at_8"} <= set(header.split(","))
    assert len(rows) == 4


SLOW = [pytest.mark.slow]  # balanced batches train in `embedded`, a tagger's errors where a mined run goes on, proxy anchors where a run is cut


@pytest.mark.parametrize(
    "batches", ["shuffled", "triplets", "crops", *(pytest.param(name, marks=SLOW) for name in ("balanced", "extremes", "errors"))]
)
def test_every_kind_of_batch_trains(batches, records, trained, tmp_path):
    tagger = trained if batches in ("extremes", "errors") else None
    sampling = {"batches": batches, "tagger": tagger} | ({"clips_per_label": 3} if batches == "balanced" else {})
    directory = training.fit(experiment(1, sampling=sampling), records, tmp_path / "run")
    (row,) = csv.DictReader((directory / run.HISTORY).read_text().splitlines())
    assert 0 < float(row["loss"]) < 10 and 0 < float(row["active"]) <= 1


def test_settings_that_are_none_are_the_losses_own():
    """ProxyNCA's scale is 9, proxy anchor's 32 and its margin .1, the triplet's .2; an IDF weight for each tag."""
    from tfmusic import tasks

    def settings(loss, truth=None, **changes):
        return tasks._loss_layer(experiment(1, similarity={"loss": loss, **changes}), truth, 4).settings

    layers = [tasks._loss_layer(experiment(1, similarity={"loss": "proxy_nca"}, fit={"seed": seed}), None, 4) for seed in (0, 0, 1)]
    first, same, other = (np.array(layer(np.eye(4), np.eye(4)) is None or layer.proxies) for layer in layers)
    assert np.array_equal(first, same) and not np.array_equal(first, other)  # the proxies' start is of --fit.seed
    assert settings("proxy_nca") == {"scale": 9.0} and settings("proxy_anchor") == {"margin": 0.1, "scale": 32.0}
    assert settings("triplet")["margin"] == 0.2 and settings("triplet", soft_margin=True)["margin"] is None
    weights = settings("supervised_contrastive", np.array([[1, 0], [1, 1]]), overlap="idf")["weights"]
    np.testing.assert_allclose(weights, [0, np.log(2)], rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "positives"),
    [
        pytest.param(loss, positives, marks=SLOW * (positives != quick))  # that the other positives give the same truth, test_sampling shows
        for loss, quick in {"supervised_contrastive": "tags", "nt_xent": "group", "proxy_nca": "group", "proxy_anchor": "none"}.items()
        for positives in ("tags", "group")
    ],
)
def test_every_loss_trains_on_tags_and_on_groups(loss, positives, records, tmp_path):
    settings = {"similarity": {"loss": loss}, "sampling": {"positives": positives, "clips_per_label": 3}}
    directory = training.fit(experiment(1, evaluation={"hop_s": 0.5, "bootstrap": 0}, **settings), records, tmp_path / "run")
    assert np.isfinite(float((directory / run.HISTORY).read_text().splitlines()[1].split(",")[1]))


def test_tags_learnt_beside_the_embedding_make_a_model_of_both(records, tmp_path):
    directory = training.fit(experiment(3, similarity={"tag_weight": 1.0}), records, tmp_path / "run")
    figures = figures_of(directory)
    assert figures["roc_auc"] > 0.7 and figures["map_at_r"] > figures["map_at_r_random"]
    assert set(evaluate.load_best(directory).output) == {"tags", "embedding"}


# --- a tagger first ---------------------------------------------------------------------------------------------------------------------------
def test_a_tagger_brings_its_weights_and_the_frozen_ones_stay(records, trained, tmp_path):
    """All up to conv3 are as the tagger left them, norm3 and what is behind moves, the projection is new; resume brings nothing twice."""
    tagger = shutil.copytree(trained, tmp_path / "tagger")
    directory = training.fit(experiment(1, init=tagger, freeze="conv3"), records, tmp_path / "run")
    nets = [models.parts(evaluate.load_best(one))[1] for one in (trained, directory)]
    for layer in nets[1].layers:
        if layer.weights and layer.name != "projection":
            equal = [np.array_equal(*pair) for pair in zip(nets[0].get_layer(layer.name).get_weights(), layer.get_weights(), strict=True)]
            assert all(equal) == (layer.name in ("input_norm", "conv1", "norm1", "conv2", "norm2", "conv3")), layer.name
    before = (directory / run.METRICS).read_bytes()
    shutil.rmtree(tagger)  # it is needed no more
    training.resume(directory)
    assert (directory / run.METRICS).read_bytes() == before


@pytest.mark.parametrize("how", ["init", "frozen", "tagger"])
def test_a_run_that_has_heard_the_test_tracks_is_refused(records, collection, trained, tmp_path, capsys, how):
    """The same audio, training and test split swapped. When the old records are gone, a line says that nobody can tell."""
    from records.build import build
    from records.datasets.clip import Source

    with open(collection / "clips.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    swapped = [{**row, "split": {"train": "test", "test": "train"}.get(row["split"], row["split"])} for row in rows]
    write_csv(tmp_path / "swapped.csv", swapped)
    other = tmp_path / "other"
    build(Source(dataset="csv", csv=tmp_path / "swapped.csv", audio=collection, targets=("pitch",)), other, LAYOUT)

    def settings_with(source):
        return {"init": {"init": source}, "frozen": {"frozen": str(source)}, "tagger": {"sampling": {"batches": "errors", "tagger": source}}}[how]

    settings = settings_with(trained)
    with pytest.raises(InputError, match="was trained on 32 of the validation and test tracks"):
        training.fit(experiment(1, **settings), other, tmp_path / "run")
    assert not (tmp_path / "run").exists()

    through = shutil.copytree(trained, tmp_path / "through")  # begun with one that has, on records that are fine
    info = json.loads((through / run.EXPERIMENT).read_text())
    info |= {"records": str(other), "records_sha1": schema.read_manifest(other).sha1, "experiment": {**info["experiment"], "init": str(trained)}}
    (through / run.EXPERIMENT).write_text(json.dumps(info))
    settings = settings_with(through)
    with pytest.raises(InputError, match=f"{trained} must not know what is scored here"):
        training.fit(experiment(1, **settings), other, tmp_path / "run")

    (through / run.EXPERIMENT).write_text(json.dumps({**info, "records_sha1": "another", "experiment": {**info["experiment"], "init": None}}))
    with pytest.raises(InputError, match="must be trained anew: its records .* were built again since"):
        training.fit(experiment(1, **settings), records, tmp_path / "run")

    moved = shutil.copytree(trained, tmp_path / "moved")
    info = json.loads((moved / run.EXPERIMENT).read_text())
    (moved / run.EXPERIMENT).write_text(json.dumps({**info, "records": str(tmp_path / "gone"), "records_sha1": "0"}))
    training.fit(experiment(int(how != "init"), **settings_with(moved)), records, tmp_path / "run")  # --init is asked without an epoch
    assert "cannot be compared with the tracks that are scored here" in capsys.readouterr().out


def test_positives_that_no_two_clips_share_are_refused(collection, tmp_path):
    """Without a group column every clip is its own group: the loss would be 0 for ever."""
    from records.build import build
    from records.datasets.clip import Source

    with open(collection / "clips.csv", newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "group"} for row in csv.DictReader(file)]
    build(Source(dataset="csv", csv=write_csv(tmp_path / "clips.csv", rows), audio=collection), tmp_path / "records", LAYOUT)
    with pytest.raises(InputError, match="--sampling.positives group must be shared by two training tracks"):
        settings = {"sampling": {"batches": "shuffled", "positives": "group"}}
        training.fit(experiment(1, **settings), tmp_path / "records", tmp_path / "run")


@pytest.mark.slow
def test_without_groups_their_figures_are_none_and_no_monitor(collection, tmp_path):
    """A csv without groups: every clip is its own, so no figure of groups exists."""
    from records.build import build
    from records.datasets.clip import Source

    with open(collection / "clips.csv", newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "group"} for row in csv.DictReader(file)]
    build(Source(dataset="csv", csv=write_csv(tmp_path / "clips.csv", rows), audio=collection), tmp_path / "records", LAYOUT)
    with pytest.raises(InputError, match="--fit.monitor must be a figure that the validation split has, got val_group_map_at_r"):
        training.fit(experiment(1, fit={"monitor": "val_group_map_at_r"}), tmp_path / "records", tmp_path / "run")

    directory = training.fit(experiment(1), tmp_path / "records", tmp_path / "run")
    assert figures_of(directory)["filtered_map_at_r"] is None
    assert report.write(directory).splitlines()[-1].split()[-1] == "none"
    assert ", other groups only" not in (directory / run.REPORT).read_text().split("<h2>Retrieval")[1].split("<h2>")[0]
    assert "| none |" in (bundle(directory) / "card.md").read_text()


def test_brought_layers_have_a_learning_rate_of_their_own(records, trained, tmp_path):
    """At 0 they stand still, batch statistics apart, while the projection learns."""
    directory = training.fit(experiment(1, init=trained, fit={"init_learning_rate": 0.0}), records, tmp_path / "run")
    old, new = (models.parts(evaluate.load_best(one))[1] for one in (trained, directory))
    np.testing.assert_array_equal(old.get_layer("conv1").get_weights()[0], new.get_layer("conv1").get_weights()[0])
    fresh = models.build(experiment(1).net, new.input.shape[1:], 0)
    assert np.abs(new.get_layer("projection").get_weights()[1]).max() > 0 == np.abs(fresh.get_layer("projection").get_weights()[1]).max()  # biases


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"freeze": "conv9"}, "--freeze must be a layer of cnn2d: .*conv4.*; got 'conv9'"),
        ({"freeze": "projection"}, "--freeze must be a layer of cnn2d: .*norm4; got 'projection'"),
        ({"net": {"name": "cnn2d", "width": 0.25}}, "--net.width must be that of --init .*, 0.125, got 0.25"),
        ({"fit": {"monitor": "val_map"}}, "--fit.monitor must be one of val_recall_at_1.* for similarity, got val_map"),
    ],
)
def test_what_cannot_begin_is_one_line(records, trained, tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        training.fit(experiment(1, init=trained, **changes), records, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"augment": {"mixup_alpha": 0.2}}, "mixup_alpha must be 0"),
        ({"sampling": {"batches": "triplets"}, "similarity": {"loss": "nt_xent"}}, "are for the loss triplet, got nt_xent"),
        ({"sampling": {"batches": "crops"}, "similarity": {"loss": "proxy_nca"}}, "no labels that a loss proxy_nca"),
        ({"sampling": {"clips_per_label": 5}}, "multiple of 5 and at least 10"),
        ({"sampling": {"batches": "errors"}}, "sampling.tagger must name the run of a tagger"),
        ({"sampling": {"clips_per_label": 3, "tagger": "runs/tagger"}}, "sampling.tagger does nothing for batches balanced"),
        ({"similarity": {"loss": "proxy_anchor", "mining": "hard"}}, "similarity.mining does nothing for proxy_anchor on balanced"),
        ({"similarity": {"loss": "nt_xent", "overlap": "idf"}}, "similarity.overlap does nothing for nt_xent"),
        ({"similarity": {"overlap": "idf"}, "sampling": {"clips_per_label": 3, "positives": "group"}}, "overlap does nothing for triplet"),
        ({"similarity": {"overlap": "idf"}}, "overlap idf needs positive_from above 0"),
        ({"loss": {"name": "focal"}}, "loss.name does nothing for similarity without tag_weight"),
        ({"data": {"shuffle_buffer": 7}}, "data.shuffle_buffer does nothing for similarity"),
        ({"task": "tagging", "net": {}, "similarity": {"tag_weight": 1}, "sampling": {}}, "similarity.tag_weight does nothing for tagging"),
        ({"task": "tagging", "net": {}}, "sampling.clips_per_label does nothing for tagging"),
        ({"similarity": {"soft_margin": True, "margin": 0.1}}, "soft_margin stands in place of margin"),
        ({"freeze": "conv1"}, "freeze is for layers that --init or net.weights bring"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        experiment(1, **changes)


def test_the_score_table_of_a_tagger_is_of_whole_tracks_computed_once_and_mended(records, trained, tmp_path, monkeypatch):
    """Equal to scoring each file's window means with the tagger; a second call and a damaged cache give the same."""
    tagger = shutil.copytree(trained, tmp_path / "tagger")
    manifest = schema.read_manifest(records)
    table = catalogue.read(records, manifest)
    scores = transfer.tagger_scores(tagger, records, manifest, table)
    expected = evaluate.score_tracks(
        evaluate.scorer(evaluate.load_best(trained)), catalogue.tracks(table, manifest), EXPERIMENT.frontend, EXPERIMENT.evaluation
    )
    np.testing.assert_allclose(scores, expected.outputs["tags"], atol=1e-6)
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "score_tracks", None)  # it is not scored again
        np.testing.assert_array_equal(transfer.tagger_scores(tagger, records, manifest, table), scores)
    np.savez(tagger / run.SCORES, key="of other records or another model", scores=np.zeros_like(scores))
    np.testing.assert_array_equal(transfer.tagger_scores(tagger, records, manifest, table), scores)
    (tagger / run.SCORES).write_bytes((tagger / run.SCORES).read_bytes()[:100])
    np.testing.assert_array_equal(transfer.tagger_scores(tagger, records, manifest, table), scores)


def test_a_mined_run_goes_on_without_its_tagger(records, trained, tmp_path):
    """It keeps the scores that it began with: its weights become those of an uninterrupted run."""
    tagger = shutil.copytree(trained, tmp_path / "tagger")
    settings = {"sampling": {"batches": "errors", "tagger": tagger}}
    whole = training.fit(experiment(2, **settings), records, tmp_path / "whole")
    part = training.fit(experiment(1, **settings), records, tmp_path / "part")
    shutil.rmtree(tagger)
    assert_goes_on_as(whole, part, epochs=2)
    (part / run.SCORES).unlink()
    info = json.loads((part / run.EXPERIMENT).read_text())
    info["experiment"]["fit"]["epochs"] = 3
    (part / run.EXPERIMENT).write_text(json.dumps(info))
    with pytest.raises(InputError, match="must hold the tagger's scores"):
        training.resume(part)


def assert_goes_on_as(whole, part, epochs):
    """A run of fewer epochs, told to go on, ends bit for bit as the whole one."""
    info = json.loads((part / run.EXPERIMENT).read_text())
    info["experiment"]["fit"]["epochs"] = epochs
    (part / run.EXPERIMENT).write_text(json.dumps(info))
    training.resume(part)
    with np.load(whole / run.STATE) as left, np.load(part / run.STATE) as right:
        assert left.files == right.files
        for name in left.files:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_a_run_without_tags_is_no_tagger(records, embedded):
    manifest = schema.read_manifest(records)
    with pytest.raises(InputError, match="got one without tags"):
        transfer.tagger_scores(embedded, records, manifest, catalogue.read(records, manifest))


# --- going on, and looking ------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", [pytest.param(loss, marks=SLOW) for loss in ("triplet", "proxy_anchor")])
def test_a_run_cut_after_two_epochs_goes_on_to_the_same_weights(records, tmp_path, loss):
    """Proxies, optimiser and the order of the batches included."""
    settings = {"similarity": Similarity(loss=loss).model_dump()}
    whole = training.fit(experiment(3, **settings), records, tmp_path / "whole")
    part = training.fit(experiment(2, **settings), records, tmp_path / "part")
    assert_goes_on_as(whole, part, epochs=3)


def test_report_and_tensorboard_show_and_play(embedded):
    """Curves, distances, space, labels; a triplet has three sounds, a retrieval a query and four neighbours; the projector finds its files."""
    text = report.write(embedded)
    assert text.splitlines()[0].split() == ["validation", "test", "random"] and text.splitlines()[2].startswith("Recall@1")
    page = (embedded / run.REPORT).read_text()
    assert page.count("data:image/png;base64,") >= 4
    triplets = page.count("<h2>A triplet")
    assert triplets >= 1 and page.count("<audio") == 3 * triplets + 6 * 5
    assert "src='http" not in page and "random ranking" in page
    logs = embedded / run.TENSORBOARD / "test"
    events = event_accumulator.EventAccumulator(str(logs)).Reload()
    tags = events.Tags()["tensors"]
    plugins = [events.SummaryMetadata(tag).plugin_data.plugin_name for tag in tags]
    assert sum(name in ("images", "audio") for name in plugins) == page.count("data:image/png") + page.count("<audio")
    assert "scalars" in plugins and "pr_curves" not in plugins  # it has no scores of tags
    assert {"Figures/text", "Training/text", "Retrieval/text"} <= {*tags}
    tag = next(tag for tag in tags if tag.startswith("Nearest"))
    assert events.SummaryMetadata(tag).plugin_data.plugin_name == "audio"
    sound, _ = tf.audio.decode_wav(events.Tensors(tag)[0].tensor_proto.string_val[0])
    assert 0.4 * RATE_HZ <= len(sound) <= 5 * RATE_HZ
    config = (logs / "projector_config.pbtxt").read_text()
    for name in ("embedding.tsv", "metadata.tsv"):
        assert name in config and len((logs / name).read_text().splitlines()) == 16 + (name == "metadata.tsv")


def test_embeddings_of_a_run_are_of_unit_length_and_those_of_its_test_tracks(embedded, records):
    with np.load(embedded / run.EMBEDDINGS) as kept:
        np.testing.assert_allclose(np.linalg.norm(kept["embedding"], axis=1), 1, atol=1e-6)
        assert kept["ids"].tolist() == [track.id for track in data.tracks(records, schema.read_manifest(records), "test")]


def test_settings_of_sampling_name_what_the_sampler_knows():
    from typing import get_args

    from tfmusic import config, embedding_losses, sampling, tasks

    assert set(get_args(Sampling.model_fields["batches"].annotation)) == set(sampling.STRATEGIES)
    assert set(get_args(Similarity.model_fields["loss"].annotation)) == set(tasks.LOSS_LAYERS) == set(config.SIMILARITY_READS)
    assert set(config.SAMPLING_READS) == set(sampling.STRATEGIES)
    assert {*get_args(Similarity.model_fields["mining"].annotation), "given"} == set(embedding_losses.MINING)
