"""Two processes on this machine train as one would: equal weights, the joint batch, one line when one of them dies, and going on after it."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import workers
from tests.conftest import EXPERIMENT, ROOT, read_csv
from tfmusic import data, distribution, models, parts, run, schema, training
from tfmusic.config import Augment, Data, Experiment, Fit, InputError

JOINT = {"fit": {"clip_norm": 0.05, "ema": 0.9, "weight_decay": 1e-3}}


def start(job, count=2):
    """The job in so many processes; TF_CONFIG names them where they are several."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    processes = []
    for index in range(count):
        config = {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})} if count > 1 else {}
        command = [sys.executable, "-m", "tests.workers", json.dumps(job)]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | config, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    try:
        return [(process.communicate(timeout=1500)[0], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()


def finish(job, count=2):
    for output, code in start(job, count):
        assert code == 0, output


def arrays(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name.startswith(("net/", "optimizer/"))}


def distance(left, right):
    """Greatest difference of two states."""
    assert left.keys() == right.keys()
    return max(float(np.abs(left[name].astype(np.float64) - right[name]).max()) for name in left)


# --- two processes --------------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pair(records, tmp_path_factory):
    """Two processes that train one net as it is, and without batch normalization; and what Keras says if nothing is mended."""
    directory = tmp_path_factory.mktemp("pair")
    runs = [{"net": "cnn2d", "out": str(directory / "cnn2d")}, {"net": "cnn2d", "out": str(directory / "plain"), "plain": True, "changes": JOINT}]
    finish({"records": str(records), "runs": runs, "unmended": str(directory / "unmended"), "failed": str(directory / "failed")})
    return directory


@pytest.mark.parametrize("net", ["cnn2d", "plain"])
def test_two_workers_have_equal_weights(pair, net):
    """Bit for bit, statistics of batch normalization, optimiser and random states included; and they log the same."""
    chief, other = (arrays(pair / f"{net}.{worker}.npz") for worker in (0, 1))
    assert distance(chief, other) == 0 and distance(chief, arrays(pair / net / run.STATE)) == 0
    assert np.load(pair / f"{net}.0.npz")["logs"] == np.load(pair / f"{net}.1.npz")["logs"]


@pytest.mark.slow
def test_without_batch_normalization_two_are_as_one_with_the_joint_batch(pair, records, tmp_path):
    """Clipping, averages and decay included: float32 sums in another order, and Adam's first steps blow that up to some 1e-5 of a step of .01."""
    experiment = workers.experiment("cnn2d", **JOINT)
    with workers.without_normalization():
        training.fit(experiment, records, tmp_path / "one")
    one, two = arrays(tmp_path / "one" / run.STATE), arrays(pair / "plain" / run.STATE)
    assert distance(one, two) < 1e-4 and any(np.abs(values).max() > 0.1 for values in two.values())
    ours, theirs = (read_csv(directory / run.HISTORY) for directory in (tmp_path / "one", pair / "plain"))
    for name in ("loss", "val_loss", "val_map"):
        np.testing.assert_allclose([float(row[name]) for row in ours], [float(row[name]) for row in theirs], rtol=1e-4)


def test_one_alone_writes_and_the_best_model_is_of_one_device(pair):
    assert json.loads((pair / "cnn2d" / run.METRICS).read_text())["test"]["roc_auc"] > 0.5
    assert list((pair / "cnn2d" / run.TENSORBOARD / "train").glob("events*")) and len(read_csv(pair / "cnn2d" / run.HISTORY)) == 2


def test_keras_still_has_the_two_defects(pair):
    """When this fails, Keras has mended one: take it out of `distribution.mended`."""
    for worker in (0, 1):
        built, reduced = json.loads((pair / f"unmended{worker}").read_text())
        assert keras.__version__.startswith(distribution.DEFECTIVE) and built and reduced, (built, reduced)


def test_what_is_not_finite_on_one_worker_is_known_to_all(pair):
    """Of three steps the second, whose statistic is infinite on worker 1 alone."""
    assert [(pair / f"failed{worker}").read_text() for worker in (0, 1)] == ["1", "1"]


@pytest.mark.slow
def test_every_net_has_equal_weights_in_two_processes(records, tmp_path):
    nets = [name for name in models.MODELS if name not in ("lstm", "mlp")]  # which read no windows
    finish({"records": str(records), "runs": [{"net": net, "out": str(tmp_path / net), "changes": {"fit": {"epochs": 1}}} for net in nets]})
    for net in nets:
        assert distance(*(arrays(tmp_path / f"{net}.{worker}.npz") for worker in (0, 1))) == 0, net


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1], ids=["the chief", "the other"])
def test_a_worker_that_dies_ends_the_job_with_a_line_and_both_go_on_from_there(records, tmp_path, killed):
    """Dropout, plateau and averages included, the weights are those of two workers that nothing happened to, bit for bit."""
    changes = {"net": {"dropout": 0.3}, "fit": {"epochs": 4, "schedule": "plateau", "plateau_patience": 1, "ema": 0.9}}
    one = {"net": "cnn2d", "changes": changes}
    cut = one | {"out": str(tmp_path / "cut"), "killed": killed, "kill": 1}
    results = start({"records": str(records), "runs": [one | {"out": str(tmp_path / "whole")}, cut]})
    output, code = results[1 - killed]
    assert results[killed][1] == -9 and code == 1
    assert output.strip().splitlines()[-1].startswith(f"error: worker {1 - killed} of 2 lost another one"), output
    assert len(read_csv(tmp_path / "cut" / run.HISTORY)) == 2
    finish({"records": str(records), "runs": [cut | {"resume": True, "killed": None}]})
    for worker in (0, 1):
        assert distance(*(arrays(tmp_path / f"{name}.{worker}.npz") for name in ("whole", "cut"))) == 0
    assert read_csv(tmp_path / "cut" / run.HISTORY) == read_csv(tmp_path / "whole" / run.HISTORY)


