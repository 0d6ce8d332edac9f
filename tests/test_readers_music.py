"""MagnaTagATune and MTG-Jamendo on miniature trees as published: ids, splits, groups, labels, and the line each broken tree gets."""

import csv
import dataclasses

import pytest

from records import selection
from records.datasets import READERS, magnatagatune, mtg_jamendo, read
from records.datasets.clip import Source
from tfmusic import files
from tfmusic.config import InputError

# --- MagnaTagATune --------------------------------------------------------------------------------------------------------------------------
OTHER_TAGS = sorted({tag for group in magnatagatune.SYNONYMS.items() for tag in (group[0], *group[1])} - set(magnatagatune.TOP_50))
HEADER = ["clip_id", *OTHER_TAGS, *magnatagatune.TOP_50, *(f"tag {i}" for i in range(188 - 50 - len(OTHER_TAGS))), "mp3_path"]
SONG = "american_bach_soloists-j_s__bach_solo_cantatas-01-bwv54__i_aria"
MTAT = [  # clip id, tags, path; the first three are rows of the real file, its order of columns and the others are made up
    ("2", ("classical", "violin", "clasical"), f"f/{SONG}-30-59.mp3"),
    ("6", ("hard rock",), f"f/{SONG}-146-175.mp3"),
    ("14", (), "c/lvx_nova-lvx_nova-01-contimune-30-59.mp3"),
    ("219", ("guitar", "no voices", "instrumental"), "b/jacob_heringman-jane_pickeringes_lute_book-01-1999-0-29.mp3"),
    ("231", ("drums", "tag 0"), "0/apa_ya-apa_ya-01-african_dance-59-88.mp3"),
    ("35644", ("woman",), "6/norine_braun-now_and_zen-08-gently-117-146.mp3"),
]


