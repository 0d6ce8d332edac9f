"""A search: what it may change, trials that are drawn once and go on after a kill, a winner chosen on validation, and its command."""

import html
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

import train
from tests.conftest import EXPERIMENT, ROOT
from tfmusic import cli, evaluate, files, page, recipes, run, space, training
from tfmusic.config import Augment, Features, FrontEnd, InputError, SpecAugment
from tfmusic.space import Range

TINY = EXPERIMENT.model_copy(update={"recipe": "tagging", "fit": EXPERIMENT.fit.model_copy(update={"epochs": 2})})
RATE = {"fit.learning_rate": Range(1e-3, 1e-1, log=True)}


# --- what is searched -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_takes_all_that_its_space_holds(name):
    """Its own learning rate is the middle of the range on a log scale; `read` refuses what the recipe refuses."""
    experiment = recipes.RECIPES[name]()
    found = recipes.space(experiment)
    assert space.read(experiment, found) == found
    rate = found["fit.learning_rate"]
    np.testing.assert_allclose(np.sqrt(rate.low * rate.high), experiment.fit.learning_rate)
    assert {"fit.learning_rate", "net.dropout", "fit.weight_decay"} <= {*found}
    assert ("net.width" in found) == (experiment.init is None and experiment.net.name != "linear")
    assert ("augment.mixup_alpha" in found) == (experiment.task in ("tagging", "genre", "events") and experiment.sequences is None)
    assert ("loss.focal_gamma" in found) == (experiment.loss.name == "focal")


def test_a_space_is_narrowed_widened_and_cut_down():
    tagging = recipes.tagging()
    declared = recipes.space(tagging)
    found = space.read(
        tagging, declared, ["fit.learning-rate=5e-4..2e-3", "fit.batch_size=8..64", "loss.name=bce,focal", "similarity.margin=none"], ["net.dropout"]
    )
    assert found == {
        "net.dropout": Range(0.0, 0.5),
        "fit.learning_rate": Range(5e-4, 2e-3, log=True),  # the scale is the declared one's
        "fit.batch_size": Range(8, 64),
        "loss.name": ("bce", "focal"),
        "similarity.margin": (None,),
    }
    assert found["fit.batch_size"].whole and not found["net.dropout"].whole
    assert space.read(tagging, {}, ["net.width=log:.25..4"]) == {"net.width": Range(0.25, 4.0, log=True)}
    again = [f"{path}={one}" for path, one in space.text(found).items()]
    assert space.read(tagging, {}, again) == found


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("fit.learning_rat=1e-4..1e-2", "--space must name fields of the experiment such as fit.learning_rate, got fit.learning_rat;"),
        ("fit=1..2", "--space must name a single field, got all of fit"),
        ("fit.learning_rate.low=1", "got fit.learning_rate.low"),
        ("fit.learning_rate", "--space must be FIELD=LOW..HIGH or FIELD=A,B,C, got fit.learning_rate"),
        ("fit.learning_rate=1e-2..1e-4", "--space fit.learning_rate: a range must be LOW..HIGH with LOW < HIGH, got 0.01..0.0001"),
        ("fit.learning_rate=log:0..1", "a log range must begin above 0, got 0..1"),
        ("fit.batch_size=1.5..4", "--space fit.batch_size: invalid literal for int"),
        ("net.dropout=0..2", "--space net.dropout: net.dropout: Input should be less than 1, got 2.0"),
        ("net.name=cnn2d,cnn9d", "--space net.name: net.name: Input should be 'linear', "),
        ("loss.name=a..b", "a range is for numbers; name the choices: A,B,C, got a..b"),
        ("net.dropout=.1,.10", "--space net.dropout must name each choice once, got 0.1, 0.1"),
        ("loss.focal_gamma=0..4", "--space loss.focal_gamma: loss.focal_gamma does nothing for bce"),
        ("frontend.resolutions_ms=10,20", "--space frontend.resolutions_ms"),
    ],
)
def test_a_space_that_cannot_be_is_one_line(given, complaint):
    with pytest.raises(InputError) as error:
        space.read(recipes.tagging(), recipes.space(recipes.tagging()), [given])
    assert complaint in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="--only must name fields of the search, fit.learning_rate, "):
        space.read(recipes.tagging(), recipes.space(recipes.tagging()), only=["fit.batch_size"])


