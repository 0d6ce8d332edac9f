"""What a run may do beside plain Adam: its settings, what it logs, where it stops, and going on after a kill bit for bit."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pydantic
import pytest
import tensorflow as tf

from records.build import build
from records.datasets.clip import Source
from tests.conftest import EXPERIMENT, LAYOUT, ROOT, SEQUENCE_PARTS, read_csv
from tests.test_training import assert_same_run, state_of
from tfmusic import callbacks, catalogue, cli, data, evaluate, models, optimizers, report, run, schema, training
from tfmusic.config import Data, Experiment, Features, Fit, InputError, Loss, Net

TWO_STAGE = {"schedule": "two_stage", "switch_at": (0.5, 0.75), "ema": 0.9, "label_smoothing": 0.1}  # Adam, Adam, SGD, slower SGD
HALF = {
    "schedule": "plateau", "plateau_patience": 1, "warm_up_epochs": 0.5, "clip_norm": 1.0, "precision": "float16", "steps_per_execution": 3,
}  # fmt: skip
COSINE = {"schedule": "cosine", "warm_up_epochs": 1.5, "ema": 0.5}


def changed(fit, **changes):
    return Experiment.model_validate(EXPERIMENT.model_copy(update=changes).model_dump() | {"fit": EXPERIMENT.fit.model_dump() | fit})


def history(directory):
    with open(directory / run.HISTORY, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted(records, tmp_path_factory):
    """The finished run of a set of settings, made once."""
    made = {}

    def of(fit):
        key = repr(fit)
        made[key] = made.get(key) or training.fit(changed(fit), records, tmp_path_factory.mktemp("runs") / "run")
        return made[key]

    return of


# --- settings -------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"plateau_patience": 2}, "fit.plateau_patience does nothing for schedule constant"),
        ({"schedule": "cosine", "plateau_factor": 0.1}, "fit.plateau_factor does nothing for schedule cosine"),
        ({"schedule": "plateau", "switch_at": (0.5,)}, "fit.switch_at does nothing for schedule plateau"),
        ({"sgd_learning_rate": 1.0}, "fit.sgd_learning_rate does nothing for schedule constant"),
        ({"schedule": "two_stage", "switch_at": (0.5, 0.4)}, "switch_at must rise, got 0.5 0.4"),
        ({"schedule": "two_stage", "switch_at": (0.5, 0.5)}, "switch_at must rise"),
        ({"schedule": "two_stage", "switch_at": (1.0,)}, "less than 1"),
        ({"xla": "on", "deterministic": True}, "xla must be auto or off where deterministic is set"),
        ({"ema": 1.0}, "less than 1"),
        ({"clip_norm": 0}, "greater than 0"),
    ],
)
def test_what_a_schedule_does_not_read_is_refused(settings, line):
    with pytest.raises(pydantic.ValidationError, match=line):
        Fit(**settings)


@pytest.mark.parametrize("task", ["emotion", "similarity"])
def test_smoothing_is_refused_where_no_label_is_learnt(task):
    with pytest.raises(pydantic.ValidationError, match=f"fit.label_smoothing does nothing for {task}"):
        Experiment(recipe="tiny", task=task, fit=Fit(label_smoothing=0.1, batch_size=16))


def test_steps_that_run_together_fill_an_epoch(records):
    """64 windows in batches of 8 are 8 steps: 6 in executions of 3, and no execution of 9."""
    manifest = schema.read_manifest(records)
    assert data.steps_per_epoch(manifest, changed({"steps_per_execution": 3})) == 6
    with pytest.raises(InputError, match="--fit.steps-per-execution must be at most the 8 steps of an epoch, got 9"):
        data.steps_per_epoch(manifest, changed({"steps_per_execution": 9}))


def test_plateau_is_that_of_keras():
    """The same learning rates after each of ten epochs, nan among them."""
    figures, rates = [0.1, 0.3, 0.2, 0.3, 0.25, 0.4, np.nan, 0.1, 0.1, 0.1], []
    for ours in (True, False):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(optimizers.make(Fit()) if ours else keras.optimizers.Adam(1e-3), "mse")
        model.optimizer.build(model.trainable_variables)
        of_keras = keras.callbacks.ReduceLROnPlateau("figure", factor=0.5, patience=2, mode="max", min_delta=0, min_lr=0)
        callback = callbacks.Plateau("figure", 0.5, 2) if ours else of_keras
        callback.set_model(model)
        callback.on_train_begin()
        found = []
        for epoch, figure in enumerate(figures):
            callback.on_epoch_end(epoch, {"figure": figure})
            found.append(float(model.optimizer.learning_rate))
        rates.append(found)
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-6)
    assert len({*rates[0]}) == 4


# --- what a run logs and keeps ----------------------------------------------------------------------------------------------------------------
def test_two_stages_go_on_from_the_best_epoch_with_sgd(uninterrupted):
    directory = uninterrupted(TWO_STAGE)
    np.testing.assert_allclose([row["learning_rate"] for row in history(directory)], [1e-2, 1e-2, 1e-3, 1e-4], rtol=1e-6)
    notes = json.loads(str(state_of(directory)["notes"]))["callbacks"]
    assert notes["Stages"]["stage"] == 2 and notes["Stages"]["best"] == notes["SaveBest"]["best"]


@pytest.mark.slow  # the schedule by itself: test_optimizers
def test_a_cosine_reaches_0_and_a_plateau_is_logged(uninterrupted):
    """Step 32 of 32 would have 0, the last one is 31: rate / 2 (1 + cos(pi 19 / 20)) after 12 steps of warm-up; the log is of the next one."""
    rates = [row["learning_rate"] for row in history(uninterrupted(COSINE))]
    np.testing.assert_allclose(rates, [1e-2 * 8 / 12, 5e-3 * (1 + np.cos(np.pi * 4 / 20)), 5e-3 * (1 + np.cos(np.pi * 12 / 20)), 0], atol=1e-8)


def test_averaged_weights_are_the_ones_that_are_kept(records, tmp_path):
    """Of an only epoch: the trained weights of best.keras are the optimiser's averages, not those that training goes on with."""
    directory = training.fit(changed({"ema": 0.9, "epochs": 1}), records, tmp_path / "run")
    _, net, _ = models.parts(evaluate.load_best(directory))
    saved = {kind: [value for name, value in state_of(directory).items() if name.startswith(kind)] for kind in ("net/", "optimizer/")}
    for variable in net.trainable_variables:
        is_kept = {kind: any(value.shape == variable.shape and np.array_equal(value, variable) for value in saved[kind]) for kind in saved}
        assert is_kept == {"net/": False, "optimizer/": True}, variable.path