def write_table(path, header, rows, delimiter="\t", quoting=csv.QUOTE_ALL, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def mtat_rows(header=tuple(HEADER)):
    return [[{"clip_id": clip_id, "mp3_path": path}.get(name, str(int(name in tags))) for name in header] for clip_id, tags, path in MTAT]


def mtat_tree(folder, audio=""):
    """As unpacked from the three parts of mp3.zip, beside the csvs; the clip of folder 6 is an empty file there as well."""
    for _, _, path in MTAT:
        (folder / audio / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / audio / path).touch()
    write_table(folder / "annotations_final.csv", HEADER, mtat_rows())
    return folder


def mtat(folder, **options):
    return list(read(Source(dataset="magnatagatune", audio=folder, **options)))


def test_magnatagatune_as_published(tmp_path):
    clips = mtat(mtat_tree(tmp_path))
    assert len(HEADER) == 190
    assert [clip.id for clip in clips] == [path for _, _, path in MTAT]
    assert [clip.path for clip in clips] == [tmp_path / path for _, _, path in MTAT]
    assert [clip.split for clip in clips] == ["test", "test", "valid", "train", "train", "train"]
    assert [clip.labels for clip in clips] == [("classical", "violin"), (), (), ("guitar",), ("drums",), ("woman",)]
    assert clips[0].group == clips[1].group == f"f/{SONG}"
    assert clips[3].group == "b/jacob_heringman-jane_pickeringes_lute_book-01-1999"


def test_magnatagatune_clean_drops_clips_without_any_of_the_50(tmp_path):
    mtat_tree(tmp_path)
    kept = {MTAT[i][2] for i in (0, 3, 4, 5)}
    for label_set in ("top50", "all"):  # "hard rock" alone does not keep a clip, whatever labels are read
        assert {clip.id for clip in mtat(tmp_path, label_set=label_set, protocol="clean")} == kept


def test_magnatagatune_all_has_every_column(tmp_path):
    labels = [set(clip.labels) for clip in mtat(mtat_tree(tmp_path), label_set="all")]
    assert labels == [set(tags) for _, tags, _ in MTAT]


def test_every_folder_has_the_published_split():
    splits = magnatagatune.SPLIT_OF_FOLDER
    assert "".join(splits) == "0123456789abcdef"
    assert ["".join(folder for folder in splits if splits[folder] == name) for name in ("train", "valid", "test")] == ["0123456789ab", "c", "def"]


def test_the_50_tags_and_their_synonyms():
    """A merged name is never merged further, and the 50 stay within the 50."""
    top_50, merges = magnatagatune.TOP_50, READERS["magnatagatune"].merges["synonyms"]
    assert len(set(top_50)) == 50 and top_50[0] == "guitar" and top_50[-1] == "choral"
    assert sum(map(len, magnatagatune.SYNONYMS.values())) == len(merges)
    assert not set(merges) & set(merges.values())
    assert all(merges.get(tag, tag) in top_50 for tag in top_50)
    assert (merges["clasical"], merges["instrumental"], merges["women"], merges["heavy metal"]) == ("classical", "no vocals", "female", "metal")


def test_magnatagatune_synonyms_through_the_selection(tmp_path):
    reader = READERS["magnatagatune"]
    clips = mtat(mtat_tree(tmp_path), label_set="all")
    selected = selection.select(clips, selection.Selection(merge=("synonyms",), split_by="official"), reader)
    labels = {clip.id: set(clip.labels) for clip in selected.clips}
    assert labels[MTAT[0][2]] == {"classical", "violin"}
    assert labels[MTAT[3][2]] == {"guitar", "no vocals"}
    assert labels[MTAT[5][2]] == {"female"}


def test_a_song_in_two_folders_would_still_build(tmp_path):
    mtat_tree(tmp_path)
    first, second = mtat_rows()[:2]
    second[-1] = second[-1].replace("f/", "0/")
    write_table(tmp_path / "annotations_final.csv", HEADER, [first, second])
    clips = mtat(tmp_path)
    assert [clip.split for clip in clips] == ["test", "train"]
    assert len({(clip.group, clip.split) for clip in clips}) == len({clip.group for clip in clips})


@pytest.mark.parametrize("audio", ["", "mp3", "MagnaTagATune"])
def test_magnatagatune_where_people_unpack_it(tmp_path, audio):
    clips = mtat(mtat_tree(tmp_path, audio))
    assert all(clip.path.exists() for clip in clips) and clips[0].id == MTAT[0][2]


@pytest.mark.parametrize("options", [{}, {"quoting": csv.QUOTE_MINIMAL}, {"delimiter": ","}, {"encoding": "utf-8-sig"}])
def test_magnatagatune_saved_again(tmp_path, options):
    """Commas, no quotes or a byte order mark, and the index column that pandas adds."""
    expected = mtat(mtat_tree(tmp_path), label_set="all")
    rows = [[index, *row] for index, row in enumerate(mtat_rows())]
    write_table(tmp_path / "annotations_final.csv", ["", *HEADER], rows, **options)
    assert mtat(tmp_path, label_set="all") == expected


def test_magnatagatune_metadata_apart(tmp_path):
    mtat_tree(tmp_path / "a")
    expected = mtat(tmp_path / "a")
    (tmp_path / "lists").mkdir()
    (tmp_path / "a" / "annotations_final.csv").rename(tmp_path / "lists" / "annotations_final.csv")
    assert mtat(tmp_path / "a", metadata=tmp_path / "lists") == expected
    (tmp_path / "lists" / "annotations_final.csv").rename(tmp_path / "a" / "annotations_final.csv")
    assert mtat(tmp_path / "a", metadata=tmp_path / "lists") == expected


def test_magnatagatune_takes_a_part_of_the_folders(tmp_path):
    mtat_tree(tmp_path)
    (tmp_path / "c" / "lvx_nova-lvx_nova-01-contimune-30-59.mp3").unlink()
    (tmp_path / "c").rmdir()
    assert len(mtat(tmp_path)) == len(MTAT)  # what is not there is quarantined when it is decoded


def changed(column, value, row=0):
    rows = mtat_rows()
    rows[row][HEADER.index(column)] = value
    return HEADER, rows


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ((HEADER[:-1], [row[:-1] for row in mtat_rows()]), r"annotations_final.csv must have the column 'mp3_path', got clip_id, "),
        (([name for name in HEADER if name != "new age"], []), r"must have the column 'new age'"),
        (changed("clasical", "yes"), r"annotations_final.csv line 2: clasical must be 0 or 1, got 'yes'"),
        (changed("guitar", "", 1), r"line 3: guitar must be 0 or 1, got ''"),
        (changed("mp3_path", "g/x-0-29.mp3", 2), r"line 4: mp3_path must be an mp3 in a folder 0 to f, got 'g/x-0-29.mp3'"),
        (changed("mp3_path", ""), r"line 2: mp3_path must be an mp3 in a folder 0 to f, got ''"),
        ((HEADER, [mtat_rows()[0][:-1]]), r"line 2: a row must have 190 cells, got fewer"),
        (([], []), r"must have the column 'guitar', got nothing"),
    ],
)
def test_a_broken_annotations_file_is_one_line(tmp_path, table, complaint):
    mtat_tree(tmp_path)
    if table == ([], []):
        (tmp_path / "annotations_final.csv").write_bytes(b"")
    else:
        write_table(tmp_path / "annotations_final.csv", *table)
    with pytest.raises(InputError, match=complaint) as error:
        mtat(tmp_path)
    assert "\n" not in str(error.value)


