"""FSD50K, ESC-50 and NSynth: miniature trees of each published layout, and every line a wrong one ends in."""

import json
from pathlib import PurePosixPath

import pytest

from records.datasets import READERS, families, read
from records.datasets.clip import Source
from records.datasets.esc50 import splits_of
from records.datasets.fsd50k import FAMILIES, lineages, topmost
from records.datasets.nsynth import split_of
from records.selection import Selection, select
from tfmusic import files
from tfmusic.config import InputError

# --- FSD50K: quoted lists, smeared labels, no header in vocabulary.csv, an uploader (ann) in train and val ----------------------------------
ONTOLOGY = [  # id, name, child_ids
    ("/m/0dgw9r", "Human sounds", ["/m/09l8g"]),
    ("/m/09l8g", "Human voice", []),
    ("/m/0jbk", "Animal", ["/m/068hy"]),
    ("/m/068hy", "Domestic animals, pets", ["/m/01yrx"]),
    ("/m/01yrx", "Cat", ["/m/07rjzl8"]),
    ("/m/07rjzl8", "Hiss", []),
    ("/m/04rlf", "Music", ["/m/04szw"]),
    ("/m/04szw", "Musical instrument", ["/m/02sgy"]),
    ("/m/02sgy", "Electric guitar", []),
    ("/m/059j3w", "Natural sounds", []),
    ("/t/dd00041", "Sounds of things", ["/m/07yv9"]),
    ("/m/07yv9", "Vehicle", []),
    ("/t/dd00098", "Source-ambiguous sounds", ["/t/dd00110", "/m/05n1m"]),
    ("/t/dd00110", "Deformable shell", ["/m/07plct2"]),
    ("/m/07plct2", "Crushing", []),
    ("/m/05n1m", "Onomatopoeia", ["/m/07rjzl8"]),
    ("/t/dd00123", "Channel, environment and background", []),
]
FSD50K = {
    "FSD50K.ground_truth/vocabulary.csv": "4,Animal,/m/0jbk\n25,Cat,/m/01yrx\n53,Crushing,/m/07plct2\n67,Domestic_animals_and_pets,/m/068hy\n"
    "69,Electric_guitar,/m/02sgy\n92,Hiss,/m/07rjzl8\n98,Human_voice,/m/09l8g\n122,Music,/m/04rlf\n123,Musical_instrument,/m/04szw\n"
    "191,Vehicle,/m/07yv9\n",
    "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n"
    '64760,"Electric_guitar,Musical_instrument,Music","/m/02sgy,/m/04szw,/m/04rlf",train\n'
    '345111,"Human_voice,Electric_guitar,Musical_instrument,Music","/m/09l8g,/m/02sgy,/m/04szw,/m/04rlf",val\n'
    "4258,Crushing,/m/07plct2,train\n"
    '99,"Hiss,Cat,Domestic_animals_and_pets,Animal","/m/07rjzl8,/m/01yrx,/m/068hy,/m/0jbk",val\n'
    "100,Hiss,/m/07rjzl8,train\n",
    "FSD50K.ground_truth/eval.csv": "fname,labels,mids\n37199,Vehicle,/m/07yv9\n",
    "FSD50K.metadata/dev_clips_info_FSD50K.json": json.dumps(
        {
            "64760": {"title": "g.wav", "tags": ["guitar"], "license": "http://creativecommons.org/licenses/by/3.0/", "uploader": "ann"},
            "345111": {"title": "v.wav", "tags": [], "license": "http://creativecommons.org/publicdomain/zero/1.0/", "uploader": "ann"},
            "4258": {"uploader": "ben"},
            "99": {"uploader": "cleo"},
        }
    ),
    "FSD50K.metadata/eval_clips_info_FSD50K.json": json.dumps({"37199": {"uploader": "dora"}}),
    "FSD50K.dev_audio/64760.wav": "",
    "FSD50K.eval_audio/37199.wav": "",
    "ontology.json": json.dumps([{"id": i, "name": name, "description": "", "child_ids": below, "restrictions": []} for i, name, below in ONTOLOGY]),
}

