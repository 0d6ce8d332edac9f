"""Which training tracks make a batch of metric learning: pure functions of the labels, the settings, the seed and the epoch.

A strategy fills a table of track numbers, one line a step; crops, augmentation and the loss come later. What a drawn triplet teaches is
decided by the tags that its clips share, and `describe` counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfmusic.config import InputError, Sampling

ROUNDS = 1000  # of drawing again what does not fit, before all tracks are looked at
CELLS = 1 << 22  # anchors x tracks looked at together: bounds the memory


@dataclass(frozen=True)
class Pool:
    """The training tracks as a sampler sees them.

    Args:
        labels: 0/1 `[shape=(tracks, labels)]`.
        groups: artist, album, instrument as a number, -1 for none `[shape=(tracks,)]`.
        scores: a tagger's, greater means more likely `[shape=(tracks, labels)]`; none: no tagger.

    Raises:
        ValueError: shapes that do not fit each other, labels other than 0 and 1, scores that are nan or no floats.
    """

    labels: np.ndarray
    groups: np.ndarray
    scores: np.ndarray | None = None

    def __post_init__(self):
        if self.labels.ndim != 2 or 0 in self.labels.shape:
            raise ValueError(f"labels must be of shape (tracks, labels), got {self.labels.shape}")
        if not ((self.labels == 0) | (self.labels == 1)).all():
            raise ValueError(f"labels must be 0 or 1, got {self.labels.min()} to {self.labels.max()}")
        if self.groups.shape != self.labels.shape[:1]:
            raise ValueError(f"groups must be of shape {self.labels.shape[:1]}, got {self.groups.shape}")
        if self.scores is not None and self.scores.shape != self.labels.shape:
            raise ValueError(f"scores must be of the shape of labels, {self.labels.shape}, got {self.scores.shape}")
        if self.scores is not None and not np.issubdtype(self.scores.dtype, np.floating):
            raise ValueError(f"scores must be floats, got {self.scores.dtype}")
        if self.scores is not None and np.isnan(self.scores).any():
            raise ValueError(f"scores must be numbers, got nan for track {np.isnan(self.scores).any(axis=1).argmax()}")


def rows(pool: Pool, settings: Sampling, batch_size: int, steps: int, seed: int, epoch: int) -> np.ndarray:
    """The tracks of one epoch; equal arguments give equal tracks.

    Args:
        pool: the training tracks.
        settings: the strategy, a key of `STRATEGIES`, and its parameters.
        batch_size: examples a step; see the strategy for what it must be a multiple of.
        steps: batches of the epoch `int > 0`.
        seed: of the run `int >= 0`.
        epoch: number of the epoch `int >= 0`.

    Returns:
        Rows of the pool, int64 `[shape=(steps, batch_size)]`.

    Raises:
        InputError: the batch size does not suit the strategy, or there is nothing to draw.

    >>> pool = Pool(np.array([[1, 0], [1, 0], [0, 1], [0, 1]]), np.full(4, -1))
    >>> batch = rows(pool, Sampling(batches="triplets"), batch_size=3, steps=1, seed=0, epoch=0)  # anchor, positive, negative
    >>> pool.labels[batch[0, 0]] @ pool.labels[batch[0]].T
    array([1, 1, 0])
    """
    return STRATEGIES[settings.batches](pool, settings, batch_size, steps, np.random.default_rng([seed, epoch]))


def truth(pool: Pool, settings: Sampling) -> np.ndarray | None:
    """What the loss compares: the tags of every track, or the number of its group; nothing for crops, whose truth is the clip.

    Returns:
        Tags 0/1 float32 `[shape=(tracks, labels)]`; or groups, numbered from 0 in the order of their numbers, int64 `[shape=(tracks,)]`, -1
        for none; or None.
    """
    if settings.batches == "crops":
        return None
    return pool.labels.astype(np.float32) if settings.positives == "tags" else _Groups(pool).column


def idf(labels: np.ndarray) -> np.ndarray:
    """Weight of every label in the weighted overlap: `log(tracks / tracks with the label)`, a label of no track as if of one.

    A label that all tracks have tells nothing and weighs 0; the rarer, the heavier, at most `log(tracks)`.

    Args:
        labels: 0/1 `[shape=(tracks, labels)]`.

    Returns:
        float32 `>= 0` `[shape=(labels,)]`, natural log.

    >>> idf(np.array([[1, 1, 0], [1, 0, 0]]))  # log 2/2, log 2/1, log 2/1
    array([0.       , 0.6931472, 0.6931472], dtype=float32)
    """
    if labels.ndim != 2 or not len(labels):
        raise ValueError(f"labels must be of shape (tracks, labels), got {labels.shape}")
    return np.log(len(labels) / np.maximum(np.count_nonzero(labels, axis=0), 1)).astype(np.float32)


def describe(pool: Pool, triplets: np.ndarray) -> dict[str, float]:
    """What triplets ask for, in tags: a strategy whose negatives are as alike to the anchors as its positives teaches noise.

    Overlap is Jaccard's, `|a & b| / |a | b|`, 0 between clips without tags.

    Args:
        pool: the training tracks.
        triplets: rows as a triplet strategy returns them, (anchor, positive, negative) in turn `[shape=(steps, batch_size)]`.

    Returns:
        "anchors": share of the tracks that are one; "overlap_positive", "overlap_negative": means over the triplets; "negatives_alike": share
        whose negative shares a tag with the anchor; "negatives_nearer": share whose negative overlaps more than the positive;
        "negatives_equal": share whose negative is the positive itself.
    """
    if triplets.shape[-1] % 3:
        raise ValueError(f"triplets must be of shape (steps, a multiple of 3), got {triplets.shape}")
    anchor, positive, negative = triplets.reshape(-1, 3).T
    near, far = _overlap(pool.labels[anchor], pool.labels[positive]), _overlap(pool.labels[anchor], pool.labels[negative])
    figures = {
        "overlap_positive": near,
        "overlap_negative": far,
        "negatives_alike": far > 0,
        "negatives_nearer": far > near,
        "negatives_equal": positive == negative,
    }
    return {"anchors": len(np.unique(anchor)) / len(pool.labels), **{name: float(figure.mean()) for name, figure in figures.items()}}


def _overlap(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    labels, others = labels.astype(bool), others.astype(bool)
    either = np.count_nonzero(labels | others, axis=1)
    return np.count_nonzero(labels & others, axis=1) / np.maximum(either, 1)


# --- what two tracks share: tags or groups, behind the same four names -------------------------------------------------------------------
class _Lists(NamedTuple):
    """The tracks of every label, end to end."""

    first: np.ndarray  # place where a label's tracks begin (labels,)
    counts: np.ndarray  # how many they are (labels,)
    tracks: np.ndarray

    def draw(self, random: np.random.Generator, label: np.ndarray) -> np.ndarray:
        """A track of each label."""
        return self.tracks[self.first[label] + random.integers(self.counts[label])]

    def draw_other(self, random: np.random.Generator, label: np.ndarray, track: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """A track of each label that is not this one; `inside`: this one has the label."""
        drawn = self.tracks[self.first[label] + random.integers(self.counts[label] - inside)]
        last = self.tracks[self.first[label] + self.counts[label] - 1]  # never drawn if inside: it stands in for this one
        return np.where(drawn == track, last, drawn)


def _lists(label: np.ndarray, track: np.ndarray, labels: int) -> _Lists:
    """From pairs in the order of their labels."""
    counts = np.bincount(label, minlength=labels)
    return _Lists(np.cumsum(counts) - counts, counts, track)


class _Tags:
    noun = "tag"

    def __init__(self, pool: Pool):
        self.labels = pool.labels.astype(bool)
        self.lists = _lists(*np.nonzero(np.ascontiguousarray(self.labels.T)), self.labels.shape[1])
        self.words = np.packbits(np.pad(self.labels, ((0, 0), (0, -self.labels.shape[1] % 64))), axis=1).view(np.uint64)

    def carriers(self, which: np.ndarray) -> np.ndarray:
        """The tracks that have one of these labels, bool `[shape=(tracks,)]`."""
        return self.labels[:, which].any(axis=1)

    def pick(self, random: np.random.Generator, track: np.ndarray) -> np.ndarray:
        """A label of each track, of those that another track has too."""
        return _pick(random, self.labels[track] & (self.lists.counts > 1))

    def share(self, track: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether two tracks have a label in common."""
        return (self.words[track] & self.words[other]).any(axis=-1)


