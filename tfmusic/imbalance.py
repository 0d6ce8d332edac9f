"""What is done for rare labels, as pure functions of the labels of the training tracks: weights in the loss, where logits begin, and how often a
track is drawn.

Each stands by itself and looks at the tracks as they are. Weights and oversampling together therefore favour a rare label twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfmusic.config import InputError


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


def repeats(labels: np.ndarray, share: float) -> np.ndarray:
    """How often an epoch draws each training track, on average over epochs, so that every label has the asked share of the windows, at least.

    Repeat factor sampling (Gupta, Dollar, Girshick, CVPR 2019) in an epoch that keeps its length: a track whose rarest label has the
    share f of the tracks is drawn `max(u, t / f)` times, with the one `u <= 1` for which the mean over tracks is 1. A label of share f thus comes to
    `f t / f = t`, or above where its tracks are drawn for a rarer one. The factor is linear, not the paper's square root, so that t is what it
    says. Tracks of frequent labels make room: each is drawn in a share u of the epochs.

    Args:
        labels: 0/1 `[shape=(tracks, labels)]`. A label that no track has is left out.
        share: t `0 < float < 1`.

    Returns:
        float64 `>= 0` of mean 1 `[shape=(tracks,)]`.

    Raises:
        InputError: not all labels can have that share at once.

    >>> repeats(np.array([[1, 0], [1, 0], [1, 0], [0, 1]]), 0.5)  # t / f = .5 / .25
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    """
    if labels.ndim != 2 or not labels.any():
        raise ValueError(f"labels must be 0 or 1 of shape (tracks, labels), one of them 1, got shape {labels.shape}")
    frequency = labels.mean(axis=0)
    rarity = np.where(labels > 0, 1 / np.where(frequency > 0, frequency, 1), 0).max(axis=1)  # 1 / f of the rarest; 0 without labels
    greatest = 1 / rarity.mean()
    if not 0 < share <= greatest * (1 + 1e-9):
        raise InputError(
            f"--data.oversample must be above 0 and at most {greatest:.4g} for the {np.count_nonzero(frequency)} labels of these records, "
            f"whose shares make up an epoch, got {share:g}"
        )
    # With the k greatest kept and all others at u: (sum of the k) + (tracks - k) u = tracks. The least such u, over k, reaches all others.
    wanted = np.sort(share * rarity)[::-1]
    left = np.arange(len(wanted), 0, -1)
    level = ((len(wanted) - np.cumsum(wanted) + wanted) / left).min()
    return np.maximum(max(level, 0.0), share * rarity)


def rows(times: np.ndarray, batch_size: int, steps: int, seed: int, epoch: int) -> np.ndarray:
    """The tracks of one epoch, each in proportion to its `repeats`, in random order; equal arguments give equal tracks.

    A track that is due e times is drawn floor(e) or ceil(e) times, by one random number on the running sum of all in random order (systematic
    sampling), so that an epoch holds what is due and only fractions are left to chance.

    Args:
        times: of `repeats`, up to a factor `[shape=(tracks,)]`.
        batch_size: windows a step `int > 0`.
        steps: batches of the epoch `int > 0`.
        seed: of the run `int >= 0`.
        epoch: number of the epoch `int >= 0`.

    Returns:
        Numbers of tracks, int64 `[shape=(steps, batch_size)]`.

    >>> sorted(rows(np.array([0.5, 1.5, 1.0, 1.0]), batch_size=4, steps=2, seed=0, epoch=0).ravel().tolist())  # due 1, 3, 2, 2
    [0, 1, 1, 1, 2, 2, 3, 3]
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(times))
    line = np.cumsum(times[order])
    line *= steps * batch_size / line[-1]
    # Rounded: a sum of thirds that misses a whole number by 1e-15 must not cost or win a window.
    ends = np.floor(np.round(line, 9) + random.random())
    ends[-1] = steps * batch_size
    drawn = order.repeat(np.diff(ends, prepend=0.0).astype(np.int64))
    return random.permutation(drawn).reshape(steps, batch_size).astype(np.int64)