def test_magnatagatune_names_what_to_get(tmp_path):
    with pytest.raises(InputError, match=r"must hold the folders 0 to f of mp3s, got none of them: download mp3.zip.001 to .003 from https://mirg"):
        mtat(tmp_path)
    mtat_tree(tmp_path)
    (tmp_path / "annotations_final.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="annotations_final.csv must be a readable utf-8 table"):
        mtat(tmp_path)
    (tmp_path / "annotations_final.csv").unlink()
    with pytest.raises(InputError, match=r"annotations_final.csv is missing: download it from https://mirg.*--metadata"):
        mtat(tmp_path)
    (tmp_path / "lists").mkdir()
    with pytest.raises(InputError, match=r"lists/annotations_final.csv is missing"):
        mtat(tmp_path, metadata=tmp_path / "lists")


# --- MTG-Jamendo ----------------------------------------------------------------------------------------------------------------------------
COLUMNS = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
JAMENDO = {  # rows of the real lists, and some made up; a row has as many cells as it has tags
    "train": [
        ["track_0000214", "artist_000014", "album_000031", "14/214.mp3", "124.6", "genre---punkrock"],
        ["track_0000215", "artist_000014", "album_000031", "15/215.mp3", "151.4", "genre---metal", "genre---rock", "mood/theme---deep"],
    ],
    "validation": [["track_0003524", "artist_000530", "album_000552", "24/3524.mp3", "266.1", "instrument---piano"]],
    "test": [["track_1048681", "artist_359617", "album_123563", "81/1048681.mp3", "189.3", "mood/theme---emotional", "mood/theme---sad"]],
}


def jamendo_lists(splits, label_set="_top50tags", number=0, lists=None):
    """As the authors' script writes them: tabs, no quotes, CRLF."""
    for part, rows in (lists or JAMENDO).items():
        write_table(splits / f"split-{number}" / f"autotagging{label_set}-{part}.tsv", COLUMNS, rows, quoting=csv.QUOTE_MINIMAL)


def jamendo_audio(folder, suffix=".mp3"):
    for row in (row for rows in JAMENDO.values() for row in rows):
        path = folder / row[3].replace(".mp3", suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.fixture
def jamendo_tree(tmp_path):
    jamendo_lists(tmp_path / "clone" / "data" / "splits")
    jamendo_audio(tmp_path / "audio")
    return tmp_path


def jamendo(tree, **options):
    return list(read(Source(dataset="mtg_jamendo", **{"audio": tree / "audio", "metadata": tree / "clone", **options})))


def test_mtg_jamendo_as_published(jamendo_tree):
    clips = jamendo(jamendo_tree)
    assert [clip.id for clip in clips] == ["track_0000214", "track_0000215", "track_0003524", "track_1048681"]
    assert [clip.split for clip in clips] == ["train", "train", "valid", "test"]
    assert [clip.group for clip in clips] == ["artist_000014", "artist_000014", "artist_000530", "artist_359617"]
    assert clips[1].labels == ("genre---metal", "genre---rock", "mood/theme---deep")
    assert clips[3].labels == ("mood/theme---emotional", "mood/theme---sad")
    assert clips[0].path == jamendo_tree / "audio" / "14" / "214.mp3"
    assert len({(clip.group, clip.split) for clip in clips}) == len({clip.group for clip in clips})


@pytest.mark.parametrize("label_set", mtg_jamendo.LABEL_SETS)
@pytest.mark.parametrize("protocol", ["0", "3"])
def test_mtg_jamendo_label_sets_and_splits_are_files(jamendo_tree, label_set, protocol):
    suffix = "" if label_set == "all" else f"_{label_set}"
    lists = {part: [[*rows[0][:5], f"genre---{label_set}{protocol}"]] for part, rows in JAMENDO.items()}
    jamendo_lists(jamendo_tree / "clone" / "data" / "splits", suffix, int(protocol), lists)
    clips = jamendo(jamendo_tree, label_set=label_set, protocol=protocol)
    assert [clip.labels for clip in clips] == [(f"genre---{label_set}{protocol}",)] * 3


@pytest.mark.parametrize("metadata", ["clone", "clone/data", "clone/data/splits"])
@pytest.mark.parametrize("audio", ["audio", "."])
def test_mtg_jamendo_where_people_have_it(jamendo_tree, metadata, audio):
    clips = jamendo(jamendo_tree, metadata=jamendo_tree / metadata, audio=jamendo_tree / audio)
    assert len(clips) == 4 and all(clip.path.exists() for clip in clips)


def test_mtg_jamendo_lists_and_audio_in_one_folder(jamendo_tree):
    assert len(jamendo(jamendo_tree, audio=jamendo_audio(jamendo_tree / "clone"), metadata=None)) == 4


def test_mtg_jamendo_low(jamendo_tree):
    """Ids do not depend on the form; where both are the better is taken; what is missing keeps its name and is quarantined later."""
    low = jamendo_audio(jamendo_tree / "low", ".low.mp3")
    (low / "24" / "3524.low.mp3").unlink()
    (low / "81" / "1048681.mp3").touch()
    clips = jamendo(jamendo_tree, audio=low)
    assert [clip.path.name for clip in clips] == ["214.low.mp3", "215.low.mp3", "3524.mp3", "1048681.mp3"]
    assert [dataclasses.replace(clip, path=None) for clip in clips] == [dataclasses.replace(clip, path=None) for clip in jamendo(jamendo_tree)]


def test_mtg_jamendo_takes_a_part_of_the_folders(jamendo_tree):
    clips = jamendo(jamendo_tree)
    for name in ("14", "15", "24"):
        for path in (jamendo_tree / "audio" / name).iterdir():
            path.unlink()
        (jamendo_tree / "audio" / name).rmdir()
    assert jamendo(jamendo_tree) == clips


def test_mtg_jamendo_empty_and_doubled_tags_are_no_labels(jamendo_tree):
    row = [*JAMENDO["train"][0][:5], " genre---rock ", "", "genre---rock"]
    jamendo_lists(jamendo_tree / "clone" / "data" / "splits", lists={"train": [row]})
    assert jamendo(jamendo_tree)[0].labels == ("genre---rock",)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("PATH", "14/214.wav", r"autotagging_top50tags-train.tsv line 2: PATH must be NN/ID.mp3, got '14/214.wav'"),
        ("PATH", "", r"line 2: PATH must be NN/ID.mp3, got ''"),
        ("PATH", "../../etc/214.mp3", r"line 2: PATH must be NN/ID.mp3"),
        ("ARTIST_ID", " ", r"line 2: TRACK_ID and ARTIST_ID must not be empty, got 'track_0000214' and ''"),
    ],
)
def test_a_bad_cell_of_mtg_jamendo_is_one_line(jamendo_tree, column, value, complaint):
    row = [value if name == column else cell for name, cell in zip(COLUMNS, JAMENDO["train"][0], strict=True)]
    jamendo_lists(jamendo_tree / "clone" / "data" / "splits", lists={"train": [row]})
    with pytest.raises(InputError, match=complaint) as error:
        jamendo(jamendo_tree)
    assert "\n" not in str(error.value)