@pytest.mark.slow
def test_a_mistake_is_the_same_line_on_both(records, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    for output, code in start({"records": str(records), "runs": [{"net": "linear", "out": str(tmp_path / "used")}]}):
        assert code == 1 and output.strip().splitlines()[-1].startswith("error: --out must be a new or empty folder"), output


@pytest.mark.slow
def test_two_devices_of_one_machine_are_as_one_with_the_joint_batch(records, tmp_path):
    """Two logical devices on one processor stand for two GPUs."""
    changes = {"fit": JOINT["fit"] | {"strategy": "mirrored"}}
    job = {"records": str(records), "devices": 2, "runs": [{"net": "cnn2d", "out": str(tmp_path / "two"), "plain": True, "changes": changes}]}
    finish(job, count=1)
    with workers.without_normalization():
        training.fit(workers.experiment("cnn2d", **JOINT), records, tmp_path / "one")
    assert distance(*(arrays(tmp_path / name / run.STATE) for name in ("one", "two"))) < 1e-4


# --- the stream -----------------------------------------------------------------------------------------------------------------------------
def batches(records, experiment, part=parts.WHOLE):
    manifest = schema.read_manifest(records)
    return [(features, truth["labels"]) for features, truth in data.train_batches(records, manifest, experiment, part=part).as_numpy_iterator()]


@pytest.mark.parametrize("oversample", [None, pytest.param(0.3, marks=pytest.mark.slow)], ids=["shuffled", "oversampled"])
def test_parts_of_a_batch_are_the_batch(records, oversample):
    """Rows 0, 1 of 8 are of worker 0's first device, 2, 3 of its second, 4 to 7 of worker 1: the same crops, masks and order, none twice or lost."""
    augment = Augment.model_validate({"spec_augment": {"probability": 1.0, "time_frames": 5, "mel_bands": 3}})
    experiment = EXPERIMENT.model_copy(update={"augment": augment, "data": Data(crops_per_clip=2, oversample=oversample)})
    experiment = experiment.model_copy(update={"fit": Fit(batch_size=8, epochs=2)})
    if oversample is None:
        streams = [batches(records, experiment, parts.Part(worker, 2, 2)) for worker in (0, 1)]
        whole = batches(records, experiment)
    else:
        manifest = schema.read_manifest(records)
        tracks, choose = training._oversampled(records, manifest, experiment)

        def chosen(part):
            stream = data.train_batches(records, manifest, experiment, catalogue=tracks, choose=choose, part=part)
            return [(features, truth["labels"]) for features, truth in stream.as_numpy_iterator()]

        streams, whole = [chosen(parts.Part(worker, 2, 2)) for worker in (0, 1)], chosen(parts.WHOLE)
    assert len(whole) == 16 and [len(stream) for stream in streams] == [32, 32]
    for step, batch in enumerate(whole):
        for place, expected in enumerate(batch):
            found = [stream[2 * step + device][place] for stream in streams for device in (0, 1)]
            np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


def test_every_device_mixes_its_rows_with_a_seed_of_its_own():
    """Numbers of the batches of 3 steps by 2 workers of 2 devices: all of 0 to 11, each once."""
    own = [parts.Part(worker, 2, 2).place(number) for worker in (0, 1) for number in range(6)]
    assert own == [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]


# --- who trains together --------------------------------------------------------------------------------------------------------------------
def config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", (0, 1)),
        ("{}", (0, 1)),
        (config({"worker": ["a:1"]}), (0, 1)),
        (config({"worker": ["a:1", "b:1"]}, index=1), (1, 2)),
        (config({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "chief"), (0, 3)),
        (config({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, index=1), (2, 3)),
    ],
)
def test_tf_config_says_who_one_is(monkeypatch, value, expected):
    monkeypatch.setenv("TF_CONFIG", value)
    assert distribution.cluster() == expected


@pytest.mark.parametrize(
    "value",
    ["host:1", config({"worker": ["a:1", "b:1"]}, index=2), config({"worker": ["a:1"], "ps": ["b:1"]}), '{"cluster": {"worker": ["a", "b"]}}'],
)
def test_a_wrong_tf_config_is_one_line(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(InputError, match="^TF_CONFIG must be "):
        distribution.cluster()


def test_a_strategy_that_does_not_go_with_tf_config_is_refused(monkeypatch):
    with pytest.raises(InputError, match="got multi_worker and 1"):
        distribution.join(Fit(strategy="multi_worker"))
    monkeypatch.setenv("TF_CONFIG", config({"worker": ["a:1", "b:1"]}))
    with pytest.raises(InputError, match="got none and 2"):
        distribution.join(Fit(strategy="none"))


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"task": "similarity", "fit": Fit(monitor="val_recall_at_1")}, "--task similarity"),
        ({"fit": Fit(precision="float16")}, "--fit.precision float16"),
        ({"fit": Fit(xla="on")}, "--fit.xla on"),
        ({"fit": Fit(steps_per_execution=2)}, "--fit.steps-per-execution"),
        ({"fit": Fit(batch_size=15)}, "--fit.batch-size must be a multiple of the 2"),
    ],
)
def test_what_several_replicas_cannot_train_is_one_line(changes, flag):
    @dataclasses.dataclass(frozen=True)
    class Two(distribution.Team):
        replicas = 2

    experiment = Experiment(recipe="tiny", **changes)
    with pytest.raises(InputError, match=flag):
        distribution.check(Two(tf.distribute.get_strategy()), experiment)
    distribution.check(distribution.Team(tf.distribute.get_strategy()), experiment)
