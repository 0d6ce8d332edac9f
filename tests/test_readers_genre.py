"""Readers of genre datasets, GTZAN and FMA, on miniature trees in the published layouts."""

import csv
import math
import shutil

import numpy as np
import pytest

from records.datasets import fma, gtzan, read
from records.datasets.clip import Source
from tfmusic.config import InputError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def clips(dataset, audio, **options):
    return {clip.id: clip for clip in read(Source(dataset=dataset, audio=audio, **options))}


def complaint(dataset, audio, **options):
    with pytest.raises(InputError) as error:
        list(read(Source(dataset=dataset, audio=audio, **options)))
    assert "\n" not in str(error.value)
    return str(error.value)


# --- GTZAN ----------------------------------------------------------------------------------------------------------------------------------
MIRRORS = {  # what --audio names -> where the genre folders lie below it
    "the archive's folder": "",
    "marsyas": "genres",
    "kaggle, in Data": "genres_original",
    "kaggle": "Data/genres_original",
}


@pytest.fixture
def gtzan_tree(tmp_path):
    root = tmp_path / "gtzan"
    touch(root / "genres", *(f"{genre}/{genre}.{number:05d}.wav" for genre in gtzan.GENRES for number in (0, 29, 54)))
    touch(
        root / "genres",
        "blues/._blues.00000.wav",
        "blues/blues.00000.png",
        "blues/notes.txt",
        "jazz/.DS_Store",
        "bextract_single.mf",
        "rock/jazz.wav",
    )
    return root


def write_lists(folder, train="blues/blues.00029.wav\n", valid="rock/rock.00054.wav\n", test="jazz/jazz.00054.wav\n"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("train", train), ("valid", valid), ("test", test)):
        (folder / f"{name}_filtered.txt").write_text(text, "utf-8")
    return folder


def test_gtzan_is_a_track_per_file_and_leaves_the_split_open(gtzan_tree):
    found = clips("gtzan", gtzan_tree)
    assert len(found) == 30 and gtzan.READER.split_by == "stratified"
    track = found["jazz.00054"]
    assert (track.path, track.split, track.group, track.labels) == (gtzan_tree / "genres/jazz/jazz.00054.wav", None, "jazz.00054", ("jazz",))
    assert {clip.split for clip in found.values()} == {None}


def test_gtzan_eight_genres_are_all_but_blues_and_rock(gtzan_tree):
    found = clips("gtzan", gtzan_tree, label_set="genres8")
    assert {clip.labels for clip in found.values()} == {(genre,) for genre in gtzan.GENRES} - {("blues",), ("rock",)}


@pytest.mark.parametrize("below", MIRRORS.values(), ids=MIRRORS)
def test_gtzan_mirrors_are_all_understood(tmp_path, below):
    touch(tmp_path / below, "pop/pop.00007.wav")
    touch(tmp_path, "images_original/pop/pop00007.png", "features_30_sec.csv")
    assert clips("gtzan", tmp_path)["pop.00007"].path == tmp_path / below / "pop/pop.00007.wav"


def test_gtzan_takes_one_file_of_a_track_and_names_do_not_depend_on_it(tmp_path):
    touch(tmp_path, "pop/pop.00001.au", "pop/pop.00001.wav", "pop/pop.00002.WAV")
    assert {name: clip.path.name for name, clip in clips("gtzan", tmp_path).items()} == {"pop.00001": "pop.00001.au", "pop.00002": "pop.00002.WAV"}


def test_gtzan_fault_filtered_takes_the_lists_and_nothing_else(gtzan_tree, tmp_path):
    lists = write_lists(tmp_path / "lists")
    found = clips("gtzan", gtzan_tree, protocol="fault_filtered", metadata=lists)
    assert {name: clip.split for name, clip in found.items()} == {"blues.00029": "train", "rock.00054": "valid", "jazz.00054": "test"}
    assert list(clips("gtzan", gtzan_tree, protocol="fault_filtered", metadata=lists, label_set="genres8")) == ["jazz.00054"]