def test_the_validation_loss_is_that_of_pooled_tracks(uninterrupted, records):
    """Of the best epoch's model, written out: binary cross-entropy with labels of .05 and .95 on the mean probabilities of each track."""
    directory = uninterrupted(TWO_STAGE)
    manifest, rows = schema.read_manifest(records), history(directory)
    scored = evaluate.score_split(evaluate.scorer(evaluate.load_best(directory)), records, manifest, "valid", EXPERIMENT)
    p, y = scored.outputs["tags"].astype(np.float64), 0.9 * scored.y_true + 0.05
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    best = max(rows, key=lambda row: row["val_map"])
    np.testing.assert_allclose(best["val_loss"], expected, rtol=1e-5)


def test_several_losses_are_weighted_as_in_training():
    """Softmax .5 and .5: log 2; targets one deviation off: 1; .5 of it: log 2 + .5. A probability of 0 is 1e-7."""
    from tfmusic import losses

    of_two = {"logits": (losses.make(Loss(name="crossentropy")), 1.0), "targets": (losses.TargetLoss([2.0]), 0.5)}
    outputs = {"tags": np.array([[0.5, 0.5]], "float32"), "targets": np.array([[3.0]], "float32")}
    scored = evaluate.Scored(["a"], ["a"], np.array([[1, 0]]), np.array([[0.0, 5.0]], "float32"), outputs, 1)
    found = training.validation_losses(scored, of_two, [1], "softmax")
    assert found == pytest.approx({"loss": np.log(2) + 0.5, "logits_loss": np.log(2), "targets_loss": 1.0}, rel=1e-6)
    outputs["tags"][:] = [0, 1]
    assert training.validation_losses(scored, of_two, [1], "softmax")["logits_loss"] == pytest.approx(-np.log(1e-7), rel=1e-5)