# --- ESC-50: one csv, a recording cut twice (104105), audio of two of its six rows ------------------------------------------------------------
ESC50_CSV = (
    "filename,fold,target,category,esc10,src_file,take\n"
    "1-85362-A-0.wav,1,0,dog,True,85362,A\n"
    "2-104105-A-19.wav,2,19,thunderstorm,False,104105,A\n"
    "2-104105-B-19.wav,2,19,thunderstorm,False,104105,B\n"
    "3-151080-A-20.wav,3,20,crying_baby,True,151080,A\n"
    "4-104168-A-32.wav,4,32,keyboard_typing,False,104168,A\n"
    "5-171653-A-41.wav,5,41,chainsaw,True,171653,A\n"
)
ESC50 = {"meta/esc50.csv": ESC50_CSV, "audio/5-171653-A-41.wav": "", "audio/1-85362-A-0.wav": ""}


# --- NSynth: one json per split; an instrument of valid and test, none of train ---------------------------------------------------------------
def note(name, source="acoustic", qualities=()):
    """An entry of examples.json, with the fields that the published one has."""
    instrument, pitch, velocity = name.rsplit("-", 2)
    return {
        "qualities": [0] * 10,
        "pitch": int(pitch),
        "note": 7,
        "instrument_source_str": source,
        "velocity": int(velocity),
        "instrument_str": instrument,
        "instrument": 3,
        "sample_rate": 16000,
        "qualities_str": list(qualities),
        "instrument_source": 0,
        "note_str": name,
        "instrument_family": 0,
        "instrument_family_str": instrument.rsplit("_", 2)[0],
    }


def examples(*notes):
    return json.dumps({one["note_str"]: one for one in notes})


NSYNTH = {
    "nsynth-train/examples.json": examples(
        note("synth_lead_synthetic_011-060-127", "synthetic", ["dark", "tempo-synced"]), note("synth_lead_synthetic_011-009-025", "synthetic")
    ),
    "nsynth-train/audio/synth_lead_synthetic_011-060-127.wav": "",
    "nsynth-valid/examples.json": examples(note("bass_electronic_018-100-050", "electronic", ["percussive"])),
    "nsynth-valid/audio/bass_electronic_018-100-050.wav": "",
    "nsynth-test/examples.json": examples(note("bass_electronic_018-023-025", "electronic"), note("flute_acoustic_002-080-075")),
    "nsynth-test/audio/flute_acoustic_002-080-075.flac": "",
}
TREES = {"fsd50k": FSD50K, "esc50": ESC50, "nsynth": NSYNTH}


def plant(root, tree):
    """Writes files by relative path, here or in a bucket."""
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(root / name, text)
    return root


def clips(dataset, root, **options):
    return {clip.id: clip for clip in read(Source(dataset=dataset, audio=root, **options))}


def labels(found):
    return {name: clip.labels for name, clip in found.items()}


def complains(match, dataset, root, **options):
    with pytest.raises(InputError, match=match) as error:
        list(read(Source(dataset=dataset, audio=root, **options)))
    assert "\n" not in str(error.value)


def edited(dataset, name, old, new):
    assert old in TREES[dataset][name]
    return {**TREES[dataset], name: TREES[dataset][name].replace(old, new)}


# --- all three ------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dataset", "label_set", "protocol"),
    [(name, label_set, protocol) for name in TREES for label_set in READERS[name].label_sets for protocol in READERS[name].protocols or (None,)],
)
def test_every_label_set_and_protocol_can_be_built(tmp_path, dataset, label_set, protocol):
    """No id twice, no group in two splits, labels trimmed and listed once, a label somewhere."""
    root = plant(tmp_path, TREES[dataset])
    ontology = root / "ontology.json" if label_set.startswith("families") else None
    found = list(read(Source(dataset=dataset, audio=root, label_set=label_set, protocol=protocol, ontology=ontology)))
    selected = select(found, Selection(), READERS[dataset])
    assert len(selected.clips) == len(found) > 2 and selected.labels
    assert all(label == label.strip() for label in selected.labels) and all(len(set(one.labels)) == len(one.labels) for one in found)


