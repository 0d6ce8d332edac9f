"""Which clips and labels of a dataset are built, and into which split each clip goes: pure functions between reader and builder."""

from __future__ import annotations

import collections
import dataclasses
import difflib
import functools
import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping

from records.datasets.clip import SPLITS, Clip, Reader
from records.settings import Selection
from tfmusic.config import InputError

SPLIT_TENTHS = (8, 1, 1)  # of the clips, in the order of SPLITS; whole numbers, so that no rounding decides a tie
SPLIT_SHARES = (0.8, 0.9)  # of the hash range: below is train, between is valid, above is test
SHARED_GROUPS = 5  # of a label at least, that it can have those shares: 4 and 1
EVERY = ""  # stands for a label that every clip has; no label of a dataset is empty
GROUPS_FOR_ONE = 20  # valid and test have one group for each so many at least: half of their share
CLIP_RULES: dict[str, Callable[[Clip], bool]] = {  # field of Selection -> which clips it keeps
    "labelled": lambda clip: bool(clip.labels),
    "single": lambda clip: len(clip.labels) == 1,
}
BAR = 40  # characters of the longest bar


@dataclasses.dataclass(frozen=True)
class Selected:
    """What `select` took."""

    clips: list[Clip]  # each with its split
    labels: tuple[str, ...]  # in alphabetical order
    merges: dict[str, str]  # old label -> new one
    counts_before: dict[str, int]  # clips with each label of the dataset
    counts_after: dict[str, int]  # clips with each label that is kept, before --subset
    notes: tuple[str, ...] = ()  # what was left out, a line each


def select(clips: Iterable[Clip], selection: Selection, reader: Reader, vocabulary: Collection[str] | None = None) -> Selected:
    """The clips to build, with their splits.

    Args:
        clips: of the reader.
        selection: what is asked for.
        reader: its maps and how it splits.
        vocabulary: the only labels that are kept, after merging; none: all.

    Raises:
        InputError: no clips, an id twice, a group in two splits, a label or map that is not there, or a vocabulary that no label is of.
    """
    clips = _compact(clips)
    if not clips:
        raise InputError("the dataset has no clips")
    doubled = [clip_id for clip_id, count in collections.Counter(clip.id for clip in clips).items() if count > 1]
    if doubled:
        raise InputError(f"every clip must be listed once, got {doubled[0]!r} {sum(c.id == doubled[0] for c in clips)} times")
    before = label_counts(clips)
    merges = parse_merges(selection.merge, reader.merges, before)
    labels = _kept(label_counts(clips, merges), selection, vocabulary)
    chosen = frozenset(labels)
    kept = functools.cache(lambda labels: tuple(label for label in _merged(labels, merges) if label in chosen))
    _replace(clips, labels=lambda clip: kept(clip.labels))
    if before and not any(clip.labels for clip in clips):
        raise InputError(f"no label is left of {len(before)}: --tags, --top-tags and --min-count {selection.min_count} drop all of them")
    notes = []
    for flag in [flag for flag in CLIP_RULES if getattr(selection, flag)]:
        read, clips = len(clips), [clip for clip in clips if CLIP_RULES[flag](clip)]
        notes.append(f"--{flag} leaves out {read - len(clips)} of {read} clips")
        if before and not clips:
            raise InputError(f"--{flag} must leave a clip, got none of {read}")
    after = label_counts(clips)
    if lost := sorted(chosen - after.keys()):
        notes.append(f"--single leaves no clip of {', '.join(lost)}")
    if selection.split_by == "official":
        clips = with_splits(_parted(clips) if reader.divided else clips, reader.split_by)
    else:
        _replace(clips, split=lambda clip: None)
        clips = with_splits(clips, selection.split_by)
    if selection.subset:
        first = {name: sorted((stable_hash(clip.id), clip.id) for clip in clips if clip.split == name)[: selection.subset] for name in SPLITS}
        taken = {clip_id for members in first.values() for _, clip_id in members}
        clips = [clip for clip in clips if clip.id in taken]
    return Selected(clips, tuple(sorted(after)), merges, before, after, tuple(notes))


def label_families(
    families: Mapping[str, Collection[str]], labels: Iterable[str], merges: Mapping[str, str] = {}  # noqa: B006 (read only)
) -> dict[str, tuple[str, ...]]:  # fmt: skip
    """The families of the labels that are built.

    Args:
        families: of each label of the dataset, before merging or after.
        labels: those that are built.
        merges: old label to new one; the new one has the families of all that went into it, and its own.

    Returns:
        Families of each label that has any, alphabetical.
    """
    found = {label: set(families.get(label, ())) for label in labels}
    for old, new in merges.items():
        if new in found:
            found[new].update(families.get(old, ()))
    return {label: tuple(sorted(names)) for label, names in found.items() if names}