def test_the_report_says_whether_the_run_overtrained(uninterrupted):
    report.write(uninterrupted(TWO_STAGE))
    assert "vertrained" in (uninterrupted(TWO_STAGE) / run.REPORT).read_text()
    rows = [{"epoch": n, "loss": 1 - n / 10, "val_loss": value} for n, value in enumerate([0.7, 0.5, 0.6, 0.7, 0.8])]
    assert report.overtraining(rows) == (
        "Overtrained after epoch 2: in 3 epochs since, the training loss fell from 0.900 to 0.600 and the validation loss rose from 0.500 to 0.800."
    )
    assert report.overtraining(rows[:4]) == "Not overtrained: the validation loss was lowest in epoch 2 of 4, 0.500."
    wavering = [{"epoch": n, "loss": 1 - n / 10, "val_loss": value} for n, value in enumerate([0.5, 0.4, 0.4002, 0.4003, 0.4002])]
    assert report.overtraining(wavering).startswith("Not overtrained") and report.overtraining(rows[:3]).startswith("Too few epochs to tell")
    assert report.overtraining([{"epoch": 0, "loss": 1.0}]) == report.overtraining([]) == ""


def test_windows_from_the_start_are_the_clips_first_samples_in_every_epoch(records):
    """Both crops of both epochs, through either stream, are equal: there is one window a track."""
    manifest, experiment = schema.read_manifest(records), changed({}, data=Data(crops_per_clip=2, crop="start"))
    found = {}
    for epoch in (0, 1):
        for window, truth, _ in data.windows(records, manifest, experiment, tf.constant(epoch, tf.int64), named=True):
            found.setdefault(truth["id"].numpy(), []).append(window.numpy())
    assert len(found) == 32
    for same in found.values():
        assert len(same) == 4 and all(np.array_equal(same[0], other) for other in same)
    tracks = catalogue.read(records, manifest)
    chosen = data.chosen_windows(manifest, experiment, tracks, tf.range(len(tracks), dtype=tf.int64), tf.constant(3, tf.int64))
    for name, (window, _, _) in zip(tracks.ids, chosen, strict=True):
        np.testing.assert_array_equal(window, found[name.encode()][0])


# --- nan ------------------------------------------------------------------------------------------------------------------------------------
def poisoned(monkeypatch, at, value=np.nan):
    """The training stream with features of `value` in the batch of that number; returns the pitches of its clips, by which they are known."""
    whole, pitches = data.train_batches, []

    def train_batches(*arguments, **options):
        def spoil(number, batch):
            features, truth = batch
            if_bad = tf.cast(tf.where(number == at - first * 8, value, 1.0), tf.float32)
            tf.py_function(lambda n, pitch: pitches.extend(pitch[:, 0].numpy()) if n == at - first * 8 else None, [number, truth["targets"]], [])
            return features * if_bad, truth

        first = arguments[3]
        return whole(*arguments, **options).enumerate().map(spoil)

    monkeypatch.setattr(data, "train_batches", train_batches)
    return pitches