@pytest.mark.parametrize("dataset", TREES)
def test_a_bucket_is_read_like_a_folder(tmp_path, dataset):
    bucket = plant(files.location(f"ram://readers/{dataset}"), TREES[dataset])
    local = plant(tmp_path, TREES[dataset])
    found, expected = clips(dataset, bucket), clips(dataset, local)
    assert labels(found) == labels(expected) and [one.group for one in found.values()] == [one.group for one in expected.values()]
    assert all(PurePosixPath(one.path).relative_to(bucket) == PurePosixPath(expected[name].path.relative_to(local)) for name, one in found.items())


@pytest.mark.parametrize("dataset", TREES)
def test_an_empty_folder_ends_in_what_to_get(tmp_path, dataset):
    complains(f"{tmp_path}.*: get .*https://", dataset, tmp_path)


@pytest.mark.parametrize(
    ("dataset", "options", "complaint"),
    [
        ("fsd50k", {"label_set": "family"}, "--label-set of fsd50k must be one of classes, families6, families5, got 'family'"),
        ("fsd50k", {"protocol": "5"}, "--protocol of fsd50k must be left out, got '5'"),
        ("esc50", {"protocol": "6"}, "--protocol of esc50 must be one of 5, 1, 2, 3, 4, got '6'"),
        ("esc50", {"targets": ("fold",)}, "--dataset esc50 takes no --targets"),
        ("nsynth", {"label_set": "velocity"}, "--label-set of nsynth must be one of tags, family, source, qualities, pitch, got 'velocity'"),
    ],
)
def test_what_a_dataset_does_not_have_is_refused(tmp_path, dataset, options, complaint):
    complains(complaint, dataset, plant(tmp_path, TREES[dataset]), **options)


# --- FSD50K ---------------------------------------------------------------------------------------------------------------------------------
def test_fsd50k_classes_splits_and_groups(tmp_path):
    """ann has clips in train and in val: the official split makes a group of each part. 100 has no uploader."""
    found = clips("fsd50k", plant(tmp_path, FSD50K))
    assert {name: (one.split, one.group) for name, one in found.items()} == {
        "64760": ("train", "ann"),
        "345111": ("valid", "ann"),
        "4258": ("train", "ben"),
        "99": ("valid", "cleo"),
        "100": ("train", "100"),
        "37199": ("test", "dora"),
    }
    assert found["64760"].labels == ("Electric_guitar", "Musical_instrument", "Music")
    assert found["64760"].path == tmp_path / "FSD50K.dev_audio" / "64760.wav"
    assert found["37199"].path == tmp_path / "FSD50K.eval_audio" / "37199.wav"


def test_fsd50k_families_are_those_above_the_topmost_classes(tmp_path):
    root = plant(tmp_path, FSD50K)
    six = labels(clips("fsd50k", root, label_set="families6", ontology=root / "ontology.json"))
    assert six == {
        "64760": ("Music",),
        "345111": ("Human sounds", "Music"),
        "4258": ("Source-ambiguous sounds",),
        "99": ("Animal",),  # its Hiss is known to be a cat's
        "100": ("Animal", "Source-ambiguous sounds"),  # its Hiss may be anything's
        "37199": ("Sounds of things",),
    }
    five = labels(clips("fsd50k", root, label_set="families5", ontology=root / "ontology.json"))
    assert five == {name: tuple(family for family in families if family in FAMILIES[:5]) for name, families in six.items()}
    assert five["4258"] == ()