@pytest.mark.parametrize(
    "line", ["blues/blues.00029.au\n", "blues/blues.00029.wav\r\n\r\n", "blues.00029", "\ufeff./blues/blues.00029.wav\n", "          30\n"]
)
def test_gtzan_lists_may_name_the_other_suffix_none_or_a_number(gtzan_tree, tmp_path, line):
    """Number 30 of 1000, from 1 and 100 a genre: the 30th of the blues, which is 00029; as in the first repository, padded by spaces."""
    found = clips("gtzan", gtzan_tree, protocol="fault_filtered", metadata=write_lists(tmp_path / "lists", train=line))
    assert found["blues.00029"].path == gtzan_tree / "genres/blues/blues.00029.wav" and found["blues.00029"].split == "train"


def test_gtzan_numbers_reach_the_last_track(gtzan_tree, tmp_path):
    lists = write_lists(tmp_path / "lists", train=" 131\n1000\n", valid="220\n", test="1\n")
    found = clips("gtzan", gtzan_tree, protocol="fault_filtered", metadata=lists)
    assert list(found) == ["classical.00030", "rock.00099", "country.00019", "blues.00000"]


@pytest.mark.parametrize("where", ["gtzan", "gtzan/genres", "clone/GTZAN_split"])
def test_gtzan_lists_may_lie_with_the_audio_or_in_a_clone(gtzan_tree, tmp_path, where):
    write_lists(tmp_path / where)
    for audio in (gtzan_tree, gtzan_tree / "genres"):
        options = {"metadata": tmp_path / "clone"} if where.startswith("clone") else {}
        assert len(clips("gtzan", audio, protocol="fault_filtered", **options)) == 3


def test_gtzan_a_listed_track_without_a_file_is_for_the_quarantine(gtzan_tree, tmp_path):
    lists = write_lists(tmp_path / "lists", train="pop/pop.00099.wav\n")
    assert clips("gtzan", gtzan_tree, protocol="fault_filtered", metadata=lists)["pop.00099"].path == gtzan_tree / "genres/pop/pop.00099.wav"


