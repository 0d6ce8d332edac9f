"""The input doctor: every stage has its rate, the dearest is named with what to change, and a slow one on purpose is found."""

import time

import pytest
import tensorflow as tf

from tests.conftest import EXPERIMENT, RATE_HZ
from tfmusic import data, doctor, doctor_cli
from tfmusic.config import Augment, SpecAugment, WaveformAugment
from tfmusic.doctor import Findings

FAST = {doctor.READ: 9000.0, doctor.DECODE: 4000.0, doctor.FRONTEND: 1000.0}


def test_the_brake_and_what_to_change():
    """1/9 + 1/4 + 1 ms a window: the front end has 1 of 1.361, 73 %. A step slower than the stream is the brake, whatever the stages say."""
    waiting = Findings(FAST, 700.0, 2000.0, {"windows_per_s": 650.0, "data_wait": 0.6}, True, False)
    assert waiting.brake == doctor.FRONTEND
    *table, told = str(waiting).splitlines()
    assert [line.split()[-2:] for line in table[1:4]] == [["9000", "8%"], ["4000", "18%"], ["1000", "73%"]]
    assert told.startswith("60% of a step in training waits for data; the brake is the front end: take a longer --frontend.hop-samples")
    busy = Findings(FAST, 700.0, 100.0, {"windows_per_s": 90.0, "data_wait": 0.05}, True, True)
    assert busy.brake == doctor.STEP
    assert "5% of a step in training waits for data; both share the processors; the brake is the step: a quicker one takes" in str(busy)
    assert "stream takes" not in str(busy)  # 100 / 800
    both = Findings(FAST, 300.0, 200.0, {"windows_per_s": 110.0, "data_wait": 0.0}, True, True)  # 5 ms a window and 3.3
    assert both.brake == doctor.STEP and "; the stream takes 40% of their time beside it, most of it the front end: take a longer" in str(both)
    slow = {doctor.READ: 9000.0, doctor.DECODE: 400.0}
    for pcm, advice in ((False, "--payload pcm16"), (True, "shorter --chunk-s")):
        assert advice in str(Findings(slow, 300.0, 900.0, {"windows_per_s": 300.0, "data_wait": 0.5}, pcm, False))
    assert {*doctor.ADVICE} >= {*FAST, doctor.PARSE, doctor.WAVEFORM, doctor.MASKS, doctor.BATCH, doctor.STEP}


@pytest.mark.slow
def test_a_stage_that_is_slow_on_purpose_is_found(records, monkeypatch):
    """.05 s a batch of 8 windows in the waveform augmentation, several at a time: it is the dearest stage, and the step is quicker."""
    augment_waveforms = data.augment_waveforms

    def slow(waveforms, *rest):
        def late(value):
            time.sleep(0.05)
            return value

        found = tf.numpy_function(late, [augment_waveforms(waveforms, *rest)], tf.float32)
        return tf.ensure_shape(found, [None, EXPERIMENT.frontend.window_samples])

    monkeypatch.setattr(data, "augment_waveforms", slow)
    given = Augment(waveform=WaveformAugment(probability=0.5), spec_augment=SpecAugment(probability=0.5, time_frames=5, mel_bands=3), mixup_alpha=0.2)
    found = doctor.examine(EXPERIMENT.model_copy(update={"augment": given}), records, 0.1)
    assert [*found.stages] == [doctor.READ, doctor.PARSE, doctor.DECODE, doctor.BATCH, doctor.WAVEFORM, doctor.FRONTEND, doctor.MASKS]
    assert found.brake == doctor.WAVEFORM
    assert found.stream < 800 and found.step > found.fit["windows_per_s"]


def test_the_command_prints_a_table_and_a_sentence(records, capsys):
    """Stages that are off are not there."""
    flags = (
        f"--recipe tagging --records {records} --seconds .05 --fit.batch-size 4 --net.width .125 --frontend.sample-rate-hz {RATE_HZ} "
        "--frontend.window-s .5 --frontend.n-fft 256 --frontend.hop-samples 128 --frontend.n-mels 16 --augment.spec-augment.probability 0 "
        "--augment.mixup-alpha 0 --limit 16"
    ).split()
    doctor_cli.doctor(flags)
    *table, empty, told = capsys.readouterr().out.splitlines()
    names = [line.split("  ")[0] for line in table[1:]]
    assert names == [doctor.READ, doctor.PARSE, doctor.DECODE, doctor.BATCH, doctor.FRONTEND, doctor.STREAM, doctor.STEP, "both, in training"]
    assert not empty and "of a step in training waits for data" in told and "; the brake is the " in told


@pytest.mark.slow
def test_metric_learning_is_timed_too(records):
    """Its batches are drawn by tags."""
    fit = EXPERIMENT.fit.model_copy(update={"monitor": "val_map_at_r", "batch_size": 8})
    sampling = EXPERIMENT.sampling.model_copy(update={"batches": "shuffled"})
    data_of = EXPERIMENT.data.model_copy(update={"crops_per_clip": 1})
    found = doctor.examine(EXPERIMENT.model_copy(update={"task": "similarity", "sampling": sampling, "fit": fit, "data": data_of}), records, 0.05)
    assert found.stream > 0 and found.step > 0 and 0 <= found.fit["data_wait"] <= 1