def test_fsd50k_classes_have_the_families_that_reach_them(tmp_path):
    """Compared with a walk down from each family instead of up from each class; Hiss lies below Cat and below Onomatopoeia."""
    root = plant(tmp_path, FSD50K)
    below = {i: children for i, _, children in ONTOLOGY}

    def reached(i):
        return {i}.union(*(reached(child) for child in below[i]))

    tops = {name: reached(i) for i, name, _ in ONTOLOGY if name in FAMILIES}
    classes = {row.split(",")[1]: row.split(",")[2] for row in FSD50K["FSD50K.ground_truth/vocabulary.csv"].split()}
    found = families(Source(dataset="fsd50k", audio=root, ontology=root / "ontology.json"))
    assert {name: set(of) for name, of in found.items()} == {name: {top for top, ids in tops.items() if i in ids} for name, i in classes.items()}
    assert found["Hiss"] == ("Animal", "Source-ambiguous sounds") and found["Animal"] == ("Animal",)
    assert families(Source(dataset="fsd50k", audio=root)) == {}
    assert families(Source(dataset="fsd50k", audio=root, label_set="families6", ontology=root / "ontology.json")) == {}


def test_fsd50k_a_class_that_the_ontology_lacks_is_one_line(tmp_path):
    root = plant(tmp_path, edited("fsd50k", "FSD50K.ground_truth/vocabulary.csv", "/m/07yv9", "/m/0"))
    with pytest.raises(InputError, match="vocabulary.csv: mids must be classes of .*ontology.json, got '/m/0'"):
        families(Source(dataset="fsd50k", audio=root, ontology=root / "ontology.json"))


def test_lineages_follow_every_parent_and_end_in_a_loop():
    above = lineages({"top": ["a", "b"], "a": ["x"], "b": ["x"], "other": ["x"], "x": [], "l": ["m"], "m": ["l"]})
    assert above["x"] == {"x", "a", "b", "top", "other"} and above["top"] == {"top"} and above["l"] == {"l", "m"}
    assert topmost(("x", "a"), above) == ["a"] and topmost(("a", "other"), above) == ["a", "other"]


def test_fsd50k_as_copied_to_hugging_face_and_without_metadata(tmp_path):
    """labels/, clips/dev, clips/eval; without uploaders every clip is its own group."""
    folders = {
        "FSD50K.ground_truth": "labels", "FSD50K.dev_audio": "clips/dev", "FSD50K.eval_audio": "clips/eval", "FSD50K.metadata": "metadata",
    }  # fmt: skip
    tree = {folders.get(name.split("/")[0], "") + "/" + name.split("/")[-1]: text for name, text in FSD50K.items() if "/" in name}
    found = clips("fsd50k", plant(tmp_path / "all", tree))
    assert found["64760"].path == tmp_path / "all" / "clips" / "dev" / "64760.wav" and found["4258"].group == "ben"
    found = clips("fsd50k", plant(tmp_path / "few", {name: text for name, text in tree.items() if "metadata" not in name}))
    assert all(one.group == name for name, one in found.items())


def test_fsd50k_annotations_may_lie_apart_from_the_audio(tmp_path):
    audio = plant(tmp_path / "resampled", {name: text for name, text in FSD50K.items() if "_audio/" in name})
    metadata = plant(tmp_path / "original", {name: text for name, text in FSD50K.items() if "_audio/" not in name})
    assert clips("fsd50k", audio, metadata=metadata)["64760"].path == audio / "FSD50K.dev_audio" / "64760.wav"


