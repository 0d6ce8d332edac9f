"""Golden numbers of tensorflow-addons' triplet losses: `python tests/golden/addons.py [FILE]` in an environment of requirements/addons.txt.

Writes, for every batch, its one-hot labels and embeddings, and for every loss, distance and batch the value and the gradient with respect
to the embeddings. tests/test_addons.py, slow, makes the environment, runs this file and compares; tests/test_embedding_losses.py compares
ours with the committed numbers.
"""

import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="\n\nTensorFlow Addons")  # its end of life

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_addons as tfa  # noqa: E402

tf.get_logger().setLevel("ERROR")  # a new function per loss is what is meant, not an accident to warn of

MARGIN = 0.3  # no difference of two grid distances: no triplet sits on the hinge
LOSSES = {
    "semi_hard": lambda distance: tfa.losses.TripletSemiHardLoss(margin=MARGIN, distance_metric=distance),
    "hard": lambda distance: tfa.losses.TripletHardLoss(margin=MARGIN, distance_metric=distance),
    "hard_soft": lambda distance: tfa.losses.TripletHardLoss(soft=True, distance_metric=distance),
}
DISTANCES = {"euclidean": "L2", "squared": "squared-L2", "cosine": "angular"}  # ours: theirs


def batches():
    """Labels and embeddings; every example has a positive and a negative."""
    random = np.random.default_rng(0)
    units = random.normal(size=(12, 8))
    yield "units", np.arange(12) % 3, units / np.linalg.norm(units, axis=1, keepdims=True)
    yield "long", np.repeat(np.arange(6), 4), random.normal(size=(24, 16))  # not much longer: exp(90), in their soft margin, is infinite
    clusters = random.normal(size=(4, 8))[np.arange(16) % 4] + random.normal(0, 0.5, (16, 8))
    yield "clusters", np.arange(16) % 4, clusters
    grid = random.integers(-4, 5, (16, 4)) / 4  # sums of a few multiples of 1/16 are exact: duplicates are exactly 0 apart
    grid[8:12] = grid[:4]
    yield "duplicates", np.arange(16) % 3, grid  # rows 0 and 8 are of two classes, and so are 1 and 9, 2 and 10, 3 and 11
    yield "twins", np.arange(16) % 4, grid  # rows 0 and 8, ... are of one


def golden():
    numbers = {}
    for batch, classes, embeddings in batches():
        numbers[f"{batch}/labels"] = np.eye(classes.max() + 1, dtype=np.float32)[classes]
        embeddings = numbers[f"{batch}/embeddings"] = embeddings.astype(np.float32)
        for distance, theirs in DISTANCES.items():
            if distance == "cosine" and batch in ("duplicates", "twins"):
                continue  # duplicates are 6e-8 apart there, or less than 0: which of them is the hardest is left to rounding
            for name, make in LOSSES.items():
                variable = tf.Variable(embeddings)
                with tf.GradientTape() as tape:
                    loss = make(theirs)(classes, variable)
                numbers[f"{batch}/{distance}/{name}/loss"] = loss.numpy()
                numbers[f"{batch}/{distance}/{name}/gradient"] = gradient = tape.gradient(loss, variable).numpy()
                assert np.isfinite(gradient).all(), (batch, distance, name)
    return numbers


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".npz"), **golden())
