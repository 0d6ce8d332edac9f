"""Merging, choosing and counting labels, subsets, and splits that keep groups whole."""

import numpy as np
import pytest

from records.datasets.clip import Clip, Reader
from records.selection import histogram, label_counts, select, with_splits
from records.settings import Selection
from tfmusic.config import InputError

READER = Reader(read=iter, merges={"synonyms": {"beats": "beat", "nowhere": "beat"}})


def clip(name, group=None, split=None, labels=("a",)):
    return Clip(id=name, path=None, split=split, group=group or name, labels=labels)


CLIPS = [
    clip("1", split="train", labels=("beats", "rock")),
    clip("2", split="train", labels=("beat", "beats")),
    clip("3", split="valid", labels=("rock",)),
    clip("4", split="test", labels=("solo",)),
    clip("5", split="test", labels=()),
]


def labels_of(**selection):
    return {one.id: one.labels for one in select(CLIPS, Selection(**selection), READER).clips}


# --- labels ---------------------------------------------------------------------------------------------------------------------------------
def test_a_map_of_the_dataset_merges_and_counts_each_clip_once():
    """Clip 2 has both names of one thing: one label, counted once. What the map names and no clip has is no mistake."""
    selected = select(CLIPS, Selection(merge=("synonyms",)), READER)
    assert [one.labels for one in selected.clips] == [("beat", "rock"), ("beat",), ("rock",), ("solo",), ()]
    assert selected.labels == ("beat", "rock", "solo") and selected.merges == {"beats": "beat"}
    assert selected.counts_before == {"beats": 2, "rock": 2, "beat": 1, "solo": 1}
    assert label_counts(selected.clips) == {"beat": 2, "rock": 2, "solo": 1}


def test_labels_are_chosen_by_name_rank_and_count():
    assert labels_of(tags=("solo", "rock"))["1"] == ("rock",)
    assert labels_of(merge=("rock=beat",), top_tags=1)["3"] == ("beat",)
    assert labels_of(min_count=2) == {"1": ("beats", "rock"), "2": ("beats",), "3": ("rock",), "4": (), "5": ()}
    assert list(labels_of(min_count=2, labelled=True)) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("selection", "complaint"),
    [
        ({"merge": ("rok=beat",)}, "--merge: a label must be one that a clip has, perhaps 'rock', got 'rok'"),
        ({"merge": ("rock",)}, "--merge must be old=new or synonyms, got 'rock'"),
        ({"merge": ("rock=a", "rock=b")}, "'rock' must become one label, got 'a' and 'b'"),
        ({"merge": ("rock=beat", "beat=x")}, "'beat' must not be both"),
        ({"tags": ("sola",)}, "--tags: a label must be one that a clip has, perhaps 'solo', got 'sola'"),
    ],
)
def test_a_label_that_is_not_there_is_one_line(selection, complaint):
    with pytest.raises(InputError, match=complaint):
        labels_of(**selection)


def test_the_histogram_tells_what_went_where():
    text = histogram({"beats": 2, "rock": 1}, {"beat": 2, "rock": 1}, {"beats": "beat"}).splitlines()
    assert text[0] == "labels before merging:" and text[3] == "labels after merging:"
    assert text[1].endswith(" 2 -> beat") and text[5].split()[-1] == "1"


# --- subset ---------------------------------------------------------------------------------------------------------------------------------
def test_a_smaller_subset_lies_in_a_larger_one_and_holds_n_of_each_split():
    clips = [clip(f"{split}{number}", split=split) for split in ("train", "valid", "test") for number in range(50)]
    few, more = ({one.id for one in select(clips, Selection(subset=size), READER).clips} for size in (5, 20))
    assert len(few) == 15 and len(more) == 60 and few < more
    assert {one.split for one in select(clips, Selection(subset=1), READER).clips} == {"train", "valid", "test"}


# --- splits ---------------------------------------------------------------------------------------------------------------------------------
def test_hashed_splits_are_stable_disjoint_and_about_80_10_10():
    """Adding clips moves none; 2,000 groups: .8 +- 4 sigma of .009."""
    clips = [clip(f"{group}/{i}", group=f"group{group}") for group in range(2000) for i in range(2)]
    splits = {one.id: one.split for one in with_splits(clips)}
    assert all(splits[f"{group}/0"] == splits[f"{group}/1"] for group in range(2000))
    assert abs(np.mean([split == "train" for split in splits.values()]) - 0.8) < 0.036
    fewer = {one.id: one.split for one in with_splits(clips[:1000])}
    assert all(splits[name] == split for name, split in fewer.items())


def test_few_groups_still_fill_every_split():
    for groups in range(3, 12):
        assert {one.split for one in with_splits([clip(f"g{i}") for i in range(groups)])} == {"train", "valid", "test"}


def test_a_group_in_two_splits_is_refused():
    with pytest.raises(InputError, match="'artist' in train and test"):
        with_splits([clip("a", "artist", "train"), clip("b", "artist", "test")])


def test_given_splits_stay_unless_others_are_asked_for():
    clips = [clip(f"{number}", split="test") for number in range(100)]
    assert {one.split for one in select(clips, Selection(), READER).clips} == {"test"}
    assert {one.split for one in select(clips, Selection(split_by="group"), READER).clips} == {"train", "valid", "test"}


def test_stratified_splits_have_the_shares_in_every_label_and_whole_groups():
    """100 clips of each of ten genres in groups of two: 40, 5 and 5 groups of each."""
    clips = [clip(f"{genre}{number}", f"{genre}{number // 2}", labels=(f"genre{genre}",)) for genre in range(10) for number in range(100)]
    found = select(clips, Selection(split_by="stratified"), READER).clips
    for genre in range(10):
        counts = [sum(one.labels == (f"genre{genre}",) and one.split == split for one in found) for split in ("train", "valid", "test")]
        assert counts == [80, 10, 10]
    assert len({(one.group, one.split) for one in found}) == 500


def test_a_group_that_official_splits_divide_is_one_group_in_each_where_the_reader_says_so():
    clips = [clip("1", "ann", "train"), clip("2", "ann", "valid"), clip("3", "ben", "train")]
    with pytest.raises(InputError, match="'ann' in train and valid; --split-by group mends it"):
        select(clips, Selection(), READER)
    divided = Reader(read=iter, divided=True)
    assert [one.group for one in select(clips, Selection(), divided).clips] == ["ann (train)", "ann (valid)", "ben"]
    assert [one.group for one in select(clips, Selection(split_by="group"), divided).clips] == ["ann", "ann", "ben"]
