"""Command lines: one line and an exit code for every mistake, and the rules of --task, --recipe, --records and --demo."""

import subprocess
import sys

import pytest

from tests.conftest import EXPERIMENT, ROOT, call_here, finished_run
from tfmusic import cli, recipes
from tfmusic.config import InputError


def call(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--fit.epochs -3", "--fit.epochs should be greater than or equal to 0, got -3"),
        ("--fit.epochs few", "--fit.epochs"),
        ("--fit.epoks 3", "perhaps you meant --fit.epochs"),
        ("--frontend.log loud", "invalid choice 'loud'"),
        ("--frontend.f-max-hz 90000", "half the sample rate"),
        ("--augment.spec-augment.probability 2", "should be less than or equal to 1, got 2"),
        ("--task karaoke", "--task"),
        ("--recipe mtat_cnn9d", "--recipe must be one that --list names, got 'mtat_cnn9d'; perhaps you meant mtat_cnn2d"),
        ("--recipe mtat_cnn2d", "python -m records build"),
        ("--task tagging --records nowhere", "nowhere has no manifest.json"),
        ("--task tagging --demo --augment.waveform.stretch .1", "--augment.waveform.stretch does nothing while --augment.waveform.probability is 0"),
        ("--task tagging --demo --epochs 0", "--epochs 0 evaluates what --init knows, and must be greater without it, got 0"),
        ("--task tagging --net.name cnn9d --records nowhere", "invalid choice 'cnn9d' for argument '--net.name'"),
        ("--demo --records nowhere", "--demo brings its own records"),
        ("--resume nowhere", "nowhere must be a run directory"),
        ("--resume nowhere --fit.epochs 3", "--resume takes no other flag, got --fit.epochs 3"),
    ],
)
def test_a_wrong_flag_of_train_is_one_line(arguments, complaint):
    done = call_here("train.py", *arguments.split())
    assert done.returncode in (cli.USAGE, cli.FAILED)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and complaint in line and "Traceback" not in line


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("build", "--out"),
        ("build --dataset csv --audio . --out OUT", "--dataset csv needs --csv"),
        ("build --dataset gramophone --audio . --out OUT", "--dataset must be one of csv, esc50, fma, folders, "),
        ("build --dataset csv --csv gone.csv --audio . --out OUT", "gone.csv"),
        ("build --dataset folders --audio gone --out OUT", "--audio must be a folder"),
        ("build --dataset folders --audio . --out OUT --chunk-s 2 --stride-s 3", "stride_s must be below chunk_s"),
        ("build --dataset folders --audio . --out OUT --workers 0", "--workers"),
        ("build --dataset folders --audio . --out OUT --beam-options=--runner=FlinkRunner", "--beam-options are for --runner beam"),
        ("build --dataset folders --audio s3://b/x --out OUT", "got s3://b/x: TensorFlow opens no s3://; mount or copy it (python"),
        ("check nowhere", "no manifest.json"),
        ("info nowhere", "no manifest.json"),
    ],
)
def test_a_wrong_flag_of_records_is_one_line_and_leaves_nothing(arguments, complaint, tmp_path):
    done = call_here("records/__main__.py", *arguments.replace("OUT", str(tmp_path / "out")).split())
    assert done.returncode in (cli.USAGE, cli.FAILED)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and complaint in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("similar", "Expected one of {build, query}. (python -m export similar --help)"),
        ("similar ask", "ask Available subcommands: build, query"),
        ("similar build bundle", "PATH folder of audio"),
        ("similar build nowhere .", "nowhere must be a bundle with model.json"),
        ("similar build bundle . --threads 3", "Unrecognized options: --threads, 3"),
        ("similar query index song.wav --top few", "Error parsing --top"),
        ("similar query index song.wav --top 0", "--top > 0, got 1 files and --top 0"),
        ("similar query nowhere song.wav", "nowhere must be an index with index.json"),
    ],
)
def test_a_wrong_flag_of_a_nested_command_is_one_line(arguments, complaint):
    done = call_here("export/__main__.py", *arguments.split())
    assert done.returncode in (cli.USAGE, cli.FAILED)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and complaint in line


def test_an_output_path_that_cannot_be_made_is_one_line(collection, tmp_path):
    """In a process of its own: the line and the code are what a shell sees."""
    (tmp_path / "file").touch()
    done = call(
        "-m", "records", "build", "--dataset", "csv", "--csv", collection / "clips.csv", "--audio", collection, "--out", tmp_path / "file" / "out"
    )
    assert done.returncode == cli.FAILED
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Not a directory" in done.stderr and "Traceback" not in done.stderr


def test_list_names_every_recipe_with_its_first_line():
    lines = call("train.py", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(recipes.RECIPES)
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_a_recipes_defaults_stand_in_its_help():
    assert "(default: 4.0e-1)" not in call("train.py", "--help").stdout
    assert "short_chunk_res" in call("train.py", "--recipe", "mtat_short_chunk_res", "--help").stdout


def test_hush_drops_known_noise_and_keeps_the_rest():
    code = (
        "import os\nfrom tfmusic import cli\n"
        "with cli.hush():\n"
        "    os.write(2, b'I0000 00:00:17.1 9 port.cc:153] oneDNN custom operations are on\\n')\n"
        "    os.write(2, b'E0000 00:00:17.1 9 allocator.cc:9] out of memory\\n')"
    )
    assert call("-c", code).stderr == "E0000 00:00:17.1 9 allocator.cc:9] out of memory\n"


def test_a_series_of_folds_and_seeds_is_summarised(tmp_path, monkeypatch, capsys):
    """Two folds x two seeds: four runs, each on the records of its fold, and their mean: (.1 + .2 + .3 + .4) / 4."""
    import train
    from tfmusic import report, training

    trained = []

    def fit(experiment, records, out):
        trained.append((out.name, records.name, experiment.fit.seed))
        return finished_run(out, {"tracks": 9, "roc_auc": len(trained) / 10, "labels": ["a"]}, {}, fit={"seed": experiment.fit.seed})

    monkeypatch.setattr(report, "write", lambda directory: "")
    monkeypatch.setattr(training, "fit_or_resume", fit)
    train.series(EXPERIMENT, tmp_path / "records", tmp_path / "out", folds=(1, 2), seeds=2)
    assert trained == [(f"fold{fold}-seed{seed}", str(fold), seed) for fold in (1, 2) for seed in (0, 1)]
    assert "over 4 runs" in (text := capsys.readouterr().out) and "0.250" in text


def test_a_run_of_a_series_is_gone_on_with_and_never_another(trained, records, tmp_path):
    """A finished run is left as it is; the same folder with other settings is refused."""
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    from tfmusic import run, training

    same = run.read(trained).experiment
    assert training.fit_or_resume(same, records, trained) == trained
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="must be new, or the same run"):
        training.fit_or_resume(same.model_copy(update={"fit": same.fit.model_copy(update={"seed": 7})}), records, trained)