def test_fsd50k_with_a_byte_order_mark_and_windows_line_ends(tmp_path):
    tree = {name: "\ufeff" + text.replace("\n", "\r\n") if name.endswith(("csv", "json")) else text for name, text in FSD50K.items()}
    root, plain = plant(tmp_path / "a", tree), plant(tmp_path / "b", FSD50K)
    options = [{"label_set": "families6", "ontology": folder / "ontology.json"} for folder in (root, plain)]
    assert labels(clips("fsd50k", root, **options[0])) == labels(clips("fsd50k", plain, **options[1]))


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("dev.csv", ",split\n", ",part\n", "dev.csv must have the column 'split', got fname, labels, mids, part"),
        ("dev.csv", "4258,Crushing", "4258,Crash", "dev.csv line 4: labels must be classes of vocabulary.csv, got 'Crash'"),
        ("dev.csv", "4258,", ",", "dev.csv line 4: fname must name a clip, got an empty cell"),
        ("dev.csv", "/m/07rjzl8,train", "/m/07rjzl8,dev", "dev.csv line 6: split must be one of train, val, got 'dev'"),
        ("eval.csv", "37199,Vehicle,/m/07yv9", "37199,Vehicle", "eval.csv line 2: a row must have 3 cells, got fewer"),
        ("vocabulary.csv", "53,Crushing,/m/07plct2", "Crushing", r"vocabulary.csv must have rows of index,label,mid, got \['Crushing'\]"),
    ],
)
def test_fsd50k_a_bad_row_is_one_line(tmp_path, name, old, new, complaint):
    complains(complaint, "fsd50k", plant(tmp_path, edited("fsd50k", f"FSD50K.ground_truth/{name}", old, new)))


@pytest.mark.parametrize("missing", ["FSD50K.ground_truth/vocabulary.csv", "FSD50K.ground_truth/eval.csv", "FSD50K.dev_audio", "FSD50K.eval_audio"])
def test_fsd50k_a_missing_part_is_named(tmp_path, missing):
    tree = {name: text for name, text in FSD50K.items() if not name.startswith(missing)}
    complains(f"{missing} is missing: get FSD50K from https://zenodo.org", "fsd50k", plant(tmp_path, tree))


def test_fsd50k_wrong_json_is_one_line(tmp_path):
    root = plant(tmp_path, FSD50K)
    families = {"dataset": "fsd50k", "root": root, "label_set": "families6"}
    complains("--label-set families6 of fsd50k needs --ontology FILE: get ontology.json from", **families)
    for text, complaint in {
        "{": "must be a readable JSON file",
        "{}": "must hold a JSON array, got dict",
        '["a"]': "must be a list of classes with id, name and child_ids",
        "[]": "must hold the top-level class 'Human sounds'",
        FSD50K["ontology.json"].replace("/m/07plct2", "/m/0"): "dev.csv line 4: mids must be classes of .*wrong.json, got '/m/07plct2'",
    }.items():
        files.write_text(root / "wrong.json", text)
        complains(complaint, ontology=root / "wrong.json", **families)
    complains("none.json is missing: get ontology.json", ontology=root / "none.json", **families)
    files.write_text(root / "FSD50K.metadata" / "dev_clips_info_FSD50K.json", '{"64760"')
    complains("dev_clips_info_FSD50K.json must be a readable JSON file", "fsd50k", root)


# --- ESC-50 ---------------------------------------------------------------------------------------------------------------------------------
def test_esc50_folds_become_splits():
    assert splits_of("5") == {"1": "train", "2": "train", "3": "train", "4": "valid", "5": "test"}
    assert splits_of("1") == {"1": "test", "2": "train", "3": "train", "4": "train", "5": "valid"}