@pytest.mark.parametrize(
    "fit", [{}, pytest.param({"steps_per_execution": 4}, marks=pytest.mark.slow), pytest.param({"precision": "float16"}, marks=pytest.mark.slow)]
)
def test_a_nan_ends_the_run_at_its_step_names_the_clips_and_keeps_the_epoch_before(records, collection, tmp_path, monkeypatch, fit):
    """Step 5 of the second epoch's 8; the clips are known by their pitch, which is another for each, and --resume says the same line."""
    pitches, out = poisoned(monkeypatch, at=12), tmp_path / "run"
    with pytest.raises(callbacks.Diverged, match="^epoch 2, step 5 of 8: loss or gradient is not finite in the batch of the clips ") as first:
        training.fit(changed(fit), records, out)
    named = str(first.value).partition("clips ")[2].partition(";")[0].split(", ")
    by_pitch = {row["pitch"]: row["path"] for row in read_csv(collection / "clips.csv")}
    assert {*named} == {by_pitch[str(round(float(pitch), 3))] for pitch in pitches} and len(named) > 4 and "\n" not in str(first.value)
    assert [row["epoch"] for row in history(out)] == [0] and evaluate.load_best(out)
    with pytest.raises(callbacks.Diverged) as second:
        training.resume(out)
    assert str(second.value) == str(first.value)
    with pytest.raises(SystemExit) as stop:
        cli.main(lambda: training.resume(out))
    assert stop.value.code == f"error: {first.value}"  # which exits with 1


def test_a_training_that_diverges_at_once_is_one_line_and_stays_a_run(records, tmp_path):
    with pytest.raises(callbacks.Diverged, match="epoch 1, step .* no epoch is finished; try a lower --fit.learning-rate"):
        training.fit(changed({"learning_rate": 1e38}), records, tmp_path / "run")
    assert run.read(tmp_path / "run")


def test_clips_are_named_of_chosen_tracks_and_of_sequences(records, collection, tmp_path):
    """The latter are known by their pitch in the same batch of the stream."""
    manifest = schema.read_manifest(records)
    tracks = catalogue.read(records, manifest)
    rows = np.arange(32).reshape(4, 8)
    assert data.clips_of(records, manifest, EXPERIMENT, 0, [1, 3], tracks, lambda epoch: rows) == tracks.ids[8:16] + tracks.ids[24:]

    features = Features(kind="log_mel", n_fft=256, hop_samples=128, n_mels=16)
    layout = LAYOUT.model_copy(update={"payload": "features", "features": features})
    build(Source(dataset="csv", csv=collection / "clips.csv", audio=collection, targets=("pitch",)), tmp_path / "records", layout)
    manifest = schema.read_manifest(tmp_path / "records")
    experiment = changed({}, sequences=features, net=Net(name="lstm"), **SEQUENCE_PARTS)
    batch = [*data.sequence_epochs(tmp_path / "records", manifest, experiment, 2)][3]
    by_pitch = {row["pitch"]: row["path"] for row in read_csv(collection / "clips.csv")}
    expected = [by_pitch[str(round(float(pitch), 3))] for pitch in batch[1]["targets"][:, 0]]
    assert data.clips_of(tmp_path / "records", manifest, experiment, 2, [3]) == expected


# --- going on -------------------------------------------------------------------------------------------------------------------------------
class Killed(BaseException):
    """In place of a signal, in this process."""