def test_a_grid_has_ends_and_middle_of_each_range_on_its_scale():
    """1e-4, 1e-3, 1e-2 is equal steps of log; 0, .25, .5 of numbers; 8, 10, 12 whole: 3 * 3 * 3 * 2 combinations."""
    found = space.points({"a": Range(1e-4, 1e-2, log=True), "b": Range(0.0, 0.5), "c": Range(8, 12), "d": (True, False)})
    assert len(found) == 54 and found[0] == {"a": 1e-4, "b": 0.0, "c": 8, "d": True}
    assert [sorted({one[axis] for one in found}) for axis in "abc"] == [[1e-4, 1e-3, 1e-2], [0.0, 0.25, 0.5], [8, 10, 12]]
    assert Range(1, 2).points() == [1, 2]


# --- the command ----------------------------------------------------------------------------------------------------------------------------
def parsed(command):
    """The experiment that train.py makes of a command line."""
    python, program, *arguments = shlex.split(command)
    assert (python, program) == ("python", "train.py")
    choice, rest = cli.parse(train.Choice, prog="", args=arguments, return_unknown_args=True, add_help=False)
    return cli.parse(train.Train, prog="", args=arguments, default=train.Train(experiment=train.defaults(choice, rest))).experiment


@pytest.mark.parametrize(
    ("recipe", "values"),
    [
        ("tagging", {"fit.learning_rate": 0.1 + 0.2, "net.dropout": 1e-17, "fit.deterministic": True, "loss.class_weights": True}),
        ("mtat_multichannel", {"frontend.resolutions_ms": (10.0, 20.5), "frontend.frames": 90, "data.oversample": 0.07}),
        ("mtat_augmented", {"augment.waveform.noise_snr_db": None, "augment.waveform.noise": "pink"}),
        ("fsd50k_cnn4_focal", {"loss.prior_bias": False, "loss.focal_gamma": 1.5, "fit.precision": "bfloat16"}),
        ("fma_lstm_mel_beat", {"sequences.n_mels": 64, "net.width": 0.5}),
        ("tagging", {"sequences": Features(), "net.name": "lstm", "augment": Augment(), "frontend": FrontEnd()}),
        ("genre", {"frozen": "msd_musicnn", "net.name": "mlp", "augment.spec_augment": SpecAugment(), "frontend": FrontEnd(window_s=4.0)}),
        ("mtat_similarity_mined", {"sampling.tagger": Path("/runs/it's mine"), "similarity.margin": None}),
        ("emotion_multitask", {"targets": ("valence", "energy")}),
        ("mtt_musicnn", {"freeze": "norm2", "fit.init_learning_rate": 1e-5}),
    ],
)
def test_a_command_gives_the_experiment_that_it_was_made_of(recipe, values):
    """Through train.py's own parser; the shell's quoting included."""
    tune = pytest.importorskip("tfmusic.tune")
    base = train.defaults(train.Choice(recipe=recipe), [])
    experiment = space.replaced(base, values)
    info = run.describe(experiment, Path("/data"), "", "")
    assert parsed(tune.command(info, base)) == experiment


# --- the search -----------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def tune():
    pytest.importorskip("optuna", reason="pip install -r requirements/tune.txt")
    from tfmusic import tune

    return tune


def trials_of(out):
    """The trials that were begun: number to settings, state, figures of the epochs."""
    import optuna

    study = optuna.load_study(study_name=TINY.recipe, storage=f"sqlite:///{out}/study.db")
    return {one.number: (one.params, one.state.name, one.intermediate_values) for one in study.trials if one.state.name != "FAIL"}


@pytest.fixture
def pretended(tune, monkeypatch):
    """No training: three epochs of a figure that is greatest at a learning rate of .01; what is evaluated is noted."""
    evaluated = []

    def fit_or_resume(experiment, records, out, watcher):
        watcher.set_model(types.SimpleNamespace(stop_training=False))
        out.mkdir(exist_ok=True)
        files.write_text(out / run.EXPERIMENT, run.describe(experiment, records, "", "").model_dump_json())
        rows = []
        for epoch in range(3):
            decades = np.log10(experiment.fit.learning_rate) + 2
            rows.append({"epoch": epoch, "val_map": (epoch + 1) / 3 - decades**2 if decades < 30 else np.nan})
            files.write_csv(out / run.HISTORY, rows)
            watcher.on_epoch_end(epoch, {})
            if watcher.model.stop_training:
                return

    monkeypatch.setattr(training, "fit_or_resume", fit_or_resume)
    monkeypatch.setattr(training, "resume", lambda out: evaluated.append(out))
    monkeypatch.setattr(tune.keras.backend, "clear_session", lambda: None)
    monkeypatch.setattr(page, "png", lambda figure, transparent: b"")
    monkeypatch.setattr(tune.report, "write", lambda out: "")
    return evaluated


