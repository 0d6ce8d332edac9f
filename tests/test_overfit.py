"""One batch by heart: learnt where it can be, refused or told where it cannot, and no run is written."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import EXPERIMENT, RATE_HZ, call_here
from tfmusic import overfit
from tfmusic.config import Augment, Experiment, InputError, SpecAugment
from tfmusic.overfit import Outcome

FLAGS = f"--frontend.sample-rate-hz {RATE_HZ} --frontend.window-s .5 --frontend.n-fft 256 --frontend.hop-samples 128 --frontend.n-mels 16".split()


def test_a_batch_is_learnt_whatever_the_recipe_does_against_it(records):
    """Masks, mixup, dropout, smoothing and a warm-up longer than the try are off, so 8 windows are told apart."""
    masks = Augment(spec_augment=SpecAugment(probability=1.0, time_frames=20, mel_bands=16), mixup_alpha=1.0)
    hard = {"label_smoothing": 0.3, "warm_up_epochs": 100.0, "schedule": "cosine", "weight_decay": 0.5, "ema": 0.999}
    net = EXPERIMENT.net.model_copy(update={"dropout": 0.9})
    given = EXPERIMENT.model_copy(update={"augment": masks, "net": net, "fit": EXPERIMENT.fit.model_copy(update=hard)})
    found = overfit.overfit(given, records, 200)
    assert found.learnt and len(found.losses) < 200 and found.rows == 8 and found.losses[-1] <= 0.05 * found.losses[0]
    assert found.figures["ROC-AUC"] > 0.99
    assert str(found).startswith("the net can learn one batch: loss ") and "on the same 8 windows, ROC-AUC " in str(found)


def test_the_program_says_it_in_a_line_and_by_its_exit_code(records, tmp_path, monkeypatch):
    """Step size 1e-9 learns nothing in two steps."""
    common = ["--recipe", "tagging", "--records", records, "--overfit-batch", *FLAGS, "--net.width", ".125", "--fit.batch-size", "8"]
    failed = call_here("train.py", *common, "--overfit-steps", "2", "--fit.learning-rate", "1e-9")
    assert failed.returncode == 1 and failed.stdout.splitlines()[-1].startswith("the net did not learn one batch: loss "), failed.stderr
    assert "in 2 steps on the same 8 windows" in failed.stdout and "; try more --overfit-steps" in failed.stdout
    refused = call_here("train.py", *common, "--out", tmp_path / "run")
    assert refused.returncode == 1 and "--overfit-batch writes no run" in refused.stderr and not (tmp_path / "run").exists()


def test_what_is_told():
    """5 % of the first loss is the bound; a loss that is not finite is no success."""
    assert Outcome([1.0, 0.05], {}, 8).learnt and not Outcome([1.0, 0.051], {}, 8).learnt
    lost = Outcome([1.0, float("nan")], {"R2": 0.5}, 8)
    assert not lost.learnt and str(lost).endswith("loss 1 to nan in 2 steps on the same 8 windows, R2 0.500; try a lower --fit.learning-rate, and "
                                                  "look at labels and loss")  # fmt: skip


def test_figures_of_a_batch():
    """Argmax right in 1 of 2; 3 of 4 pairs of a positive and a negative in order; 1 - .5 / 2 with an unknown left out; 1 of 2 nearest alike."""
    genre = Experiment(recipe="x", task="genre", loss={"name": "crossentropy"}, fit={"monitor": "val_accuracy"})
    truth, scores = np.eye(2), np.array([[2.0, 1.0], [3.0, 0.0]])
    assert overfit._figures(genre, {"logits": truth}, {"logits": scores}) == {"accuracy": 0.5}
    found = overfit._figures(EXPERIMENT, {"logits": truth}, {"logits": np.array([[2.0, 1.0], [0.0, 0.5]])})
    assert found == {"ROC-AUC": pytest.approx(3 / 4)}
    targets = {"targets": np.array([[0.0], [2.0], [np.nan]])}
    assert overfit._figures(EXPERIMENT, targets, {"targets": np.array([[0.5], [1.5], [9.0]])}) == {"R2": pytest.approx(0.75)}
    embedding = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    alike = {"truth": tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])}
    assert overfit._nearest(alike, {"embedding": embedding}) == {"nearest alike": 0.0}
    assert overfit._nearest(alike, {"embedding": embedding[[0, 2, 1]]}) == {"nearest alike": 1.0}


def test_triplets_are_tried_too(records):
    """Three steps are not enough to say more than that it runs; the figure is of neighbours."""
    fit = EXPERIMENT.fit.model_copy(update={"monitor": "val_map_at_r", "batch_size": 8})
    sampling, single = EXPERIMENT.sampling.model_copy(update={"batches": "shuffled"}), EXPERIMENT.data.model_copy(update={"crops_per_clip": 1})
    given = EXPERIMENT.model_copy(update={"task": "similarity", "sampling": sampling, "fit": fit, "data": single})
    found = overfit.overfit(given, records, 3)
    assert len(found.losses) <= 3 and 0 <= found.figures["nearest alike"] <= 1


def test_a_loss_without_a_zero_is_refused(records):
    contrastive = Experiment(recipe="x", task="similarity", similarity={"loss": "nt_xent"}, sampling={"batches": "crops"})
    with pytest.raises(InputError, match="needs a loss that can be 0, as triplet, got nt_xent"):
        overfit.overfit(contrastive, records)
