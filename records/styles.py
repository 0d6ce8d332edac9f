"""What the demo collection is made of: instruments, drum patterns, roles and styles, and the rules that its labels follow; all tables.

A change here that alters a label or a sample needs a new `demo.VERSION`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from records.synthesis import (
    CHURCH_BELL,
    KIT,
    MACHINE,
    TABLA,
    Stroke,
    birds,
    blow,
    bow,
    pluck,
    rain,
    saw,
    sing,
    strike,
    water,
    wind,
)  # fmt: skip


class Instrument(NamedTuple):
    """Who plays: what it is called, how it is excited and between which pitches."""

    tags: tuple[str, ...]
    events: tuple[str, ...]
    sound: Callable | dict[str, Stroke]
    brightness: float = 0.5
    register_midi: tuple[int, int] = (48, 72)
    drive: float = 0.0  # > 0: an overdriven amplifier


opera_voice = partial(sing, ring=1.5, vibrato_cents=70)
PLUCKED, BOWED, KEYS = "Plucked string instrument", "Bowed string instrument", "Keyboard (musical)"
INSTRUMENTS = {
    "guitar": Instrument(("guitar",), (PLUCKED, "Guitar"), partial(pluck, decay_s=2.5), 0.5, (43, 74)),
    "electric guitar": Instrument(("guitar",), (PLUCKED, "Guitar"), partial(pluck, decay_s=4.0), 0.5, (40, 64), drive=4.0),
    "harp": Instrument(("harp",), (PLUCKED, "Harp"), partial(pluck, decay_s=3.0), 0.2, (52, 88)),
    "harpsichord": Instrument(("harpsichord",), (KEYS, "Harpsichord"), partial(pluck, decay_s=1.2), 1.0, (48, 80)),
    "sitar": Instrument(("sitar",), (PLUCKED, "Sitar"), partial(pluck, decay_s=3.0, jawari=0.8), 0.7, (48, 74)),
    "bass": Instrument(("bass",), (PLUCKED, "Bass guitar"), partial(pluck, decay_s=1.5), 0.15, (28, 43)),
    "violin": Instrument(("violin", "strings"), (BOWED, "Violin, fiddle"), bow, 0.72, (62, 90)),
    "cello": Instrument(("cello", "strings"), (BOWED, "Cello"), partial(bow, vibrato_cents=14), 0.6, (38, 60)),
    "string section": Instrument(("strings",), (BOWED, "String section"), partial(bow, players=3), 0.6, (50, 77)),
    "flute": Instrument(("flute",), ("Wind instrument, woodwind instrument", "Flute"), blow, 0.2, (65, 93)),
    "piano": Instrument(("piano",), (KEYS, "Piano"), strike, 0.45, (40, 84)),
    "bell": Instrument(("bells",), ("Bell",), partial(strike, decay_s=3.5, partials=CHURCH_BELL), 0.75, (55, 84)),
    "synth": Instrument(("synth",), ("Synthesizer",), saw, 0.8, (48, 77)),
    "synth bass": Instrument(("synth",), ("Synthesizer",), partial(saw, decay_s=0.15, players=1), 0.8, (29, 45)),
    "pad": Instrument(("synth",), ("Synthesizer",), partial(saw, decay_s=2.0, attack_s=0.5, players=3), 0.6, (48, 72)),
    "woman": Instrument(("vocal", "female"), ("Singing", "Female singing"), partial(sing, size=1.17), 0.65, (58, 76)),
    "man": Instrument(("vocal", "male"), ("Singing", "Male singing"), sing, 0.65, (43, 62)),
    "soprano": Instrument(("vocal", "female"), ("Singing", "Female singing"), partial(opera_voice, size=1.17), 0.65, (67, 86)),
    "tenor": Instrument(("vocal", "male"), ("Singing", "Male singing"), opera_voice, 0.65, (52, 69)),
    "choir": Instrument(("vocal", "choir"), ("Singing", "Choir"), partial(sing, size=1.08, players=4, vibrato_cents=20), 0.6, (45, 76)),
    "kit": Instrument(("drums", "beat"), ("Drum",), KIT),
    "machine": Instrument(("beat",), ("Drum machine",), MACHINE),
    "tabla": Instrument(("drums",), ("Drum", "Tabla"), TABLA),
    "rain": Instrument((), ("Rain",), rain),
    "wind": Instrument((), ("Wind",), wind),
    "water": Instrument(("water",), ("Water",), water),
    "birds": Instrument(("birds",), ("Bird",), birds),
}  # fmt: skip

EVENT_FAMILIES = {  # event -> its families, out of those that the styles below have
    **{event: ("Music",) for instrument in INSTRUMENTS.values() for event in instrument.events},
    # As in the AudioSet ontology, where Choir lies below both Singing and Musical instrument,
    "Singing": ("Human sounds",),
    "Female singing": ("Human sounds",),
    "Male singing": ("Human sounds",),
    "Choir": ("Human sounds", "Music"),
    "Rain": ("Natural sounds",),
    "Wind": ("Natural sounds",),
    "Water": ("Natural sounds",),
    # but for two: there Bird is an Animal and Bell a Musical instrument alone. Here soundscapes have birds and carillons bells.
    "Bird": ("Natural sounds",),
    "Bell": ("Music", "Sounds of things"),
}

PATTERNS = {  # one bar of sixteenths
    "four on the floor": {"kick": "x...x...x...x...", "hat": "..x...x...x...x.", "snare": "....x.......x..."},
    "house": {"kick": "x...x...x...x..x", "hat": "x.xxx.xxx.xxx.xx", "snare": "....x..x....x..."},
    "rock": {"kick": "x.....x.x.......", "hat": "x.x.x.x.x.x.x.x.", "snare": "....x.......x...", "crash": "x..............."},
    "double bass": {"kick": "xxxxxxxxxxxxxxxx", "hat": "x...x...x...x...", "snare": "....x.......x...", "crash": "x.......x......."},
    "train": {"snare": "x.xxx.xxx.xxx.xx", "kick": "x.......x......."},
    "tintal": {"kick": "x..x......x..x..", "snare": ".x....x..x....x.", "hat": "..x.x..x....x..x", "crash": "x..............."},
}


class Role(NamedTuple):
    """What a part does: it looks at every step of so many beats, sounds on a share of them, and holds a note for some steps."""

    step_beats: float
    share: float
    hold_steps: float
    degrees: Callable[[int, int, tuple[int, ...]], tuple[int, ...]]  # step number, root of the chord, the artist's motif -> scale degrees


ROLES = {
    "melody": Role(0.5, 0.6, 1.6, lambda step, root, motif: (root + motif[step % len(motif)],)),
    "song": Role(1.0, 0.75, 1.2, lambda step, root, motif: (root + motif[step % len(motif)],)),
    "toll": Role(2.0, 0.9, 2.5, lambda step, root, motif: (root + motif[step % len(motif)],)),
    "arpeggio": Role(0.5, 0.95, 2.0, lambda step, root, motif: (root + (0, 2, 4, 7, 4, 2)[step % 6],)),
    "ostinato": Role(0.25, 0.7, 0.9, lambda step, root, motif: (root + (0, 0, 7, 4)[step % 4],)),
    "strum": Role(0.5, 0.55, 1.5, lambda step, root, motif: (root, root + 2, root + 4)),
    "riff": Role(0.5, 0.8, 1.0, lambda step, root, motif: (root, root + 4)),
    "chords": Role(2.0, 1.0, 1.05, lambda step, root, motif: (root, root + 2, root + 4)),
    "bass": Role(1.0, 0.9, 0.9, lambda step, root, motif: (root,)),
    "drone": Role(4.0, 1.0, 1.1, lambda step, root, motif: (0, 4)),
}
MODES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "bhairav": (0, 1, 4, 5, 7, 8, 11)}
LIFT = {"major": 1.0, "minor": 0.0, "bhairav": 0.4}  # how high and bright a mode is played
PROGRESSIONS = ((0, 3, 4, 0), (0, 4, 5, 3), (0, 5, 3, 4), (0, 0, 3, 4))


class Part(NamedTuple):
    """One part of a style: its roles (or a drum pattern), the instruments it goes round (an empty name: silent), its level in the mix."""

    roles: tuple[str, ...]
    choices: tuple[str, ...]
    level_db: float = 0.0


class Style(NamedTuple):
    """What is played and how; modes are weights of major, minor and bhairav."""

    genre: str
    family: str
    tags: tuple[str, ...]
    tempo_bpm: tuple[int, int]
    level_dbfs: tuple[int, int]
    modes: tuple[float, float, float]
    weight: float
    parts: tuple[Part, ...]


STYLES = {
    "recital": Style("classical", "Music", ("classical",), (50, 160), (-36, -17), (0.5, 0.5, 0), 1.5, (
        Part(("melody", "chords"), ("piano",)),
    )),
    "quartet": Style("classical", "Music", ("classical",), (54, 150), (-34, -17), (0.5, 0.5, 0), 1.5, (
        Part(("melody",), ("violin", "violin", "string section")),
        Part(("chords",), ("string section",), -5),
        Part(("bass",), ("cello", ""), -5),
    )),
    "baroque": Style("classical", "Music", ("classical",), (66, 150), (-32, -18), (0.6, 0.4, 0), 1.5, (
        Part(("arpeggio", "chords"), ("harpsichord",)),
        Part(("melody",), ("flute", "violin", ""), -2),
        Part(("bass",), ("cello", "", ""), -6),
    )),
    "opera": Style("classical", "Human sounds", ("classical", "opera"), (50, 130), (-28, -13), (0.5, 0.5, 0), 0.6, (
        Part(("song",), ("soprano", "tenor", "soprano")),
        Part(("chords",), ("string section", "piano"), -7),
    )),
    "chorale": Style("classical", "Human sounds", (), (48, 110), (-34, -18), (0.6, 0.4, 0), 0.9, (
        Part(("chords",), ("choir",)),
        Part(("bass",), ("", "cello", "man"), -5),
    )),
    "fingerstyle": Style("folk", "Music", ("folk",), (56, 150), (-34, -19), (0.7, 0.3, 0), 1.3, (
        Part(("arpeggio", "bass"), ("guitar", "harp")),
        Part(("melody",), ("", "", "flute"), -2),
    )),
    "country": Style("folk", "Music", ("folk", "country"), (90, 170), (-26, -15), (0.9, 0.1, 0), 0.6, (
        Part(("strum",), ("guitar",)),
        Part(("melody",), ("violin", "man", "woman"), -1),
        Part(("train",), ("kit",), -5),
        Part(("bass",), ("bass",), -4),
    )),
    "rock": Style("rock", "Music", ("rock",), (84, 160), (-22, -11), (0.5, 0.5, 0), 1.5, (
        Part(("riff",), ("electric guitar",)),
        Part(("song",), ("man", "", "woman", "")),
        Part(("rock",), ("kit",)),
        Part(("bass",), ("bass",), -3),
    )),
    "metal": Style("rock", "Music", ("rock", "metal"), (130, 190), (-17, -10), (0.1, 0.9, 0), 0.3, (
        Part(("riff", "bass"), ("electric guitar",)),
        Part(("double bass",), ("kit",)),
    )),
    "pop": Style("pop", "Music", ("pop",), (76, 140), (-24, -13), (0.7, 0.3, 0), 1.3, (
        Part(("song",), ("woman", "man", "woman")),
        Part(("chords",), ("piano", "guitar", "synth"), -5),
        Part(("rock",), ("kit", "machine"), -4),
        Part(("bass",), ("bass",), -4),
    )),
    "techno": Style("electronic", "Music", ("techno", "electronic"), (118, 150), (-20, -11), (0.2, 0.8, 0), 1.6, (
        Part(("four on the floor",), ("machine",)),
        Part(("ostinato",), ("synth bass",), -4),
        Part(("arpeggio",), ("synth", ""), -5),
    )),
    "house": Style("electronic", "Music", ("dance", "electronic"), (112, 132), (-20, -12), (0.6, 0.4, 0), 1.2, (
        Part(("house",), ("machine",)),
        Part(("strum",), ("piano", "synth", "pad"), -3),
        Part(("song",), ("", "woman"), -2),
        Part(("bass",), ("synth bass",), -4),
    )),
    "new age": Style("ambient", "Music", ("ambient", "new age"), (46, 84), (-36, -22), (0.7, 0.3, 0), 1.2, (
        Part(("chords",), ("pad",)),
        Part(("melody",), ("harp", "flute"), -1),
        Part(("throughout",), ("water", "birds"), -8),
    )),
    "soundscape": Style("ambient", "Natural sounds", ("ambient",), (44, 76), (-36, -20), (0.3, 0.7, 0), 1.7, (
        Part(("throughout",), ("rain", "water", "wind", "birds")),
        Part(("drone",), ("pad", "bell", "string section", "choir"), -5),
    )),
    "carillon": Style("ambient", "Sounds of things", (), (60, 150), (-32, -16), (0.8, 0.2, 0), 0.9, (
        Part(("toll",), ("bell",)),
        Part(("throughout",), ("wind", "rain"), -9),
    )),
    "raga": Style("indian", "Music", ("indian",), (60, 150), (-30, -16), (0, 0.1, 0.9), 1.4, (
        Part(("melody",), ("sitar",)),
        Part(("song",), ("", "flute", "", "woman"), -2),
        Part(("drone",), ("", "pad", "sitar"), -7),
        Part(("tintal",), ("tabla", "tabla", ""), -3),
    )),
}  # fmt: skip

GUEST = Part(("melody",), ("flute", "violin", "piano", "guitar", "harp", "sitar", "synth", "bell", "woman", "man"), -3)
GUESTS = 0.2  # share of the clips where somebody from elsewhere sits in, so that a style does not give its instruments away

RULES = (  # a tag is true when a quantity of the clip lies between two bounds, both included
    ("slow", "tempo_bpm", 0, 78),
    ("fast", "tempo_bpm", 126, np.inf),
    ("quiet", "level_dbfs", -np.inf, -29),
    ("loud", "level_dbfs", -16.5, np.inf),
    ("solo", "sources", 1, 1),
    ("vocal", "voices", 1, np.inf),
    ("no vocals", "voices", 0, 0),
)
AFFECT = {  # constant and weights of cues in 0..1: Juslin and Laukka (Psych. Bulletin 129, 2003) on what listeners go by
    "valence": (0.05, {"lift": 0.45, "tempo": 0.3, "pulse": 0.15}),
    "energy": (0.0, {"level": 0.45, "tempo": 0.25, "density": 0.15, "pulse": 0.15}),
    "danceability": (0.0, {"pulse": 0.6, "tempo": 0.2, "level": 0.2}),
}
PULSE = {"kit": 0.9, "machine": 1.0, "tabla": 0.6}  # how steady a beat one hears; without drums 0.1