def test_esc50_label_sets(tmp_path):
    root = plant(tmp_path, ESC50)
    found = clips("esc50", root)
    assert {name: (one.split, one.group, one.labels) for name, one in found.items()} == {
        "1-85362-A-0.wav": ("train", "85362", ("dog",)),
        "2-104105-A-19.wav": ("train", "104105", ("thunderstorm",)),
        "2-104105-B-19.wav": ("train", "104105", ("thunderstorm",)),
        "3-151080-A-20.wav": ("train", "151080", ("crying_baby",)),
        "4-104168-A-32.wav": ("valid", "104168", ("keyboard_typing",)),
        "5-171653-A-41.wav": ("test", "171653", ("chainsaw",)),
    }
    assert found["1-85362-A-0.wav"].path == root / "audio" / "1-85362-A-0.wav"
    assert [one.labels[0] for one in clips("esc50", root, label_set="groups").values()] == [
        "Animals",
        "Natural soundscapes & water sounds",
        "Natural soundscapes & water sounds",
        "Human, non-speech sounds",
        "Interior/domestic sounds",
        "Exterior/urban noises",
    ]
    assert [one.labels[0] for one in clips("esc50", root, label_set="esc10").values()] == ["dog", "crying_baby", "chainsaw"]


def test_esc50_protocol_is_the_test_fold(tmp_path):
    found = clips("esc50", plant(tmp_path, ESC50), protocol="2")
    assert [one.split for one in found.values()] == ["valid", "test", "test", "train", "train", "train"]


@pytest.mark.parametrize("folder", ["audio", "audio/audio/44100", "audio/audio"])
def test_esc50_other_layouts(tmp_path, folder):
    """The csv at the top and audio two or three folders down, as on Kaggle; only one of the files is there."""
    root = plant(tmp_path, {"esc50.csv": "\ufeff" + ESC50_CSV.replace("\n", "\r\n"), f"{folder}/4-104168-A-32.wav": ""})
    found = clips("esc50", root)
    assert len(found) == 6 and all(one.path == root / folder / name for name, one in found.items())
    assert {one.split for one in clips("esc50", root, metadata=root).values()} == {"train", "valid", "test"}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (",src_file", ",source", "esc50.csv must have the column 'src_file', got filename, fold, target, category, esc10, source, take"),
        ("wav,4,32", "wav,6,32", "esc50.csv line 6: fold must be 1 to 5, got '6'"),
        ("wav,4,32", "wav,4,50", "esc50.csv line 6: target must be 0 to 49, got '50'"),
        ("dog,True", "dog,yes", "esc50.csv line 2: esc10 must be True or False, got 'yes'"),
        ("0,dog", "0,", "esc50.csv line 2: category must name a class, got an empty cell"),
        ("4-104168-A-32.wav", " ", "esc50.csv line 6: filename must name a file, got an empty cell"),
    ],
)
def test_esc50_a_bad_cell_is_one_line(tmp_path, old, new, complaint):
    complains(complaint, "esc50", plant(tmp_path, edited("esc50", "meta/esc50.csv", old, new)))


def test_esc50_without_audio_ends_in_what_to_get(tmp_path):
    complains("audio must hold the files that esc50.csv lists, got none of 6: get ESC-50", "esc50", plant(tmp_path, {"meta/esc50.csv": ESC50_CSV}))


def test_esc50_classes_have_their_group(tmp_path):
    root = plant(tmp_path, ESC50)
    found = families(Source(dataset="esc50", audio=root))
    assert found == {
        "dog": ("Animals",),
        "thunderstorm": ("Natural soundscapes & water sounds",),
        "crying_baby": ("Human, non-speech sounds",),
        "keyboard_typing": ("Interior/domestic sounds",),
        "chainsaw": ("Exterior/urban noises",),
    }
    assert families(Source(dataset="esc50", audio=root, label_set="esc10")) == found
    assert families(Source(dataset="esc50", audio=root, label_set="groups")) == {}


