"""A run: what it leaves, exact figures of the deployed model, and going on after a kill as if nothing had happened."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.conftest import EXPERIMENT, ROOT
from tfmusic import audio, data, evaluate, models, report, run, schema, training
from tfmusic.config import Augment, InputError, SpecAugment


def test_a_run_leaves_all_that_is_needed_to_repeat_it(trained, records):
    info = run.read(trained)
    assert info.experiment.fit.precision in ("float32", "bfloat16")  # what "auto" meant here
    assert info.experiment.model_copy(update={"fit": EXPERIMENT.fit}) == EXPERIMENT and info.records == records.resolve()
    assert (trained / run.LABELS).read_text().split() == ["high", "low", "noisy", "rare"]
    with open(trained / run.HISTORY, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert {"loss", "val_roc_auc", "val_map"} <= set(rows[0])
    assert list((trained / run.TENSORBOARD / "train").glob("events*"))


def test_tones_are_learnt(trained):
    """High against low tones and noise: a net that learns separates them within 4 epochs; guessing is .5."""
    assert json.loads((trained / run.METRICS).read_text())["test"]["roc_auc"] > 0.9


def test_log_mels_of_several_resolutions_are_computed_on_the_fly_and_learnt_from(records, tmp_path):
    """Three channels from the same samples; the best model, loaded anew, takes the waveform."""
    frontend = EXPERIMENT.frontend.model_copy(update={"n_fft": 512, "hop_samples": 256, "resolutions_ms": (10.0, 20.0, 30.0), "frames": 40})
    masks = SpecAugment(probability=1.0, time_frames=5, mel_bands=3)
    experiment = EXPERIMENT.model_copy(update={"frontend": frontend, "augment": Augment(spec_augment=masks, mixup_alpha=0.4)})
    run_directory = training.fit(experiment, records, tmp_path / "run")
    frontend_layer, net, _ = models.parts(evaluate.load_best(run_directory))
    assert net.inputs[0].shape == (None, 40, 16, 3) and frontend_layer.frontend == frontend
    assert evaluate.evaluate(run_directory)["roc_auc"] > 0.8


def test_figures_are_scikit_learns_on_the_mean_over_windows_of_whole_tracks(trained, records):
    """Every test track alone, cut and averaged here; the absent label is left out and counted."""
    manifest, model = schema.read_manifest(records), evaluate.load_best(trained)
    y_true, scores = [], []
    for track in data.tracks(records, manifest, "test"):
        starts = sorted({*range(0, max(len(track.waveform) - 4000, 0), 2000), max(len(track.waveform) - 4000, 0)})
        padded = np.pad(track.waveform, (0, max(0, 4000 - len(track.waveform))))
        cut = np.stack([padded[start : start + 4000] for start in starts]).astype("float32") / 32768
        scores.append(np.asarray(model(cut)["tags"]).mean(axis=0))
        y_true.append(track.labels)
    y_true, scores = np.stack(y_true), np.stack(scores)
    figures = json.loads((trained / run.METRICS).read_text())["test"]
    present = [0, 1, 2]
    assert figures["labels"][3] == "rare" and figures["absent"] == 1 and figures["roc_auc_per_class"][3] is None
    np.testing.assert_allclose(figures["roc_auc"], np.mean([roc_auc_score(y_true[:, i], scores[:, i]) for i in present]), atol=1e-9)
    np.testing.assert_allclose(figures["map"], np.mean([average_precision_score(y_true[:, i], scores[:, i]) for i in present]), atol=1e-9)
    assert figures["roc_auc_interval"][0] <= figures["roc_auc"] <= figures["roc_auc_interval"][1]


def test_a_tracks_score_does_not_depend_on_the_tracks_beside_it(trained, records):
    """All together, and each alone: the windows share their batches with others, the scores are equal."""
    manifest, score = schema.read_manifest(records), evaluate.scorer(evaluate.load_best(trained))
    tracks = list(data.tracks(records, manifest, "test"))
    together = evaluate.score_tracks(score, tracks, EXPERIMENT.frontend, EXPERIMENT.evaluation)
    alone = [evaluate.score_tracks(score, [track], EXPERIMENT.frontend, EXPERIMENT.evaluation).outputs for track in tracks]
    for name, values in together.outputs.items():
        np.testing.assert_allclose(values, [outputs[name][0] for outputs in alone], rtol=0, atol=1e-6 if name == "embedding" else 1e-7)
    assert together.windows == sum(len(audio.window_starts(len(track.waveform), 4000, 2000)) for track in tracks)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_score_does_not_depend_on_the_batch_size(trained, records, batch, monkeypatch):
    expected = evaluate.evaluate(trained)
    monkeypatch.setattr(evaluate, "BATCH_WINDOWS", batch)
    found = evaluate.evaluate(trained)
    assert found["windows"] == expected["windows"]
    np.testing.assert_allclose([found["roc_auc"], found["map"]], [expected["roc_auc"], expected["map"]], atol=1e-6)


def test_damaged_files_of_a_run_are_one_line(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / run.STATE).write_bytes(b"garbage")
    with pytest.raises(InputError, match="state.npz is damaged"):
        training.resume(copy)
    content = bytearray((copy / run.BEST).read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (b"garbage", content):
        (copy / run.BEST).write_bytes(damaged)
        with pytest.raises(InputError, match="best.keras is damaged"):
            evaluate.load_best(copy)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_flipped_bit_in_a_shard_is_one_line(records, tmp_path, split):
    copy = shutil.copytree(records, tmp_path / "copy")
    shard = next(copy.glob(f"{split}*"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="python -m records check"):
        training.fit(EXPERIMENT, copy, tmp_path / "run")


def test_metrics_json_is_what_evaluate_gives_again(trained):
    again = evaluate.evaluate(trained, "test")
    assert json.loads((trained / run.METRICS).read_text())["test"] == json.loads(json.dumps(again))


def test_the_report_shows_table_and_pictures(trained):
    text = report.write(trained)
    page = (trained / run.REPORT).read_text()
    assert "test" in text and f"{json.loads((trained / run.METRICS).read_text())['test']['roc_auc']:.3f}" in text
    assert page.count("data:image/png;base64,") >= 4 and "1 of 4 labels have no positive" in page


# --- going on -------------------------------------------------------------------------------------------------------------------------------
def state_of(directory):
    with np.load(directory / run.STATE) as file:
        return {name: file[name] for name in file.files}


def assert_same_run(left, right):
    """Equal weights, optimiser, random states, callbacks and history, bit for bit."""
    left, right = state_of(left), state_of(right)
    assert left.keys() == right.keys() and len(left) > 30
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_after_kill_9_the_weights_become_those_of_an_uninterrupted_run(trained, records, tmp_path):
    """A net with dropout and early stopping, killed in its third epoch, possibly while it writes."""
    out = tmp_path / "killed"
    code = (
        "import sys, time, keras; from tests.conftest import EXPERIMENT; from tfmusic import training\n"
        "class Slow(keras.callbacks.Callback):\n"
        "    def on_train_batch_end(self, batch, logs=None): time.sleep(.05)\n"
        "training.keras.callbacks.TensorBoard = lambda *a, **k: Slow()\n"
        "training.fit(EXPERIMENT, sys.argv[1], sys.argv[2])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(records), str(out)], cwd=ROOT)
    while not (out / run.HISTORY).is_file() or len((out / run.HISTORY).read_text().splitlines()) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / run.METRICS).exists()
    training.resume(out)
    assert_same_run(out, trained)
    assert json.loads((out / run.METRICS).read_text()) == json.loads((trained / run.METRICS).read_text())


def test_early_stopping_remembers_its_patience_over_a_resume(records, tmp_path, monkeypatch):
    """The monitor falls from the first epoch on, so with patience 3 the run ends after epoch 4, also when it was interrupted after 2."""
    epochs = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    monkeypatch.setattr("tfmusic.callbacks.TrackMetrics.on_epoch_end", lambda self, epoch, logs: logs.update(val_map=next(epochs), val_roc_auc=0.5))
    experiment = EXPERIMENT.model_copy(update={"fit": EXPERIMENT.fit.model_copy(update={"epochs": 6, "patience": 3})})

    class Interrupt(training.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2 and not getattr(Interrupt, "done", False):
                Interrupt.done = True
                raise KeyboardInterrupt

    monkeypatch.setattr("tfmusic.training.keras.callbacks.TensorBoard", lambda *arguments, **options: Interrupt())
    with pytest.raises(KeyboardInterrupt):
        training.fit(experiment, records, tmp_path / "run")
    training.resume(tmp_path / "run")
    assert len((tmp_path / "run" / run.HISTORY).read_text().splitlines()) == 1 + 4


def test_resuming_a_finished_run_changes_no_weight(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    training.resume(copy)
    assert_same_run(copy, trained)


def unlabelled(records, copy):
    """Records whose validation tracks have no label, by the manifest's word."""
    shutil.copytree(records, copy)
    text = json.loads((copy / "manifest.json").read_text())
    text["splits"]["valid"]["label_counts"] = [0, 0, 0, 0]
    (copy / "manifest.json").write_text(json.dumps(text))
    return copy