def _compact(clips: Iterable[Clip]) -> list[Clip]:
    """Clips whose equal texts are one object: of 100,000 rows of a csv each has its own "rock"."""
    same: dict[object, object] = {}
    texts = functools.cache(lambda labels: tuple(same.setdefault(label, label) for label in labels))
    compacted = []
    for clip in clips:
        group = clip.id if clip.group == clip.id else same.setdefault(clip.group, clip.group)
        compacted.append(dataclasses.replace(clip, labels=texts(clip.labels), group=group))
    return compacted


def _replace(clips: list[Clip], **change: Callable[[Clip], object]) -> None:
    """`dataclasses.replace` of every clip whose field changes, in place: two lists of 100,000 are more than one."""
    ((field, value),) = change.items()
    for number, clip in enumerate(clips):
        if (new := value(clip)) != getattr(clip, field):
            clips[number] = dataclasses.replace(clip, **{field: new})


def label_counts(clips: Iterable[Clip], merges: Mapping[str, str] = {}) -> dict[str, int]:  # noqa: B006 (read only)
    """Clips with each label, most frequent first, equal ones by name."""
    counts = collections.Counter(label for clip in clips for label in _merged(clip.labels, merges))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def parse_merges(given: Iterable[str], maps: Mapping[str, Mapping[str, str]], known: Iterable[str]) -> dict[str, str]:
    """Old label to new one.

    Args:
        given: `old=new`, or names of maps.
        maps: the reader's.
        known: labels of the dataset.

    Raises:
        InputError: neither a map's name nor `old=new`, an old label that no clip has, or one that is to become two.
    """
    merges: dict[str, str] = {}
    known = list(known)
    for text in given:
        if text in maps:
            pairs = {old: new for old, new in maps[text].items() if old in known}
        else:
            old, equals, new = (part.strip() for part in text.partition("="))
            if not (old and equals and new):
                raise InputError(f"--merge must be old=new{''.join(f' or {name}' for name in maps)}, got {text!r}")
            pairs = {_label(old, known, "--merge"): new}
        for old, new in pairs.items():
            if merges.setdefault(old, new) != new:
                raise InputError(f"--merge: {old!r} must become one label, got {merges[old]!r} and {new!r}")
    chained = [new for new in merges.values() if merges.get(new, new) != new]
    if chained:
        raise InputError(f"--merge: {chained[0]!r} must not be both a new label and an old one")
    return merges


def histogram(counts_before: Mapping[str, int], counts_after: Mapping[str, int], merges: Mapping[str, str]) -> str:
    """Counts of the labels before and after merging, new labels with what went into them, as text with bars."""
    width, most = max(map(len, [*counts_before, *counts_after])), max([*counts_before.values(), *counts_after.values()])

    def row(label: str, count: int) -> str:
        return f"  {label:{width}} {bar(count, most)} {count}"

    before = [row(label, count) + (f" -> {merges[label]}" if label in merges else "") for label, count in counts_before.items()]
    after = [row(label, count) for label, count in counts_after.items()]
    return "\n".join(["labels before merging:", *before, "labels after merging:", *after])


def bar(count: int, most: int) -> str:
    """A bar of `BAR` characters for the greatest count, one at least for any, none for 0."""
    return "█" * max(bool(count), round(BAR * count / max(1, most)))


def with_splits(clips: list[Clip], split_by: str = "group") -> list[Clip]:
    """Clips in the reader's order, those without a split with one.

    "group": a stable hash sends about 80 / 10 / 10 % of the groups to train / valid / test whatever else is in the set. "stratified": whole
    groups are dealt out so that each label has those shares of its clips; of an unsplit set at least a twentieth of the groups then goes to
    valid and to test, as long as every label keeps a training group. Where a split of an unsplit set is empty nevertheless, the training
    groups with the highest hashes fill it.

    Raises:
        InputError: a group in two splits.
    """
    unsplit = [clip for clip in clips if clip.split is None]
    splits = _stratified(unsplit) if split_by == "stratified" else _hashed(unsplit)
    if len(unsplit) == len(clips):
        if split_by == "stratified":
            _feed(splits, clips)
        for name in [name for name in SPLITS[:0:-1] if name not in splits.values()]:
            train = sorted((group for group, split in splits.items() if split == "train"), key=stable_hash)
            if len(train) > 1:
                splits[train[-1]] = name
    clips = list(clips)
    _replace(clips, split=lambda clip: clip.split or splits[clip.group])

    homes: dict[str, str] = {}
    for clip in clips:
        if homes.setdefault(clip.group, clip.split) != clip.split:
            raise InputError(f"a group must lie in one split, got {clip.group!r} in {homes[clip.group]} and {clip.split}; --split-by group mends it")
    return clips


def _parted(clips: list[Clip]) -> list[Clip]:
    """Clips of which a group that the official splits divide is one group in each of them."""
    homes = collections.defaultdict(set)
    for clip in clips:
        homes[clip.group].add(clip.split)
    return [clip if len(homes[clip.group]) == 1 else dataclasses.replace(clip, group=f"{clip.group} ({clip.split})") for clip in clips]