@pytest.mark.parametrize(
    "fit", [TWO_STAGE, *(pytest.param(fit, marks=pytest.mark.slow) for fit in (HALF, COSINE))], ids=["two_stage", "half", "cosine"]
)
def test_a_kill_while_the_state_is_written_changes_nothing(uninterrupted, records, tmp_path, monkeypatch, fit):
    """At the end of the second epoch, on a full disk, and of the third, with which SGD has begun, the state is half: both
    epochs are trained twice, to the same bits."""
    out, faults = tmp_path / "run", {1: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2: Killed()}
    whole = np.savez

    def savez(file, **arrays):
        if "notes" in arrays:
            fault = faults.pop(len(json.loads(str(arrays["notes"]))["history"]) - 1, None)
            if fault:
                file.write(b"half")
                raise fault
        whole(file, **arrays)

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(SystemExit) as stop:
        cli.main(lambda: training.fit(changed(fit), records, out))
    assert str(stop.value.code) == "error: output: No space left on device"
    with pytest.raises(Killed):
        training.resume(out)
    assert not [path for path in os.listdir(out) if path.startswith(".")]
    training.resume(out)
    assert not faults
    assert_same_run(out, uninterrupted(fit))
    assert json.loads((out / run.METRICS).read_text()) == json.loads((uninterrupted(fit) / run.METRICS).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("fit", [TWO_STAGE, HALF], ids=["two_stage", "half"])
@pytest.mark.parametrize("file", [run.STATE, run.BEST])
def test_after_kill_9_in_the_middle_of_a_file(uninterrupted, records, tmp_path, fit, file):
    """A process of its own that kills itself when half of the third epoch's file is written."""
    out, here = tmp_path / "run", file == run.STATE
    code = (
        "import os, signal, sys, numpy, json; from tests.test_schedules import changed; from tfmusic import callbacks, training\n"
        "count, whole, save = [0], numpy.savez, callbacks.save_model\n"
        "def die(path):\n"
        "    count[0] += 1\n"
        "    if count[0] == 3: open(path, 'ab').write(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "def savez(file, **arrays):\n"
        f"    if {here} and 'notes' in arrays: die(file.name)\n"
        "    whole(file, **arrays)\n"
        "def save_model(model, path):\n"
        f"    if not {here} and count[0] < 2: die(path.with_name('.new.' + path.name)); count[0] += count[0] == 1\n"
        f"    elif not {here}: die(path.with_name('.new.' + path.name))\n"
        "    save(model, path)\n"
        "numpy.savez, callbacks.save_model = savez, save_model\n"
        "training.fit(changed(json.loads(sys.argv[3])), sys.argv[1], sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(records), str(out), json.dumps(fit)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    training.resume(out)
    assert_same_run(out, uninterrupted(fit))
    assert not [path for path in os.listdir(out) if path.startswith(".")]


@pytest.mark.slow
def test_a_disk_that_is_full_when_the_best_model_is_written_is_one_line_and_nothing_is_lost(uninterrupted, records, tmp_path, monkeypatch):
    """In the second better epoch; the half file is gone, and after some room was made the run goes on to the same bits."""
    out, count, save = tmp_path / "run", [0], keras.Model.save

    def model_save(model, path, *arguments, **options):
        count[0] += 1
        if count[0] == 2:
            open(path, "ab").close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(model, path, *arguments, **options)

    monkeypatch.setattr(keras.Model, "save", model_save)
    with pytest.raises(SystemExit) as stop:
        cli.main(lambda: training.fit(changed(TWO_STAGE), records, out))
    assert str(stop.value.code) == "error: output: No space left on device"
    assert not [path for path in os.listdir(out) if path.startswith(".")]
    training.resume(out)
    assert_same_run(out, uninterrupted(TWO_STAGE))


def test_the_state_of_another_version_is_one_line(records, trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    state = {name: value for name, value in state_of(copy).items() if name != "optimizer/0"}
    notes = json.loads(str(state.pop("notes")))
    np.savez(copy / run.STATE, notes=json.dumps(notes | {"history": notes["history"][:1]}), **state)
    with pytest.raises(InputError, match="state.npz must be of this version of tfmusic, got one without optimizer/0"):
        training.resume(copy)


@pytest.mark.slow
def test_a_step_compiled_by_xla_learns(records, tmp_path):
    """In a process of its own, as those before have asked for determinism, which Keras compiles without XLA."""
    code = (
        "import sys, warnings; warnings.simplefilter('error', UserWarning); from tests.test_schedules import changed; from tfmusic import training\n"
        "training.fit(changed({'xla': 'on', 'deterministic': False, 'schedule': 'cosine', 'ema': .5, 'clip_norm': 1.}), sys.argv[1], sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(records), str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / run.METRICS).read_text())["test"]["roc_auc"] > 0.8