class _Groups:
    noun = "group"

    def __init__(self, pool: Pool):
        grouped = np.flatnonzero(pool.groups >= 0)
        numbers, column = np.unique(pool.groups[grouped], return_inverse=True)
        self.column = np.full(len(pool.groups), -1)
        self.column[grouped] = column
        order = np.argsort(column, kind="stable")
        self.lists = _lists(column[order], grouped[order], len(numbers))

    def carriers(self, which: np.ndarray) -> np.ndarray:
        return np.append(which, False)[self.column]  # -1: the last, in no group

    def pick(self, random: np.random.Generator, track: np.ndarray) -> np.ndarray:
        return self.column[track]

    def share(self, track: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (self.column[track] == self.column[other]) & (self.column[track] >= 0)


ALIKE = {"tags": _Tags, "group": _Groups}


def _alike(pool: Pool, settings: Sampling) -> _Tags | _Groups:
    """What makes two tracks alike, once two tracks are."""
    alike = ALIKE[settings.positives](pool)
    if not (alike.lists.counts > 1).any():
        raise InputError(
            f"--sampling.batches {settings.batches} needs a {alike.noun} of 2 training tracks (--sampling.positives {settings.positives}), "
            f"got none among {len(pool.labels)} tracks with {np.count_nonzero(alike.lists.counts)} {alike.noun}s"
        )
    return alike


def _pick(random: np.random.Generator, allowed: np.ndarray) -> np.ndarray:
    """One of the allowed columns in every row, each as likely; a row without one gives 0."""
    line = allowed.cumsum(axis=1)
    return (line > np.floor(random.random(len(line)) * line[:, -1])[:, None]).argmax(axis=1)


def _check_batch_size(settings: Sampling, batch_size: int, multiple: int, least: int) -> None:
    if batch_size % multiple or batch_size < least:
        raise InputError(
            f"--fit.batch-size must be a multiple of {multiple}, {least} or more, for --sampling.batches {settings.batches}, got {batch_size}"
        )


# --- whole batches ------------------------------------------------------------------------------------------------------------------------
def shuffled(pool: Pool, settings: Sampling, batch_size: int, steps: int, random: np.random.Generator) -> np.ndarray:
    """All tracks in random order, and again in another when the epoch is longer."""
    _check_batch_size(settings, batch_size, 1, 1)
    return _permutations(random, len(pool.labels), batch_size, steps)


def crops(pool: Pool, settings: Sampling, batch_size: int, steps: int, random: np.random.Generator) -> np.ndarray:
    """As `shuffled`, every track twice in a row: two crops of one clip. The clips of a batch differ."""
    _check_batch_size(settings, batch_size, 2, 4)
    if batch_size // 2 > len(pool.labels):
        raise InputError(f"--fit.batch-size must be at most twice the {len(pool.labels)} tracks for --sampling.batches crops, got {batch_size}")
    return _permutations(random, len(pool.labels), batch_size // 2, steps).repeat(2, axis=1)


def _permutations(random: np.random.Generator, tracks: int, batch_size: int, steps: int) -> np.ndarray:
    """One permutation after another; one that begins within a batch keeps the batch's tracks for its end."""
    line, length = [], 0
    begun = np.empty(0, np.int64)  # what the batch holds already
    while length < steps * batch_size:
        order = random.permutation(tracks)
        if begun.size:
            late = np.isin(order, begun)
            order = np.concatenate([order[~late], order[late]])
        line.append(order)
        length += tracks
        begun = order[max(0, tracks - length % batch_size) :]
    return np.concatenate(line)[: steps * batch_size].reshape(steps, batch_size)


def balanced(pool: Pool, settings: Sampling, batch_size: int, steps: int, random: np.random.Generator) -> np.ndarray:
    """Batches of P labels x K tracks, K = clips_per_label: a rare tag comes as often as a frequent one.

    The labels of a batch differ, and so do its tracks, as far as there are enough; the label with the fewest tracks chooses first, and
    what must come again comes as rarely as it can. K in a row were drawn for one label and may share others. Drawing the tag before
    the track, each tag as likely, is the balanced sampling of Won et al., ICASSP 2021; P x K batches are Hermans et al., 2017.
    """
    clips = settings.clips_per_label
    _check_batch_size(settings, batch_size, clips, 2 * clips)
    lists = _alike(pool, settings).lists
    useful = np.flatnonzero(lists.counts > 1)
    whole, rest = divmod(batch_size // clips, len(useful))
    drawn = np.concatenate([np.tile(np.arange(len(useful)), (steps, whole)), _distinct(random, len(useful), rest, steps)], axis=1)
    label = useful[drawn]
    label = np.take_along_axis(label, np.argsort(lists.counts[label], axis=1, kind="stable"), axis=1)
    batches = np.full((steps, batch_size), -1)
    for place in range(batch_size):
        batches[:, place] = _unused(random, lists, label[:, place // clips], batches[:, :place])
    return batches


def _distinct(random: np.random.Generator, number: int, chosen: int, times: int) -> np.ndarray:
    """Different numbers below `number`, every set as likely `[shape=(times, chosen)]` (Floyd's algorithm)."""
    table = np.empty((times, chosen), np.int64)
    for place in range(chosen):
        last = number - chosen + place
        drawn = random.integers(last + 1, size=times)
        table[:, place] = np.where((table[:, :place] == drawn[:, None]).any(axis=1), last, drawn)
    return table


def _unused(random: np.random.Generator, lists: _Lists, label: np.ndarray, used: np.ndarray) -> np.ndarray:
    """A track of each label, of those that its batch holds least often so far; `used` `[shape=(steps, tracks so far)]`."""
    found = lists.draw(random, label)
    again = np.flatnonzero((used == found[:, None]).any(axis=1))
    for _ in range(ROUNDS):
        if not again.size:
            return found
        many = again[lists.counts[label[again]] > 2 * used.shape[1]]  # a short list is looked at as a whole
        if not many.size:
            break
        found[many] = lists.draw(random, label[many])
        again = again[(used[again] == found[again, None]).any(axis=1)]
    for step in np.array_split(again, 1 + again.size * used.shape[1] * lists.counts[label[again]].max(initial=1) // CELLS):
        counts = lists.counts[label[step]]
        place = np.arange(counts.max(initial=1))
        tracks = lists.tracks[lists.first[label[step], None] + np.minimum(place, counts[:, None] - 1)]
        times = (tracks[:, :, None] == used[step, None, :]).sum(axis=2) + random.random(tracks.shape)
        times[place >= counts[:, None]] = np.inf
        found[step] = np.take_along_axis(tracks, times.argmin(axis=1)[:, None], axis=1)[:, 0]
    return found


# --- triplets: (anchor, positive, negative) in turn ------------------------------------------------------------------------------------------
def triplets(pool: Pool, settings: Sampling, batch_size: int, steps: int, random: np.random.Generator) -> np.ndarray:
    """Any anchor, a positive of one of its tags, a negative that shares none (or is not of its group).

    The tag is drawn first, each of the anchor's that another track has as likely. A track without tags can be a negative.
    """
    _check_batch_size(settings, batch_size, 3, 3)
    alike, tracks = _alike(pool, settings), len(pool.labels)
    counts = alike.lists.counts

    def positive(anchors):
        return alike.lists.draw_other(random, alike.pick(random, anchors), anchors, np.True_)

    def negative(anchors):
        return _clean(random, alike.share, tracks, anchors, lambda some: random.integers(tracks, size=len(some)), lambda some: 1.0)

    candidates = alike.carriers(counts > 1) & ~alike.carriers(counts == tracks)
    wanted = f"a track that shares a {alike.noun} with a second one and none with a third"
    return _triplets(random, settings, wanted, candidates, positive, negative, batch_size // 3 * steps).reshape(steps, batch_size)


def extremes(pool: Pool, settings: Sampling, batch_size: int, steps: int, random: np.random.Generator) -> np.ndarray:
    """A positive of the tag that the tagger gives the anchor first, a negative of the tag that it gives last, of tags with another track.

    The anchor may lack the one and have the other, and without clean_negatives nothing keeps the negative from its other tags. All such
    triplets are easy, and the loss goes to zero: it is here to be seen.
    """
    scores = _scores(pool, settings)
    labels = pool.labels.astype(bool)
    with_others = labels.sum(axis=0) > labels
    positive = _one_hot(np.where(with_others, scores, -np.inf).argmax(axis=1), labels.shape[1]) & with_others
    low = with_others & ~labels if settings.clean_negatives else with_others  # a tag of the anchor's own gives no clean negative
    negative = _one_hot(np.where(low, scores, np.inf).argmin(axis=1), labels.shape[1]) & low
    distinct = ~(positive & negative).any(axis=1, keepdims=True)
    wanted = "a track with two tags of other tracks, scored apart"
    return _mined(pool, settings, batch_size, steps, random, positive & distinct, negative & distinct, wanted)


def errors(pool: Pool, settings: Sampling, batch_size: int, steps: int, random: np.random.Generator) -> np.ndarray:
    """A positive of a tag that the tagger misses in the anchor, a negative of a tag that it gives it wrongly.

    With the truth t and p = 1 for the k highest scores: t - p is 1 for the one and -1 for the other. The negative then sounds like the
    anchor to the tagger, and often is: without clean_negatives nothing keeps it from the anchor's true tags. Where only one of the two is
    mined, the other is of any tag that the anchor has, or lacks.
    """
    scores = _scores(pool, settings)
    labels = pool.labels.astype(bool)
    k = labels.sum(axis=1, keepdims=True) if settings.top is None else settings.top
    predicted = np.zeros(labels.shape, bool)  # of equal scores the first
    np.put_along_axis(predicted, np.argsort(-scores, axis=1, kind="stable"), np.arange(labels.shape[1]) < k, axis=1)
    counts = labels.sum(axis=0)
    missed, wrong = labels & (counts > 1), ~labels & (counts > 0)
    if settings.mined != "negatives":
        missed &= ~predicted
    if settings.mined != "positives":
        wrong &= predicted
    wanted = "a track for which the tagger misses a tag and gives a wrong one, both tags of other tracks"
    return _mined(pool, settings, batch_size, steps, random, missed, wrong, wanted)


def _scores(pool: Pool, settings: Sampling) -> np.ndarray:
    if settings.positives != "tags":
        raise InputError(f"--sampling.batches {settings.batches} draws by tags: --sampling.positives must be tags, got {settings.positives}")
    if pool.scores is None:
        raise InputError(f"--sampling.batches {settings.batches} needs a tagger's scores: --sampling.tagger must be a run directory, got none")
    return pool.scores


def _one_hot(column: np.ndarray, columns: int) -> np.ndarray:
    return column[:, None] == np.arange(columns)


def _mined(pool, settings, batch_size, steps, random, positive_tags, negative_tags, wanted) -> np.ndarray:
    """Triplets whose positive and negative are of a tag drawn from the anchor's row of these two tables, bool `[shape=(tracks, labels)]`."""
    _check_batch_size(settings, batch_size, 3, 3)
    tags, tracks = _Tags(pool), len(pool.labels)

    def of(table, anchors):
        label = _pick(random, table[anchors])
        return tags.lists.draw_other(random, label, anchors, tags.labels[anchors, label])

    def chances(anchors):
        allowed = negative_tags[anchors]
        return (allowed / (allowed.sum(axis=1, keepdims=True) * np.maximum(tags.lists.counts, 1))) @ tags.labels.T

    def negative(anchors):
        if not settings.clean_negatives:
            return of(negative_tags, anchors)
        return _clean(random, tags.share, tracks, anchors, lambda some: of(negative_tags, some), chances)

    if settings.clean_negatives:
        wanted += ", with a negative that shares no tag with it (--sampling.clean-negatives)"
    candidates = positive_tags.any(axis=1) & negative_tags.any(axis=1)
    drawn = _triplets(random, settings, wanted, candidates, lambda anchors: of(positive_tags, anchors), negative, batch_size // 3 * steps)
    return drawn.reshape(steps, batch_size)


def _triplets(
    random: np.random.Generator,
    settings: Sampling,
    wanted: str,
    candidates: np.ndarray,
    positive: Callable[[np.ndarray], np.ndarray],
    negative: Callable[[np.ndarray], np.ndarray],
    number: int,
) -> np.ndarray:
    """Anchors drawn alike from the candidates; one that proves to have no negative (-1) is drawn no more."""
    anchors, negatives = np.full(number, -1), np.full(number, -1)
    candidates, left = np.flatnonzero(candidates), np.arange(number)
    while left.size:
        if not candidates.size:
            raise InputError(f"--sampling.batches {settings.batches} needs {wanted}, got none among the training tracks")
        anchors[left] = random.choice(candidates, left.size)
        negatives[left] = negative(anchors[left])
        left = left[negatives[left] < 0]
        if left.size:
            candidates = np.setdiff1d(candidates, anchors[left])
    return np.stack([anchors, positive(anchors), negatives], axis=1)


def _clean(random, share, tracks, anchors, draw, chances) -> np.ndarray:
    """A negative that shares nothing with its anchor: drawn, drawn again while it does, at last from all that do not.

    Args:
        random: numpy's generator.
        share: whether two tracks have something in common.
        tracks: their number.
        anchors: rows `[shape=(anchors,)]`.
        draw: anchors to one track each.
        chances: anchors to the chance of every track in `draw`, up to a factor `[shape=(anchors, tracks)]`.

    Returns:
        Rows, -1 where there is none `[shape=(anchors,)]`.
    """
    found = draw(anchors)
    again = np.flatnonzero(share(anchors, found))
    for _ in range(ROUNDS):
        if not again.size:
            return found
        found[again] = draw(anchors[again])
        again = again[share(anchors[again], found[again])]
    for some in np.array_split(again, 1 + again.size * tracks // CELLS):
        line = np.cumsum(chances(anchors[some]) * ~share(anchors[some, None], np.arange(tracks)), axis=1)
        chosen = (line > random.random((len(some), 1)) * line[:, -1:]).argmax(axis=1)
        found[some] = np.where(line[:, -1] > 0, chosen, -1)
    return found


STRATEGIES = {
    "shuffled": shuffled,
    "balanced": balanced,
    "triplets": triplets,
    "extremes": extremes,
    "errors": errors,
    "crops": crops,
}