def test_gtzan_what_is_missing_or_malformed_is_one_line(gtzan_tree, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "must hold genres/blues/blues.00000.wav and so on, got none: get genres.tar.gz" in complaint("gtzan", tmp_path / "empty")
    assert "train_filtered.txt is missing: get the three" in complaint("gtzan", gtzan_tree, protocol="fault_filtered")
    assert "--label-set of gtzan must be one of genres10, genres8, got 'ten'" in complaint("gtzan", gtzan_tree, label_set="ten")
    assert "--protocol of gtzan must be one of stratified, fault_filtered" in complaint("gtzan", gtzan_tree, protocol="official")
    for text, expected in (
        ("blues/blues.29.wav\n", "train_filtered.txt line 1: a line must name a track, such as blues/blues.00029.wav, got 'blues/blues.29.wav'"),
        ("\n1001\n", "train_filtered.txt line 2: a line must name a track"),
        ("<!DOCTYPE html>\n", "train_filtered.txt line 1: a line must name a track"),
    ):
        assert expected in complaint("gtzan", gtzan_tree, protocol="fault_filtered", metadata=write_lists(tmp_path / "lists", train=text))
    write_lists(tmp_path / "lists", valid="blues.00029.au\n")
    assert "valid_filtered.txt line 1: a track must be listed once, got blues.00029 again (in train)" in complaint(
        "gtzan", gtzan_tree, protocol="fault_filtered", metadata=tmp_path / "lists"
    )
    write_lists(tmp_path / "lists")
    (tmp_path / "lists" / "test_filtered.txt").write_bytes(b"\xff\xfe\x00")
    assert "test_filtered.txt must be a readable text file" in complaint("gtzan", gtzan_tree, protocol="fault_filtered", metadata=tmp_path / "lists")
    (tmp_path / "lists" / "test_filtered.txt").unlink()
    assert "test_filtered.txt is missing" in complaint("gtzan", gtzan_tree, protocol="fault_filtered", metadata=tmp_path / "lists")


# --- FMA ------------------------------------------------------------------------------------------------------------------------------------
ALBUM = "comments date_created date_released engineer favorites id information listens producer tags title tracks type"
ARTIST = (
    "active_year_begin active_year_end associated_labels bio comments date_created favorites id latitude location longitude members name "
    "related_projects tags website wikipedia_page"
)
TRACK = (
    "bit_rate comments composer date_created date_recorded duration favorites genre_top genres genres_all information interest language_code license "
    "listens lyricist number publisher tags title"
)
COLUMNS = [(top, name) for top, names in (("album", ALBUM), ("artist", ARTIST), ("set", "split subset"), ("track", TRACK)) for name in names.split()]
GENRES = {10: "Pop", 12: "Rock", 17: "Folk", 21: "Hip-Hop", 76: "Experimental Pop", 103: "Singer-Songwriter"}
ROWS = {  # number: split, subset, artist, genre_top, genres, genres_all
    2: ("training", "small", 1, "Hip-Hop", "[21]", "[21]"),
    3: ("training", "medium", 1, "Hip-Hop", "[21]", "[21]"),
    20: ("training", "large", 4, "", "[76, 103]", "[17, 10, 76, 103]"),
    140: ("validation", "small", 54, "Folk", "[17]", "[17]"),
    1000: ("test", "small", 7, "Rock", "[12, 12]", "[12]"),
    155320: ("test", "large", 8, "", "[]", "[]"),
}


def write_layers(path, columns, rows, mark=""):
    """A table as pandas writes it: the header's layers, a row that names the index, then the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(mark)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(["", *layer] for layer in zip(*columns, strict=True))
        writer.writerow(["track_id", *[""] * len(columns)])
        writer.writerows(rows)
    return path


def write_tracks(path, rows=ROWS, columns=COLUMNS, mark=""):
    def cells(number, row):
        split, subset, artist, genre_top, genres, genres_all = row
        known = {
            ("set", "split"): split, ("set", "subset"): subset, ("artist", "id"): artist, ("artist", "members"): "One, Two\n",
            ("artist", "bio"): f'<p class="x">\n"{"Long, " * 30_000}"</p>' if number == 2 else "", ("track", "genre_top"): genre_top,
            ("track", "genres"): genres, ("track", "genres_all"): genres_all, ("track", "title"): 'A "quoted", two-line\ntitle', ("album", "id"): 99,
        }  # fmt: skip
        return [number, *(known.get(column, "") for column in columns)]

    return write_layers(path, columns, [cells(number, row) for number, row in rows.items()], mark)


def write_metadata(folder):
    """tracks.csv, genres.csv and echonest.csv; returns the folder."""
    write_tracks(folder / "tracks.csv")
    lines = [f'{number},1,0,"{title}",{number}' for number, title in GENRES.items()]
    (folder / "genres.csv").write_text("\n".join(["genre_id,#tracks,parent,title,top_level", *lines, ""]), "utf-8")
    columns = [("echonest", "audio_features", name) for name in fma.AUDIO_FEATURES]
    columns += [("echonest", "metadata", "artist_name"), ("echonest", "social_features", "valence"), ("echonest", "temporal_features", "000")]
    rows = [
        [2, *(f"{0.1 * number:.10f}" for number in range(1, 9)), "A, B", "7", "8"],
        [1000, "0.5", "0.5", "", "0.5", "0.5", "0.5", "120.0", "0.25", "", "7", "8"],
    ]
    write_layers(folder / "echonest.csv", columns, rows)
    return folder


@pytest.fixture
def fma_tree(tmp_path):
    root = tmp_path / "fma"
    touch(root, "fma_small/000/000002.mp3", "fma_small/000/000140.mp3", "fma_small/001/001000.mp3", "fma_small/README.txt", "fma_small/checksums")
    write_metadata(root / "fma_metadata")
    return root


def test_fma_small_is_the_default_with_its_published_splits(fma_tree):
    found = clips("fma", fma_tree)
    assert {name: (clip.split, clip.labels) for name, clip in found.items()} == {
        "000002": ("train", ("Hip-Hop",)),
        "000140": ("valid", ("Folk",)),
        "001000": ("test", ("Rock",)),
    }
    assert found["001000"].path == fma_tree / "fma_small/001/001000.mp3" and found["001000"].group == "artist 7" and found["001000"].targets == ()


@pytest.mark.parametrize(
    ("protocol", "names"),
    [("medium", {"000002", "000003", "000140", "001000"})]
    + [(protocol, {"000002", "000003", "000020", "000140", "001000", "155320"}) for protocol in ("large", "full")],
)
def test_fma_subsets_lie_inside_each_other(fma_tree, protocol, names):
    (fma_tree / "fma_small").rename(fma_tree / f"fma_{protocol}")
    found = clips("fma", fma_tree, protocol=protocol)
    assert set(found) == names
    assert found["000003"].path == fma_tree / f"fma_{protocol}/000/000003.mp3" and found["000003"].group == found["000002"].group
    if "000020" in names:
        assert found["000020"].labels == () and found["155320"].labels == ()


def test_fma_genres_get_their_names(fma_tree):
    shutil.move(fma_tree / "fma_small", fma_tree / "fma_large")
    chosen, implied = (clips("fma", fma_tree, protocol="large", label_set=name) for name in ("genres", "genres_all"))
    assert (
        chosen["000020"].labels == ("Experimental Pop", "Singer-Songwriter")
        and chosen["001000"].labels == ("Rock",)
        and chosen["155320"].labels == ()
    )
    assert implied["000020"].labels == ("Folk", "Pop", "Experimental Pop", "Singer-Songwriter")


def test_fma_targets_come_in_the_order_asked_for_and_are_nan_elsewhere(fma_tree):
    """Feature n of track 2 is .1 n: valence is the eighth, energy the third; social_features has a valence of its own."""
    found = clips("fma", fma_tree, targets=("valence", "energy"))
    np.testing.assert_allclose(found["000002"].targets, [0.8, 0.3])
    assert found["001000"].targets[0] == 0.25 and math.isnan(found["001000"].targets[1])
    assert all(math.isnan(value) for value in found["000140"].targets) and len(found["000140"].targets) == 2


@pytest.mark.parametrize(
    ("layout", "audio", "metadata"),
    [
        ("fma_small", "fma/fma_small", None),  # the archive's folder, metadata beside it
        ("fma_small/fma_small", "fma", None),  # mirrors that pack a folder into a folder
        ("fma_small/fma_small", "fma/fma_small/fma_small", None),
        ("fma_large", "fma", None),  # a larger archive
        ("fma_full", "fma", None),
        ("clips", "fma/clips", None),  # unpacked under another name
        ("fma_small", "fma", "elsewhere"),
        ("fma_small", "fma", "elsewhere/fma_metadata"),
        ("fma_small", "fma", "elsewhere/fma_metadata/fma_metadata"),
    ],
)
def test_fma_layouts_are_all_understood(fma_tree, tmp_path, layout, audio, metadata):
    (fma_tree / "fma_small").rename(tmp_path / "kept")
    (fma_tree / layout).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "kept").rename(fma_tree / layout)
    if metadata:
        (tmp_path / "elsewhere/fma_metadata").mkdir(parents=True)
        (fma_tree / "fma_metadata").rename(tmp_path / "elsewhere/fma_metadata/fma_metadata")
    found = clips("fma", tmp_path / audio, metadata=tmp_path / metadata if metadata else None)
    assert len(found) == 3 and all(clip.path.is_file() and fma_tree / layout in clip.path.parents for clip in found.values())


def test_fma_metadata_may_lie_in_the_audio_folder_with_a_byte_order_mark(fma_tree):
    for path in (fma_tree / "fma_metadata").iterdir():
        path.rename(fma_tree / path.name)
    write_tracks(fma_tree / "tracks.csv", mark="\ufeff")
    assert len(clips("fma", fma_tree)) == 3


def test_fma_map_makes_ten_of_sixteen_and_keeps_the_eight_of_small_apart():
    small = "Hip-Hop,Pop,Folk,Experimental,Rock,International,Electronic,Instrumental"
    top = f"{small},Blues,Classical,Country,Easy Listening,Jazz,Old-Time / Historic,Soul-RnB,Spoken"
    ten = fma.READER.merges["ten"]
    assert set(ten) <= set(top.split(",")) and not set(ten.values()) & set(ten)
    assert len({ten.get(genre, genre) for genre in top.split(",")}) == 10
    assert len({ten.get(genre, genre) for genre in small.split(",")}) == 8


def test_fma_what_is_missing_is_one_line_that_says_what_to_get(fma_tree, tmp_path):
    assert "--targets of fma must be of acousticness, danceability" in complaint("fma", fma_tree, targets=("valence", "mood"))
    assert "--label-set of fma must be one of genre_top, genres, genres_all, got 'top'" in complaint("fma", fma_tree, label_set="top")
    assert "--protocol of fma must be one of small, medium, large, full" in complaint("fma", fma_tree, protocol="huge")
    small_only = "must hold fma_medium/000/000002.mp3 and so on, got no such folder: get https://os.unil.cloud.switch.ch/fma/fma_medium.zip (22 GiB)"
    assert small_only in complaint("fma", fma_tree, protocol="medium")
    assert small_only in complaint("fma", fma_tree / "fma_small", protocol="medium")
    assert "fma_full.zip (879 GiB)" in complaint("fma", fma_tree, protocol="full")
    (fma_tree / "fma_metadata/echonest.csv").unlink()
    assert "echonest.csv is missing: get https" in complaint("fma", fma_tree, targets=("valence",))
    (fma_tree / "fma_metadata/genres.csv").unlink()
    assert len(clips("fma", fma_tree)) == 3  # names are in tracks.csv itself
    assert "genres.csv is missing: get https" in complaint("fma", fma_tree, label_set="genres")
    (fma_tree / "fma_metadata/tracks.csv").unlink()
    assert "fma_metadata/tracks.csv is missing: get https://os.unil.cloud.switch.ch/fma/fma_metadata.zip" in complaint("fma", fma_tree)
    assert str(tmp_path / "none/fma_metadata/tracks.csv") in complaint("fma", fma_tree, metadata=tmp_path / "none")


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        (("train", "small", 1, "Rock", "[12]", "[12]"), {}, "set split must be one of training, validation, test, got 'train'"),
        (("test", "tiny", 1, "Rock", "[12]", "[12]"), {}, "set subset must be one of small, medium, large, got 'tiny'"),
        (("test", "small", 1, "Rock", "12", "[12]"), {"label_set": "genres"}, "genres must be a list of ids such as [21, 12], got '12'"),
        (("test", "small", 1, "Rock", "[12]", "[12, 806]"), {"label_set": "genres_all"}, "genres must be ids of genres.csv, got 806"),
    ],
)
def test_fma_a_bad_cell_is_named(fma_tree, row, options, expected):
    """Three header rows, and a row of three lines, for its members and title hold a line break each: it ends in line 6."""
    write_tracks(fma_tree / "fma_metadata/tracks.csv", {5: row})
    assert f"tracks.csv line 6: {expected}" in complaint("fma", fma_tree, **options)


def test_fma_a_bad_table_is_named(fma_tree):
    tracks, echonest = fma_tree / "fma_metadata/tracks.csv", fma_tree / "fma_metadata/echonest.csv"
    whole, features = tracks.read_text("utf-8"), echonest.read_text("utf-8")
    tracks.write_text("track_id,title\n2,Food\n3,Ave\n", "utf-8")
    assert "tracks.csv must have 2 header rows with the column 'set split', got title Food: get https" in complaint("fma", fma_tree)
    tracks.write_text("", "utf-8")
    assert "got nothing: get https" in complaint("fma", fma_tree)
    tracks.write_text(whole[: whole.rindex("[]")], "utf-8")
    assert "a row must have 53 cells, got" in complaint("fma", fma_tree)
    tracks.write_text(whole.replace("\n1000,", "\nmany,"), "utf-8")
    assert "track_id must be a number, got 'many'" in complaint("fma", fma_tree)
    tracks.write_text(whole.replace("\n1000,", "\n140,"), "utf-8")
    assert "track_id must be unique, got 140 again" in complaint("fma", fma_tree)
    tracks.write_bytes(whole.encode("utf-16"))
    assert "must be a readable utf-8 table" in complaint("fma", fma_tree)
    tracks.write_text(whole, "utf-8")
    echonest.write_text(features.replace("0.25,", "loud,"), "utf-8")
    assert "valence must be a number, got 'loud'" in complaint("fma", fma_tree, targets=("valence",))
    echonest.write_text(features.replace("audio_features", "sound_features"), "utf-8")
    assert "3 header rows with the column 'echonest audio_features valence'" in complaint("fma", fma_tree, targets=("valence",))