def _hashed(clips: list[Clip]) -> dict[str, str]:
    return {group: SPLITS[sum(stable_hash(group) / 2**64 >= bound for bound in SPLIT_SHARES)] for group in {clip.group for clip in clips}}


def _stratified(clips: list[Clip]) -> dict[str, str]:
    """Split of each group by iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011), for whole groups.

    As in the paper the labels are dealt out one by one, always the one with the fewest groups left; within a label the groups go in the
    order of their hash. The paper sends an example where most of that one label is missing, by which all classes of seven clips round alike
    (71 % train) and tags dealt last get what is left. Here a group goes where it makes the sum over its labels of the squared errors of
    their shares least. The set as a whole counts in it like one more label of mean size, and so does a label of too few groups for three
    shares, or else all clips with a tag of their own would be training clips. A label's first group is for training, while train has room.
    """
    contents: dict[str, dict[str, int]] = collections.defaultdict(collections.Counter)  # group -> label -> clips
    for clip in clips:
        contents[clip.group].update((EVERY, *clip.labels))
    order, sizes, members = sorted(contents, key=stable_hash), collections.Counter(), collections.defaultdict(list)
    for group in order:
        sizes.update(contents[group])
        for label in contents[group]:
            members[label].append(group)
    undealt = {label: len(groups) for label, groups in members.items()}
    shared = [count for label, count in sizes.items() if label != EVERY and undealt[label] >= SHARED_GROUPS]
    mean = sum(shared) / len(shared) if shared else 1
    weights = {label: (count if label != EVERY and undealt[label] >= SHARED_GROUPS else mean) ** -2 for label, count in sizes.items()}
    behind = {label: [0] * len(SPLITS) for label in sizes}  # tenths of a clip that a split lacks of its share of those dealt
    untrained, trained, splits = set(sizes), 0, {}
    while undealt:
        rarest = min(undealt, key=lambda label: (label == EVERY, undealt[label], label))
        for group in [group for group in members[rarest] if group not in splits]:
            found = sorted(contents[group].items())  # one order of the sum, whatever that of the clips
            for label, count in found:
                behind[label] = [lack + tenths * count for lack, tenths in zip(behind[label], SPLIT_TENTHS, strict=True)]
            lacks = [sum(weights[label] * count * behind[label][split] for label, count in found) for split in range(len(SPLITS))]
            first = not untrained.isdisjoint(contents[group]) and 10 * trained < SPLIT_TENTHS[0] * len(clips)
            chosen = 0 if first else lacks.index(max(lacks))
            splits[group] = SPLITS[chosen]
            for label, count in found:
                behind[label][chosen] -= 10 * count
                undealt[label] -= 1
            if chosen == 0:
                untrained.difference_update(contents[group])
                trained += contents[group][EVERY]
        del undealt[rarest]
    return splits


def _feed(splits: dict[str, str], clips: list[Clip]) -> None:
    """Moves training groups, small ones first, into a starved valid or test; none that is its label's last in train."""
    fewest = -(-len(splits) // GROUPS_FOR_ONE)
    counts = collections.Counter(splits.values())
    starved = [name for name in SPLITS[1:] for _ in range(fewest - counts[name])]
    if not starved:
        return
    sizes, labels = collections.Counter(clip.group for clip in clips), collections.defaultdict(set)
    for clip in clips:
        labels[clip.group].update(clip.labels)
    train = sorted((group for group, split in splits.items() if split == "train"), key=lambda group: (sizes[group], stable_hash(group)))
    trained = collections.Counter(label for group in train for label in labels[group])
    for group in train:
        if starved and all(trained[label] > 1 for label in labels[group]):
            splits[group] = starved.pop(0)
            trained.subtract(labels[group])


def _kept(counts: dict[str, int], selection: Selection, vocabulary: Collection[str] | None) -> list[str]:
    """Labels that stay."""
    labels = [_label(tag, counts, "--tags") for tag in selection.tags] or list(counts)
    if vocabulary is not None:
        known = frozenset(vocabulary)
        if known.isdisjoint(labels):
            raise InputError(f"no clip has a label of the vocabulary, e.g. {_some(vocabulary)}; the dataset has e.g. {_some(labels)}")
        labels = [label for label in labels if label in known]
    labels = sorted(dict.fromkeys(labels), key=lambda label: (-counts[label], label))[: selection.top_tags]
    return [label for label in labels if counts[label] >= selection.min_count]


def _some(names: Iterable[str]) -> str:
    return ", ".join(map(repr, itertools.islice(names, 3))) or "none"


def _label(name: str, known: Iterable[str], flag: str) -> str:
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        raise InputError(f"{flag}: a label must be one that a clip has{f', perhaps {close[0]!r}' if close else ''}, got {name!r}")
    return name


def _merged(labels: tuple[str, ...], merges: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(merges.get(label, label) for label in labels)) if merges else labels


def stable_hash(text: str) -> int:
    """A 64-bit hash of a name that is the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big")