def test_what_cannot_run_is_refused_before_anything_is_written(trained, records, tmp_path):
    with pytest.raises(InputError, match="new or empty"):
        training.fit(EXPERIMENT, records, trained)
    with pytest.raises(InputError, match="no manifest.json"):
        training.fit(EXPERIMENT, tmp_path / "nothing", tmp_path / "run")
    with pytest.raises(InputError, match="valid split must have a label"):
        training.fit(EXPERIMENT, unlabelled(records, tmp_path / "unlabelled"), tmp_path / "run")
    with pytest.raises(InputError, match="must be a run directory"):
        training.resume(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scores_that_are_not_finite_end_a_training_and_keep_the_best_epoch_before(records, tmp_path, monkeypatch, capsys):
    """Those of the second epoch, whose losses are finite: training stops there, and the first epoch's net is evaluated."""
    whole, count = evaluate.score_split, iter(range(100))

    def score_split(*arguments, **options):
        scored = whole(*arguments, **options)
        if next(count) == 1:
            scored.outputs["tags"][:] = np.nan
        return scored

    monkeypatch.setattr(evaluate, "score_split", score_split)
    out = training.fit(EXPERIMENT, records, tmp_path / "run")
    assert "epoch 2: scores are not finite" in capsys.readouterr().out
    assert len((out / run.HISTORY).read_text().splitlines()) == 3
    assert 0 <= json.loads((out / run.METRICS).read_text())["test"]["roc_auc"] <= 1
    assert report.write(out)


def test_a_run_goes_on_with_its_own_records_only(trained, records, collection, tmp_path):
    from records.build import build
    from records.datasets.clip import Source
    from tests.conftest import LAYOUT, read_csv, write_csv
    from tfmusic.labels import Vocabulary

    source = Source(dataset="csv", csv=collection / "clips.csv", audio=collection)
    build(source, tmp_path / "other", LAYOUT, Vocabulary(("low", "high")))
    with pytest.raises(InputError, match="another vocabulary"):
        evaluate.evaluate(trained, records=tmp_path / "other")
    build(source, tmp_path / "again", LAYOUT)  # the same vocabulary, without the targets
    copy = shutil.copytree(trained, tmp_path / "copy")
    text = (copy / run.EXPERIMENT).read_text()
    (copy / run.EXPERIMENT).write_text(text.replace(str(run.read(trained).records), str(tmp_path / "again")))
    with pytest.raises(InputError, match="is not what .* was trained on"):
        training.resume(copy)
    with pytest.raises(InputError, match="is not what .* was trained on"):
        evaluate.evaluate(copy)
    assert evaluate.evaluate(trained, records=tmp_path / "again")["roc_auc"] == evaluate.evaluate(trained)["roc_auc"]
    swapped = [row | {"split": {"train": "test", "test": "train"}.get(row["split"], row["split"])} for row in read_csv(collection / "clips.csv")]
    listing = write_csv(tmp_path / "swapped.csv", swapped)
    build(source.model_copy(update={"csv": listing}), tmp_path / "swapped", LAYOUT, Vocabulary.read(trained / run.LABELS))
    with pytest.raises(InputError, match="was trained on 32 of the validation and test tracks of .*swapped"):
        evaluate.evaluate(trained, records=tmp_path / "swapped")