# Ten files of the first edition of ESC-10, and their rows in the csv that was published later.
FIRST_EDITION = """
1-100032-A-0.wav,1,0,dog,True,100032,A        001 - Dog bark/1-100032-A.ogg
1-17367-A-10.wav,1,10,rain,True,17367,A       002 - Rain/1-17367-A.ogg
1-28135-B-11.wav,1,11,sea_waves,True,28135,B  003 - Sea waves/1-28135-B.ogg
1-211527-C-20.wav,1,20,crying_baby,True,211527,C  004 - Baby cry/1-211527-C.ogg
1-21934-A-38.wav,1,38,clock_tick,True,21934,A 005 - Clock tick/1-21934-A.ogg
1-26143-A-21.wav,1,21,sneezing,True,26143,A   006 - Person sneeze/1-26143-A.ogg
1-172649-F-40.wav,1,40,helicopter,True,172649,F   007 - Helicopter/1-172649-F.ogg
1-116765-A-41.wav,1,41,chainsaw,True,116765,A 008 - Chainsaw/1-116765-A.ogg
1-26806-A-1.wav,1,1,rooster,True,26806,A      009 - Rooster/1-26806-A.ogg
1-17808-B-12.wav,1,12,crackling_fire,True,17808,B 010 - Fire crackling/1-17808-B.ogg
"""


def test_esc50_reads_the_first_edition_of_esc10_as_its_csv_does(tmp_path):
    pairs = [line.split(maxsplit=1) for line in FIRST_EDITION.strip().splitlines()]
    listing = "\n".join([ESC50_CSV.splitlines()[0], *(row for row, _ in pairs)])
    published = plant(tmp_path / "published", {"meta/esc50.csv": listing, "audio/1-100032-A-0.wav": ""})
    first = plant(tmp_path / "first", {name: "" for _, name in pairs} | {"001 - Dog bark/notes.txt": "", "esc10.csv": "path,tags\n"})
    by_csv = clips("esc50", published, label_set="esc10", protocol="2")
    found = clips("esc50", first, label_set="esc10", protocol="2")
    assert [(one.labels, one.split, one.group) for one in found.values()] == [(one.labels, one.split, one.group) for one in by_csv.values()]
    assert [(name, one.path) for name, one in found.items()] == [(name, first / name) for _, name in pairs]
    options = {"dataset": "esc50", "label_set": "esc10"}
    assert families(Source(audio=first, **options)) == families(Source(audio=published, **options))


def test_esc50_what_the_first_edition_cannot_tell_is_one_line(tmp_path):
    names = {line.split(maxsplit=1)[1]: "" for line in FIRST_EDITION.strip().splitlines()}
    complains("esc50.csv is missing: get ESC-50", "esc50", plant(tmp_path / "a", names))
    complains(
        "001 - Dog bark/1-7.ogg must be named FOLD-RECORDING-TAKE.ogg",
        "esc50",
        plant(tmp_path / "b", names | {"001 - Dog bark/1-7.ogg": ""}),
        label_set="esc10",
    )
    few = {name: text for name, text in names.items() if "Rooster" not in name}
    complains("009 - Rooster is missing: the first edition of ESC-10 has ten folders", "esc50", plant(tmp_path / "c", few), label_set="esc10")


def test_esc50_a_recording_in_two_splits_is_refused_when_built(tmp_path):
    root = plant(tmp_path, edited("esc50", "meta/esc50.csv", "B-19.wav,2", "B-19.wav,5"))
    with pytest.raises(InputError, match="a group must lie in one split, got '104105'"):
        select(clips("esc50", root).values(), Selection(), READERS["esc50"])


# --- NSynth ---------------------------------------------------------------------------------------------------------------------------------
def test_nsynth_splits_groups_and_suffixes(tmp_path):
    """bass_electronic_018 has notes in valid and in test: one group in each; test is stored as flac."""
    root = plant(tmp_path, NSYNTH)
    found = clips("nsynth", root, targets=("pitch", "velocity"))
    assert {name: (one.split, one.group, one.targets) for name, one in found.items()} == {
        "synth_lead_synthetic_011-060-127": ("train", "synth_lead_synthetic_011", (60.0, 127.0)),
        "synth_lead_synthetic_011-009-025": ("train", "synth_lead_synthetic_011", (9.0, 25.0)),
        "bass_electronic_018-100-050": ("valid", "bass_electronic_018", (100.0, 50.0)),
        "bass_electronic_018-023-025": ("test", "bass_electronic_018", (23.0, 25.0)),
        "flute_acoustic_002-080-075": ("test", "flute_acoustic_002", (80.0, 75.0)),
    }
    assert found["bass_electronic_018-100-050"].path == root / "nsynth-valid" / "audio" / "bass_electronic_018-100-050.wav"
    assert found["bass_electronic_018-023-025"].path == root / "nsynth-test" / "audio" / "bass_electronic_018-023-025.flac"


