"""What is done for rare labels, as pure functions of the labels of the training tracks: weights in the loss, and where logits begin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_weights(counts: Sequence[int]) -> np.ndarray:
    """Weight of every label's positives by inverse frequency: `w_c = mean(n) / n_c`, the mean over labels that any track has.

    The positives of every label weigh as much together, `n_c w_c = mean(n)`, and one positive weighs 1 on average. For one label a track this is
    scikit-learn's "balanced", `tracks / (labels n_c)`. A label of no track weighs as if it had one.

    Args:
        counts: training tracks with each label `int >= 0` `[shape=(labels,)]`.

    Returns:
        float64 `> 0` `[shape=(labels,)]`.

    Raises:
        ValueError: no track has a label.

    >>> class_weights([1, 2, 3])
    array([2.        , 1.        , 0.66666667])
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not (counts >= 0).all() or not counts.any():
        raise ValueError(f"counts must be numbers >= 0, one per label and one above 0, got {counts}")
    return counts[counts > 0].mean() / np.maximum(counts, 1)


def class_alphas(weights: np.ndarray) -> np.ndarray:
    """The same weights as alpha of the focal loss: `a_c = w_c / (1 + w_c)`.

    A positive then weighs `a_c / (1 - a_c) = w_c` times a negative of its label, as in the weighted cross-entropy, and both together 1, so that a
    rare label does not outweigh the others by its many negatives. A label of average frequency has alpha 1/2.

    Args:
        weights: of `class_weights` `[shape=(labels,)]`.

    Returns:
        `0 < float < 1` `[shape=(labels,)]`.

    >>> class_alphas(np.array([1.0, 3.0]))
    array([0.5 , 0.75])
    """
    return weights / (1 + weights)


def prior_logits(counts: Sequence[int], tracks: int, activation: str) -> np.ndarray:
    """Logits whose scores are the labels' shares of the training tracks, where a net that knows nothing yet should begin (Lin et al., ICCV
    2017, section 4.1): the first epochs are not spent on learning that most labels are absent.

    `-log((1 - pi) / pi)` for independent labels, `log pi` for one label of all, with `pi = n_c / tracks`; a label of no track counts as one of half
    a track, and one of all tracks lacks half a track, so that both stay finite.

    Args:
        counts: training tracks with each label `int >= 0` `[shape=(labels,)]`.
        tracks: their number `int > 0`.
        activation: what follows the logits, "sigmoid" or "softmax".

    Returns:
        float32 `[shape=(labels,)]`.

    >>> prior_logits([50, 25], 100, "sigmoid")  # log(1/1), log(1/3)
    array([ 0.       , -1.0986123], dtype=float32)
    """
    if tracks <= 0 or not all(0 <= count <= tracks for count in counts):
        raise ValueError(f"counts must be between 0 and tracks, which must be > 0, got {counts} of {tracks}")
    share = np.clip(np.asarray(counts, np.float64), 0.5, tracks - 0.5) / tracks
    return (np.log(share) if activation == "softmax" else np.log(share / (1 - share))).astype(np.float32)