def test_mtg_jamendo_names_what_to_get(jamendo_tree):
    with pytest.raises(InputError, match=r"split-2/autotagging_genre-train.tsv is missing: git clone https://github.com/MTG/.*--metadata"):
        jamendo(jamendo_tree, label_set="genre", protocol="2")
    with pytest.raises(InputError, match=r"must hold the folders 00 to 99 of mp3s, got none of them: download the audio with scripts/download"):
        jamendo(jamendo_tree, audio=jamendo_tree / "clone")
    write_table(jamendo_tree / "clone" / "data" / "splits" / "split-0" / "autotagging_top50tags-validation.tsv", COLUMNS[:4], [])
    with pytest.raises(InputError, match=r"validation.tsv must have the column 'TAGS', got TRACK_ID, ARTIST_ID, ALBUM_ID, PATH"):
        jamendo(jamendo_tree)


# --- both -----------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dataset", "options", "complaint"),
    [
        ("magnatagatune", {"label_set": "top10"}, "--label-set of magnatagatune must be one of top50, all, got 'top10'"),
        ("magnatagatune", {"protocol": "old"}, "--protocol of magnatagatune must be one of full, clean, got 'old'"),
        ("mtg_jamendo", {"label_set": "mood"}, "--label-set of mtg_jamendo must be one of top50tags, genre, instrument, moodtheme, all"),
        ("mtg_jamendo", {"protocol": "5"}, "--protocol of mtg_jamendo must be one of 0, 1, 2, 3, 4, got '5'"),
        ("mtg_jamendo", {"targets": ("x",)}, "takes no --targets"),
    ],
)
def test_unknown_options_are_told_with_the_choices(tmp_path, dataset, options, complaint):
    with pytest.raises(InputError, match=complaint):
        read(Source(dataset=dataset, audio=tmp_path, **options))


def test_both_read_from_a_bucket(tmp_path):
    """ram:// stands for gs://: the same code on tf.io.gfile, with paths of its own kind."""
    tensorflow = pytest.importorskip("tensorflow")
    mtat_tree(tmp_path / "mtat")
    jamendo_lists(tmp_path / "jamendo" / "data" / "splits")
    jamendo_audio(tmp_path / "jamendo", ".low.mp3")
    for path in files.walk(tmp_path):
        with tensorflow.io.gfile.GFile(f"ram://readers/{path.relative_to(tmp_path).as_posix()}", "wb") as file:
            file.write(path.read_bytes() or b"-")
    for dataset, folder in (("magnatagatune", "mtat"), ("mtg_jamendo", "jamendo")):
        here = list(read(Source(dataset=dataset, audio=tmp_path / folder)))
        there = list(read(Source(dataset=dataset, audio=f"ram://readers/{folder}")))
        assert [str(clip.path).removeprefix("ram://readers") for clip in there] == [str(clip.path).removeprefix(str(tmp_path)) for clip in here]
        assert [dataclasses.replace(clip, path=None) for clip in there] == [dataclasses.replace(clip, path=None) for clip in here]