@pytest.mark.parametrize(
    ("label_set", "first", "last"),
    [
        ("tags", ("synth_lead", "source_synthetic", "q_dark", "q_tempo-synced"), ("flute", "source_acoustic")),
        ("family", ("synth_lead",), ("flute",)),
        ("source", ("synthetic",), ("acoustic",)),
        ("qualities", ("dark", "tempo-synced"), ()),
        ("pitch", ("pitch_060",), ("pitch_080",)),
    ],
)
def test_nsynth_label_sets(tmp_path, label_set, first, last):
    found = labels(clips("nsynth", plant(tmp_path, NSYNTH), label_set=label_set))
    assert (found["synth_lead_synthetic_011-060-127"], found["flute_acoustic_002-080-075"]) == (first, last)


def test_nsynth_pitches_sort_as_numbers(tmp_path):
    found = select(clips("nsynth", plant(tmp_path, NSYNTH), label_set="pitch").values(), Selection(), READERS["nsynth"])
    assert found.labels == ("pitch_009", "pitch_023", "pitch_060", "pitch_080", "pitch_100")


def test_nsynth_one_folder_alone(tmp_path):
    """Its split is the end of its name; instruments are whole groups there."""
    root = plant(tmp_path, NSYNTH)
    assert {one.split for one in clips("nsynth", root / "nsynth-valid").values()} == {"valid"}
    assert [one.group for one in clips("nsynth", root / "nsynth-test").values()] == ["bass_electronic_018", "flute_acoustic_002"]
    assert [split_of(name) for name in ("nsynth-train", "NSynth_Test", "nsynth")] == ["train", "test", None]


def test_nsynth_reads_the_splits_that_are_there(tmp_path):
    found = clips("nsynth", plant(tmp_path, {name: text for name, text in NSYNTH.items() if "train" not in name}))
    assert {one.split for one in found.values()} == {"valid", "test"}


@pytest.mark.parametrize(
    ("text", "options", "complaint"),
    [
        ('{"a": ', {}, "examples.json must be a readable JSON file"),
        ("[]", {}, "examples.json must hold a JSON object, got list"),
        (
            '{"flute_acoustic_002-080-075": {"pitch": 80}}',
            {},
            "examples.json flute_acoustic_002-080-075: a note must have the field 'instrument_family_str', got pitch",
        ),
        ('{"flute_acoustic_002-080-075": 3}', {}, "examples.json flute_acoustic_002-080-075: a note must have the fields of NSynth, got 3"),
        (
            NSYNTH["nsynth-test/examples.json"],
            {"targets": ("qualities_str",)},
            r"nsynth-train/examples.json synth_lead.*: the target qualities_str must be a field with a number, got \['dark', 'tempo-synced'\]",
        ),
        (NSYNTH["nsynth-test/examples.json"], {"targets": ("mood",)}, "the target mood must be a field with a number, got nothing"),
    ],
)
def test_nsynth_a_bad_examples_json_is_one_line(tmp_path, text, options, complaint):
    complains(complaint, "nsynth", plant(tmp_path, {**NSYNTH, "nsynth-test/examples.json": text}), **options)


def test_nsynth_without_audio_ends_in_what_to_get(tmp_path):
    root = plant(tmp_path, {"nsynth-test/examples.json": NSYNTH["nsynth-test/examples.json"]})
    complains("audio must hold NAME.wav or NAME.flac of examples.json, got none of 2: get nsynth-train", "nsynth", root)
