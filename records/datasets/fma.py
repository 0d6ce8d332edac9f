"""FMA, the Free Music Archive (Defferrard et al., ISMIR 2017): 106,574 tracks of 16,341 artists, 161 genres, as mp3; github.com/mdeff/fma.

Four archives: small (8,000 tracks of 30 s, 8 equal genres, 7.2 GiB), medium (25,000 of 30 s, 16 genres, 22 GiB), large (all, 30 s, 93 GiB)
and full (all, untrimmed, 879 GiB); beside them fma_metadata.zip (342 MiB). Metadata: CC BY 4.0; audio: each artist's own licence.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from records.datasets.clip import CELL_CHARACTERS, Clip, Reader, Source, needed, table
from tfmusic.config import InputError

SIZES = {"small": "7.2 GiB", "medium": "22 GiB", "large": "93 GiB", "full": "879 GiB"}  # archives, each with the tracks of those before it
SUBSETS = {"small": ("small",), "medium": ("small", "medium"), "large": ("small", "medium", "large"), "full": ("small", "medium", "large")}
SPLIT_NAMES = {"training": "train", "validation": "valid", "test": "test"}
AUDIO_FEATURES = ("acousticness", "danceability", "energy", "instrumentalness", "liveness", "speechiness", "tempo", "valence")
SPLIT, SUBSET, ARTIST = ("set", "split"), ("set", "subset"), ("artist", "id")  # columns of tracks.csv, as in its header rows
LABEL_SETS = {name: ("track", name) for name in ("genre_top", "genres", "genres_all")}
URL = "https://os.unil.cloud.switch.ch/fma"
GET_METADATA = f"get {URL}/fma_metadata.zip (342 MiB), unpack it below --audio, or name its folder with --metadata"

# 16 top genres to ten. Report S4 merged to ten as well but does not say how; this is ours: sound and history (jazz comes with blues, country
# and old-time with folk, soul with hip-hop), the smallest genres go first, and the 8 of fma_small stay apart.
MERGED = {
    "Folk & Country": ("Folk", "Country", "Old-Time / Historic"),
    "Jazz & Blues": ("Jazz", "Blues"),
    "Hip-Hop & Soul": ("Hip-Hop", "Soul-RnB"),
    "Pop & Easy Listening": ("Pop", "Easy Listening"),
    "Experimental & Spoken": ("Experimental", "Spoken"),
}  # and Rock, Electronic, Instrumental, International, Classical as they are
TEN = {old: new for new, olds in MERGED.items() for old in olds}


def read(source: Source) -> Iterator[Clip]:
    """One clip per track of the protocol's subset, in the published splits; its id is its number as in its file's name, such as 000002.

    Label set `genre_top` is the one root genre, `genres` what the artist chose, `genres_all` these with all their ancestors. Tracks of
    large and full without a root genre of their own (more than half) or without any genre stay, without labels: --labelled drops them.
    Targets are the audio features of echonest.csv, which knows 13,129 of the tracks; they are nan for the others, which stay.

    The group is the artist: the dataset's creation notebook gives all tracks of an artist to one split. The 30-second clips are found in a
    larger archive too, and the whole tracks of fma_full are taken where there is nothing else. Some clips were cut beyond the end of their
    track and are empty or short (in small 98565, 98567, 98569, 99134, 108925, 133297; the dataset's wiki lists all): the builder puts them
    into quarantine.

    Checked: the layout, on the beginning of a copy of tracks.csv and on a quoted header of echonest.csv; splits and artists, in the
    notebook's code. Not checked: the whole tables, the audio, and that no two genres share a title (they would be one label).

    Raises:
        InputError: an unknown target, or a table or the audio is missing or malformed.
    """
    unknown = [name for name in source.targets if name not in AUDIO_FEATURES]
    if unknown:
        raise InputError(f"--targets of fma must be of {', '.join(AUDIO_FEATURES)}, got {unknown[0]!r}")
    metadata = _metadata(source)
    audio = _audio(source)
    features = _features(metadata / "echonest.csv", source.targets) if source.targets else {}
    titles = None if source.label_set == "genre_top" else _titles(metadata / "genres.csv")
    unmeasured = (math.nan,) * len(source.targets)
    tracks = metadata / "tracks.csv"
    columns = (SPLIT, SUBSET, ARTIST, LABEL_SETS[source.label_set])
    for track, where, (split, subset, artist, genres) in multi_header_table(tracks, columns, GET_METADATA):
        _one_of(SUBSETS["full"], subset, SUBSET, where)
        _one_of(SPLIT_NAMES, split, SPLIT, where)
        if subset in SUBSETS[source.protocol]:
            name = f"{track:06d}"
            yield Clip(
                id=name,
                path=audio / name[:3] / f"{name}.mp3",
                split=SPLIT_NAMES[split],
                group=f"artist {artist}",
                labels=((genres,) if genres else ()) if titles is None else _genres(genres, titles, where),
                targets=features.get(track, unmeasured),
            )


def multi_header_table(path: Path, columns: Sequence[tuple[str, ...]], get: str) -> Iterator[tuple[int, str, list[str]]]:
    """Rows of a csv file that pandas wrote with several header rows, below which a row names the index; one row in memory at a time.

    Args:
        path: the file; utf-8, with or without byte order mark.
        columns: those to read, each by its name in every header row.
        get: what to download when the file is missing.

    Returns:
        (track, "FILE line N", stripped cells of the columns).

    Raises:
        InputError: the file is missing or not such a table, a row has too few cells or no track number, or a track comes twice.
    """
    csv.field_size_limit(max(CELL_CHARACTERS, csv.field_size_limit()))
    seen = set()
    try:
        with needed(path, get).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            names = list(zip(*itertools.islice(rows, len(columns[0])), strict=False))
            missing = [column for column in columns if column not in names]
            if missing:
                got = ", ".join(" ".join(" ".join(name).split())[:40] for name in names[1:7]) or "nothing"
                raise InputError(f"{path} must have {len(columns[0])} header rows with the column {' '.join(missing[0])!r}, got {got}: {get}")
            places = [names.index(column) for column in columns]
            for row in rows:
                if not row or row[0].strip() == "track_id":
                    continue
                where = f"{path} line {rows.line_num}"
                if len(row) < len(names):
                    raise InputError(f"{where}: a row must have {len(names)} cells, got {len(row)}; is the file whole?")
                if not row[0].isdecimal():
                    raise InputError(f"{where}: track_id must be a number, got {row[0][:40]!r}")
                track = int(row[0])
                if track in seen:
                    raise InputError(f"{where}: track_id must be unique, got {track} again")
                seen.add(track)
                yield track, where, [row[place].strip() for place in places]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} must be a readable utf-8 table: {error}") from error


def _features(path: Path, names: Sequence[str]) -> dict[int, tuple[float, ...]]:
    """The named audio features by track."""
    columns = [("echonest", "audio_features", name) for name in names]
    return {
        track: tuple(_number(cell, name, where) for cell, name in zip(cells, names, strict=True))
        for track, where, cells in multi_header_table(path, columns, GET_METADATA)
    }


def _number(cell: str, name: str, where: str) -> float:
    """A cell as a number, nan when it is empty."""
    try:
        value = float(cell or "nan")
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise InputError(f"{where}: {name} must be a number, got {cell[:40]!r}")
    return value


def _titles(path: Path) -> dict[str, str]:
    """Genre by its id."""
    return {row["genre_id"].strip(): row["title"].strip() for _, row in table(path, ("genre_id", "title"), GET_METADATA)}


def _genres(cell: str, titles: dict[str, str], where: str) -> tuple[str, ...]:
    """A cell such as `[21, 12]` as names."""
    if not re.fullmatch(r"\[[\d\s,]*\]", cell):
        raise InputError(f"{where}: genres must be a list of ids such as [21, 12], got {cell[:40]!r}")
    ids = re.findall(r"\d+", cell)
    unknown = [genre for genre in ids if genre not in titles]
    if unknown:
        raise InputError(f"{where}: genres must be ids of genres.csv, got {unknown[0]}")
    return tuple(dict.fromkeys(titles[genre] for genre in ids))


def _one_of(allowed: Sequence[str], cell: str, column: tuple[str, str], where: str) -> None:
    if cell not in allowed:
        raise InputError(f"{where}: {' '.join(column)} must be one of {', '.join(allowed)}, got {cell[:40]!r}")


def _metadata(source: Source) -> Path:
    """The folder of tracks.csv: below --metadata, or else below or beside the audio."""
    roots = [source.metadata] if source.metadata else [source.audio, source.audio.parent, source.audio.parent.parent]
    places = [place for root in roots for place in (root / "fma_metadata", root / "fma_metadata" / "fma_metadata", root)]
    found = [place for place in places if (place / "tracks.csv").exists()]
    return found[0] if found else needed(roots[0] / "fma_metadata" / "tracks.csv", GET_METADATA).parent


def _audio(source: Source) -> Path:
    """The folder of 000, 001, ...: an archive that holds the protocol's tracks, below --audio or --audio itself."""
    archives = [f"fma_{name}" for name in list(SIZES)[list(SIZES).index(source.protocol) :]]
    smaller = [f"fma_{name}" for name in SIZES if f"fma_{name}" not in archives]
    folders = [source.audio / name for name in archives] + [source.audio] * (source.audio.name not in smaller)
    for place in itertools.chain.from_iterable((folder, folder / folder.name) for folder in folders):  # some mirrors nest fma_small/fma_small
        if place.is_dir() and any(re.fullmatch(r"\d{3}", entry.name) for entry in place.iterdir()):
            return place
    wanted = f"{archives[0]}.zip ({SIZES[source.protocol]})"
    raise InputError(f"{source.audio} must hold {archives[0]}/000/000002.mp3 and so on, got no such folder: get {URL}/{wanted}")


READER = Reader(read, label_sets=tuple(LABEL_SETS), protocols=tuple(SUBSETS), merges={"ten": TEN}, takes=("metadata", "targets"))