@pytest.mark.slow
def test_a_search_ends_with_the_best_on_validation_and_looks_at_test_for_it_alone(tune, records, tmp_path, monkeypatch, capsys):
    """Three trials of two epochs; the splits that are scored are noted. The printed command trains the same history.

    Interrupted in its first trial's second epoch, another search does that epoch alone once more, and its trial is the same.
    """
    scored, out = [], tmp_path / "out"
    score_split = evaluate.score_split
    monkeypatch.setattr(evaluate, "score_split", lambda *a, **k: scored.append(a[3]) or score_split(*a, **k))
    best = tune.search(TINY, records, out, RATE, trials=3)
    assert scored == ["valid"] * 6 + ["valid", "test"]
    found = trials_of(out)
    assert [*found] == [0, 1, 2] and found[0][0] == {"fit.learning_rate": TINY.fit.learning_rate}
    winner = max(found, key=lambda number: max(found[number][2].values()))
    assert best == out / f"trial-{winner:04d}"
    assert [(out / f"trial-{number:04d}" / run.METRICS).exists() for number in found] == [number == winner for number in found]
    assert not [*out.glob("trial-*.lock")] and not [*out.glob("trial-*/bundle")]

    printed = capsys.readouterr().out
    (command,) = [line.strip() for line in printed.splitlines() if line.strip().startswith("python train.py")]
    assert parsed(command) == run.read(best).experiment and f"--records {records}" in command
    training.fit(parsed(command), records, tmp_path / "again")
    assert (tmp_path / "again" / run.HISTORY).read_text() == (best / run.HISTORY).read_text()
    shown = (out / tune.PAGE).read_text()
    assert html.escape(command) in shown
    assert shown.count("data:image/png;base64,") == 2 and "http" not in shown and "looked at once" in shown

    class Interrupt(training.keras.callbacks.Callback):
        epochs = 0

        def on_epoch_begin(self, epoch, logs=None):
            Interrupt.epochs += 1
            if Interrupt.epochs == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr("tfmusic.training.keras.callbacks.TensorBoard", lambda *arguments, **options: Interrupt())
    with pytest.raises(KeyboardInterrupt):
        tune.search(TINY, records, tmp_path / "killed", RATE, trials=1)
    assert trials_of(tmp_path / "killed")[0][1] == "RUNNING"
    tune.search(TINY, records, tmp_path / "killed", RATE, trials=1)
    assert Interrupt.epochs == 3
    assert trials_of(tmp_path / "killed") == {0: found[0]}


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_samplers_never_try_the_same_twice(tune, pretended, records, tmp_path, sampler, capsys):
    """Six combinations of two choices and a whole range of two: all are tried once whatever the sampler, then the search ends by itself."""
    found = {"net.width": (0.5, 1.0, 2.0), "data.crops_per_clip": Range(1, 2)}
    assert tune.search(TINY, records, tmp_path, found, trials=50, sampler=sampler) == pretended[0]
    tried = [tuple(params.values()) for params, _, _ in trials_of(tmp_path).values()]
    assert len(tried) == len({*tried}) and len(tried) == 6


