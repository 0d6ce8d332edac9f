"""MagnaTagATune: 25,863 clips of 29 s of Magnatune's music, with 188 tags from the listeners of the game TagATune.

Get it from https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset: `annotations_final.csv` and the three parts of `mp3.zip`, which
unpack to sixteen folders 0 to f of 16 kHz mono mp3 (about 3 GB). Licence of the data: CC BY-NC-SA 3.0 (tagatune.org/Magnatagatune.html).
E. Law et al., "Evaluation of algorithms using games: the case of music tagging", ISMIR 2009.

Label sets: `top50`, the tags of most clips, which most papers use; `all`, the 188 columns as the file has them.

Protocols, both with the folders 0 to b to train, c to validate, d to f to test:

* `full`: every clip, also those without any of the 50 tags: 18,706 / 1,825 / 5,329 once the mp3s that are empty (ids 35644, 55753 and
  57881, all for training) are quarantined. Used by musicnn.
* `clean`: clips with at least one of the 50 tags: 15,247 / 1,529 / 4,332 is what papers report (minzwon/sota-music-tagging-models issue
  25); their lists also ask for 29.1 s of audio, which no reader can know.

A folder holds whole albums (an album's songs lie together wherever a published list of the paths was looked at), so no song is in two
splits. Artists are, and so are recordings that Magnatune's compilations repeat under another file name: the published splits have that
leak, and a score on them is only comparable with it.

Not checked, for the files were not at hand: the exact size of `clean` before quarantine, and that every album lies in one folder. The
group of a clip therefore contains its folder, and a published split builds whatever the answer is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from records.datasets.clip import Clip, Reader, Source, table
from tfmusic.config import InputError

ANNOTATIONS = "annotations_final.csv"
HOME = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset"
GET_ANNOTATIONS = f"download it from {HOME} into --audio, or name its folder with --metadata"
GET_AUDIO = f"download mp3.zip.001 to .003 from {HOME}, join them and unpack"
AUDIO_FOLDERS = ("", "mp3", "MagnaTagATune")  # below --audio: unpacked there, by the usual script, as a mirror has it
SPLIT_OF_FOLDER = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}
NO_TAG = frozenset({"clip_id", "mp3_path", ""})  # the last: index of a copy that pandas saved, and what a row has too much
TIMES = re.compile(r"-\d+-\d+\.mp3$")  # first and last second of the clip in its song

# By number of clips, as published.
TOP_50 = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano",
    "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing",
    "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop",
    "soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice",
    "female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice", "choral",
)  # fmt: skip

# New name <- other tags that mean it. The groups are those that K. Choi merged (github.com/keunwoochoi/magnatagatune, my_utils.py), with
# "female vocal", which lacks there; a group is named after its most frequent tag in the 50, or after his first.
SYNONYMS = {
    "beat": ("beats",),
    "chant": ("chanting",),
    "choir": ("choral",),
    "classical": ("clasical", "classic"),
    "drums": ("drum",),
    "electronic": ("electric", "electro", "electronica"),
    "fast": ("fast beat", "quick"),
    "female": ("female singer", "female singing", "female vocal", "female vocals", "female voice", "woman", "woman singing", "women"),
    "flute": ("flutes",),
    "guitar": ("guitars",),
    "hard": ("hard rock",),
    "harpsichord": ("harpsicord",),
    "horn": ("horns",),
    "indian": ("india",),
    "jazz": ("jazzy",),
    "male": ("male singer", "male vocal", "male vocals", "male voice", "man", "man singing", "men"),
    "metal": ("heavy", "heavy metal"),
    "no beat": ("no drums",),
    "no vocals": ("instrumental", "no singer", "no singing", "no vocal", "no voice", "no voices"),
    "opera": ("operatic",),
    "orchestra": ("orchestral",),
    "quiet": ("silence",),
    "singing": ("singer",),
    "space": ("spacey",),
    "strings": ("string",),
    "synth": ("synthesizer",),
    "violin": ("violins",),
    "vocal": ("vocals", "voice", "voices"),
    "weird": ("strange",),
}


def read(source: Source) -> Iterator[Clip]:
    """One clip per row of annotations_final.csv, in --metadata or in --audio; the id is its mp3_path.

    `clip_info_final.csv` is not needed: artist, album, song and times are in the mp3's name, and a clip may have no row there.

    Raises:
        InputError: the csv or all of the sixteen folders are missing, a cell is neither 0 nor 1, or a path is in none of the folders.
    """
    home = _audio_home(source.audio)
    folders = [folder for folder in (source.metadata, source.audio) if folder is not None]
    path = next((folder / ANNOTATIONS for folder in folders if (folder / ANNOTATIONS).exists()), folders[0] / ANNOTATIONS)
    top_50 = frozenset(TOP_50)
    for line, row in table(path, (*TOP_50, "mp3_path"), GET_ANNOTATIONS, _delimiter(path)):
        clip = _clip(home, row, f"{path} line {line}")
        in_top_50 = tuple(label for label in clip.labels if label in top_50)
        if in_top_50 or source.protocol == "full":
            yield clip if source.label_set == "all" else dataclasses.replace(clip, labels=in_top_50)


def _clip(home: Path, row: dict[str, str], where: str) -> Clip:
    tags = [name for name in row if name not in NO_TAG]
    wrong = next((name for name in tags if row[name] not in ("0", "1")), None)
    if wrong is not None:
        raise InputError(f"{where}: {wrong} must be 0 or 1, got {row[wrong]!r}")
    name = row["mp3_path"].strip()
    split = SPLIT_OF_FOLDER.get(name.partition("/")[0])
    if split is None or not name.endswith(".mp3"):
        raise InputError(f"{where}: mp3_path must be an mp3 in a folder 0 to f, got {name!r}")
    return Clip(id=name, path=home / name, split=split, group=TIMES.sub("", name), labels=tuple(tag.strip() for tag in tags if row[tag] == "1"))


def _audio_home(audio: Path) -> Path:
    """The folder in which the sixteen lie; one of them suffices, for a part of the set is a set."""
    for name in AUDIO_FOLDERS:
        if any((audio / name / folder).is_dir() for folder in SPLIT_OF_FOLDER):
            return audio / name
    raise InputError(f"{audio} must hold the folders 0 to f of mp3s, got none of them: {GET_AUDIO}")


def _delimiter(path: Path) -> str:
    """A tab, as published, or the comma of a copy that was saved again."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return "\t" if "\t" in file.readline() else ","
    except (OSError, UnicodeDecodeError):
        return "\t"  # `table` says what is wrong with the file


READER = Reader(
    read,
    label_sets=("top50", "all"),
    protocols=("full", "clean"),
    merges={"synonyms": {old: new for new, others in SYNONYMS.items() for old in others}},
    takes=("metadata",),
)