def test_a_search_goes_on_to_more_trials_and_finds_the_better(tune, pretended, records, tmp_path):
    """The figure is 1 at .01 and falls with the square of the distance in decades; the best of 25 by TPE is within a tenth of a decade."""
    wide = {"fit.learning_rate": Range(1e-5, 1e-1, log=True), "net.dropout": Range(0.0, 0.5)}
    tune.search(TINY, records, tmp_path, wide, trials=3)
    best = tune.search(TINY, records, tmp_path, wide, trials=25)
    assert len(trials_of(tmp_path)) == 25
    assert abs(np.log10(run.read(best).experiment.fit.learning_rate) + 2) < 0.1
    states = [state for _, state, _ in trials_of(tmp_path).values()]
    assert "PRUNED" in states and states[:5] == ["COMPLETE"] * 5
    for params, state, figures in trials_of(tmp_path).values():
        assert len(figures) == 3 or state == "PRUNED"
        if state == "PRUNED":
            assert abs(np.log10(params["fit.learning_rate"]) + 2) > 0.1
    shown = (tmp_path / tune.PAGE).read_text()
    assert shown.count("data:image/png;base64,") == 3 and "PED-ANOVA" in shown


def test_importance_finds_the_field_that_matters(tune):
    """Of two settings drawn alike, the figure is one of them: it has nearly all of the importance; seven trials say nothing."""
    import optuna

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("a", 0, 1) + 0 * trial.suggest_float("b", 0, 1), n_trials=7)
    assert tune.importance(study) == {}
    study.optimize(lambda trial: trial.suggest_float("a", 0, 1) + 0 * trial.suggest_float("b", 0, 1), n_trials=40)
    assert tune.importance(study)["a"] > 0.8


def test_a_trial_that_cannot_be_trained_is_one_line_and_three_end_the_search(tune, pretended, records, tmp_path, monkeypatch, capsys):
    """A learning rate of 1e38 has no finite epoch; then trials that training refuses."""
    wide = {"fit.learning_rate": Range(1e37, 1e38)}
    with pytest.raises(InputError, match="3 trials in a row could not be trained; the last one: no finite val_map"):
        tune.search(TINY, records, tmp_path, wide, trials=9)
    assert [state for _, state, _ in trials_of(tmp_path).values()] == ["PRUNED"] * 3
    assert capsys.readouterr().out.count("failed: ") == 3 and "3 failed" in (tmp_path / tune.PAGE).read_text()

    def refuse(*arguments):
        raise InputError("batch 7 is not finite")

    monkeypatch.setattr(training, "fit_or_resume", refuse)
    with pytest.raises(InputError, match="3 trials in a row could not be trained; the last one: batch 7 is not finite"):
        tune.search(TINY, records, tmp_path, wide, trials=9)
    with pytest.raises(InputError, match="no trial of .* was trained to its end"):
        tune.search(TINY, records, tmp_path, wide, trials=6)


def test_a_trial_whose_process_always_dies_is_given_up(tune, pretended, records, tmp_path, monkeypatch, capsys):
    """It dies in the first epoch, five times; the sixth process fails the trial and goes on with the next."""
    fit_or_resume = training.fit_or_resume

    def die(*arguments):
        raise SystemError

    monkeypatch.setattr(training, "fit_or_resume", die)
    for _ in range(tune.DEATHS):
        with pytest.raises(SystemError):
            tune.search(TINY, records, tmp_path, RATE, trials=2)
    monkeypatch.setattr(training, "fit_or_resume", fit_or_resume)
    assert tune.search(TINY, records, tmp_path, RATE, trials=2) == tmp_path / "trial-0001"
    assert "trial 0: failed: its process died 5 times in epoch 1" in capsys.readouterr().out


def test_what_cannot_be_searched_is_refused_and_nothing_is_left(tune, pretended, records, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "song.wav").touch()
    for out, options, complaint in (
        ("mine", {}, "--out must be a new or empty folder, or that of a search, got"),
        ("out", {"trials": 0}, "--trials must be > 0"),
        ("out", {"space": {"net.width": (0.5,)}}, "--space must leave a field to search, got none"),
    ):
        with pytest.raises(InputError, match=complaint):
            tune.search(TINY, records, tmp_path / out, **({"space": RATE} | options))
    slow = TINY.model_copy(update={"fit": TINY.fit.model_copy(update={"monitor": "val_mse"})})
    with pytest.raises(InputError, match="--fit.monitor must be one of"):
        tune.search(slow, records, tmp_path / "out", RATE)
    assert not (tmp_path / "out").exists()
    odd = tmp_path / "100%20 {a}?b=#1"
    assert tune.search(TINY, records, odd, RATE, trials=1) == odd / "trial-0000"
    tune.search(TINY, records, tmp_path / "out", RATE, trials=1)
    with pytest.raises(InputError, match="of the same search, got one with another space"):
        tune.search(TINY, records, tmp_path / "out", {"fit.learning_rate": Range(1e-3, 1.0)}, trials=1)
    with pytest.raises(InputError, match="of the same search, got one with another experiment"):
        tune.search(slow.model_copy(update={"fit": TINY.fit.model_copy(update={"seed": 1})}), records, tmp_path / "out", RATE, trials=1)
    (tmp_path / "out" / tune.STUDY).write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="study.db cannot be used: file is not a database"):
        tune.search(TINY, records, tmp_path / "out", RATE, trials=1)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match="tune needs Optuna: pip install -r requirements/tune.txt"):
        tune.search(TINY, records, tmp_path / "other", RATE)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--recipe mtat_cnn2d", "needs its dataset"),
        ("--recipe karaoke", "--recipe must be one that --list names"),
        ("--trials 0", "--trials: Input should be greater than 0, got 0"),
        ("--sampler cmaes", "invalid choice 'cmaes'"),
        ("--space net.dropout=0..2", "net.dropout: Input should be less than 1, got 2.0"),
        ("--resume runs/mine", "Unrecognized options: --resume"),
        ("--records nowhere", "nowhere has no manifest.json"),
    ],
)
def test_a_wrong_flag_of_tune_is_one_line(tune, arguments, complaint, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tfmusic", "tune", *arguments.split()])
    from tfmusic.__main__ import main

    with pytest.raises(SystemExit) as stop:
        cli.main(main)
    line = capsys.readouterr().err.strip() or str(stop.value)
    assert line.startswith("error: ") and complaint in line and "\n" not in line


# --- several processes ----------------------------------------------------------------------------------------------------------------------
def started(records, out, trials=6):
    code = (
        "import sys; from tests.test_tune import TINY, RATE; from tfmusic import tune\n"
        f"tune.search(TINY, sys.argv[1], sys.argv[2], RATE, trials={trials}, sampler='random')"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(records), str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_that_is_killed_loses_nothing(tune, records, tmp_path):
    """Both begin at once; one is killed in the middle of a trial, the other takes that trial up at its last epoch; all is as one process has it."""
    out = tmp_path / "out"
    first, second = started(records, out), started(records, out)
    mine = []
    while len(mine) < 2:  # until the first has begun its second trial
        line = first.stdout.readline()
        assert line, first.wait()
        if line.startswith("trial") and " of " in line:
            mine.append(int(line.split()[1]))
    while not (out / f"trial-{mine[1]:04d}" / run.HISTORY).is_file():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    printed, _ = second.communicate(timeout=300)
    assert second.returncode == 0 and f"trial {mine[1]}: goes on, its process has ended" in printed
    found = trials_of(out)
    assert [*found] == [*range(6)] and {state for _, state, _ in found.values()} <= {"COMPLETE", "PRUNED"}
    assert len({params["fit.learning_rate"] for params, _, _ in found.values()}) == 6
    theirs = [int(line.split()[1]) for line in printed.splitlines() if line.startswith("trial") and " of " in line]
    assert {*mine} | {*theirs} == {*range(6)} and {*mine} & {*theirs} == {mine[1]}
    assert len([*out.glob(f"trial-*/{run.METRICS}")]) == 1

    alone = tmp_path / "alone"
    tune.search(TINY, records, alone, RATE, trials=6, sampler="random")
    for number, (params, state, figures) in trials_of(alone).items():
        assert found[number][0] == params
        if state == found[number][1] == "COMPLETE":
            assert found[number][2] == figures


@pytest.mark.slow
def test_two_processes_that_end_together_have_one_winner(tune, records, tmp_path):
    """No kill: each trains some of the trials, one of them says that the other ends the search, and the table is there once."""
    both = [started(records, tmp_path / "out", trials=4) for _ in range(2)]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    begun = [int(line.split()[1]) for text in printed for line in text.splitlines() if line.startswith("trial") and " of " in line]
    assert sorted(begun) == [0, 1, 2, 3] and all(" of 4: " in text for text in printed)
    assert json.loads(next((tmp_path / "out").glob(f"trial-*/{run.METRICS}")).read_text())["test"]["tracks"] == 16
    assert sum("python train.py" in text for text in printed) >= 1
