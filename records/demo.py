"""The embedded demo collection: 600 short clips of synthesised music, made from numpy in under a minute, labelled by how they were made.

It exists so that every command, test and tutorial of tfmusic runs without a download. Scores on it mean nothing outside this project:
the sources are toys, the artists random numbers, and the labels follow from the tables of `records.styles`. It is no benchmark.

`plan` decides what each clip is (a pure function, instant), `render` makes its samples, `write` puts both on disk. A clip depends on the
seed and its index alone, so the files are the same whatever the number of processes or clips (to the byte on one kind of machine; on
another, numpy and libsndfile may round differently). All sound is textbook synthesis: Karplus-Strong strings, wavetables, modal percussion,
formants (see each function). A label is audible truth (`slow` comes from the tempo, `loud` from the level, `solo` from one source), except
that 8 % of the tags are missing, as in collections labelled by hand.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import soundfile
from scipy import signal

from records.styles import (
    AFFECT,
    EVENT_FAMILIES,
    GUEST,
    GUESTS,
    INSTRUMENTS,
    LIFT,
    MODES,
    PATTERNS,
    PROGRESSIONS,
    PULSE,
    ROLES,
    RULES,
    STYLES,
    Instrument,
    Part,
    Role,
    Style,
)  # fmt: skip
from records.synthesis import RATE_HZ, drum, smooth
from tfmusic import cli, files

VERSION = "1"  # a change that alters a label or a sample needs a new one: existing collections are recognised by it
MISSING = 0.08  # share of true tags that no annotator gave

# --- the plan: who plays what, and what is true of it ------------------------------------------------------------------------------------

ARTISTS = 24
SLOTS = 6  # styles in an artist's repertoire
SPLITS = {"valid": (4, 12, 20), "test": (1, 7, 15, 21)}  # numbers of the artists; all others train
PLAN, RENDER, ARTIST, MISS = range(4)  # streams of random numbers


def _rng(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, number])


@dataclass(frozen=True)
class Artist:
    """What recurs over an artist's clips: key, tuning, timbre, room, recording, motif and rhythm."""

    number: int
    tonic: int  # semitones above C
    tuning_cents: float
    tempo_factor: float
    brightness: float  # added to every instrument's
    tilt: float  # of the recording: < 0 dull, > 0 thin
    reverb_s: float
    wet: float
    hiss_db: float  # below the music
    jitter_s: float
    motif: tuple[int, ...]
    rhythm: tuple[float, ...]  # of 16 steps: one sounds where this is below the role's share
    turns: tuple[int, ...]  # where the artist starts in each part's round of instruments


def artist(number: int, seed: int) -> Artist:
    rng = _rng(seed, ARTIST, number)
    return Artist(
        number=number,
        tonic=int(rng.integers(12)),
        tuning_cents=rng.normal(0, 20),
        tempo_factor=rng.uniform(0.92, 1.08),
        brightness=rng.uniform(-0.12, 0.12),
        tilt=rng.uniform(-0.6, 0.6),
        reverb_s=rng.uniform(0.2, 1.5),
        wet=rng.uniform(0.05, 0.5),
        hiss_db=rng.uniform(16, 45),
        jitter_s=rng.uniform(0.002, 0.02),
        motif=tuple(np.cumsum(rng.integers(-2, 3, 8)).tolist()),
        rhythm=tuple(rng.random(16).tolist()),
        turns=tuple(rng.integers(12, size=8).tolist()),
    )


def split_of(number: int) -> str:
    return next((split for split, numbers in SPLITS.items() if number in numbers), "train")


def repertoires() -> dict[int, tuple[str, ...]]:
    """The styles of every artist: in each split slots are shared out by weight, at least one a style, and dealt like cards.

    An artist begins at another card than the one before, so that the first clips of a collection are not all of one style.
    """
    dealt: dict[int, tuple[str, ...]] = {}
    for split in ("train", *SPLITS):
        numbers = [n for n in range(ARTISTS) if split_of(n) == split]
        slots = Counter(STYLES.keys())  # one each
        while slots.total() < SLOTS * len(numbers):
            slots[max(STYLES, key=lambda name: STYLES[name].weight / slots[name])] += 1
        cards = [name for name in STYLES for _ in range(slots[name])]
        for i, n in enumerate(numbers):
            hand = cards[i :: len(numbers)]
            dealt[n] = (*hand[n % SLOTS :], *hand[: n % SLOTS])
    return dealt


@dataclass(frozen=True)
class Piece:
    """One planned clip: what `render` plays and what the collection says about it."""

    index: int
    group: str
    split: str
    style: str
    sources: tuple[tuple[Part, str], ...]  # parts and their instruments
    tempo_bpm: float
    mode: str
    progression: tuple[int, ...]  # roots of the chords, in degrees of the scale
    level_dbfs: float
    duration_s: float
    genre: str
    family: str
    event: tuple[str, ...]
    tags: tuple[str, ...]
    affect: dict[str, float] = field(hash=False)

    @property
    def path(self) -> str:
        return f"{self.group}/{self.index:05d}.flac"


def _true_tags(style: Style, instruments: Iterable[Instrument], quantities: dict[str, float]) -> tuple[str, ...]:
    measured = tuple(tag for tag, quantity, low, high in RULES if low <= quantities[quantity] <= high)
    return tuple(dict.fromkeys((*style.tags, *(tag for i in instruments for tag in i.tags), *measured)))


def _affect(quantities: dict[str, float], mode: str, pulse: float, rng: np.random.Generator) -> dict[str, float]:
    cues = {
        "lift": LIFT[mode],
        "tempo": (quantities["tempo_bpm"] - 44) / 140,
        "level": (quantities["level_dbfs"] + 36) / 26,
        "density": (quantities["sources"] - 1) / 4,
        "pulse": pulse,
    }
    raw = {name: constant + sum(w * cues[cue] for cue, w in weights.items()) for name, (constant, weights) in AFFECT.items()}
    return {name: float(np.clip(value + rng.normal(0, 0.05), 0, 1)) for name, value in raw.items()}


def _piece(index: int, seed: int, styles: tuple[str, ...]) -> Piece:
    """Clip `index` with all its true tags. Artists take turns, an artist's styles take turns, and a part's instruments take turns."""
    rng, who = _rng(seed, PLAN, index), artist(index % ARTISTS, seed)
    turn = index // ARTISTS
    name = styles[turn % SLOTS]
    style = STYLES[name]
    chosen = [(part, part.choices[(turn // SLOTS + who.turns[i]) % len(part.choices)]) for i, part in enumerate(style.parts)]
    if rng.random() < GUESTS:
        chosen.append((GUEST, str(rng.choice(GUEST.choices))))
    sources = tuple((part, instrument) for part, instrument in chosen if instrument)
    instruments = [INSTRUMENTS[instrument] for _, instrument in sources]
    mode = str(rng.choice(list(MODES), p=style.modes))
    quantities = {
        "tempo_bpm": float(np.clip(rng.uniform(*style.tempo_bpm) * who.tempo_factor, 44, 190)),
        "level_dbfs": rng.uniform(*style.level_dbfs),
        "sources": len(sources),
        "voices": sum("vocal" in instrument.tags for instrument in instruments),
    }
    return Piece(
        index=index,
        group=f"artist_{who.number:02d}",
        split=split_of(who.number),
        style=name,
        sources=sources,
        tempo_bpm=quantities["tempo_bpm"],
        mode=mode,
        progression=(0,) if mode == "bhairav" else PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))],  # a raga has no chords
        level_dbfs=quantities["level_dbfs"],
        duration_s=rng.uniform(6, 10),
        genre=style.genre,
        family=style.family,
        event=tuple(dict.fromkeys(event for instrument in instruments for event in instrument.events)),
        tags=_true_tags(style, instruments, quantities),
        affect=_affect(quantities, mode, max(PULSE.get(instrument, 0.1) for _, instrument in sources), rng),
    )


def plan(clips: int = 600, seed: int = 0) -> list[Piece]:
    """All clips of the collection, labels included, without a sample of sound.

    `plan(n)` is the beginning of `plan(m)` for n < m. Of every tag in every split 8 % of the occurrences are dropped, by systematic
    sampling: evenly, from a random start, so that a rare tag cannot lose all of a split by chance.

    Args:
        clips: number of clips `int > 0`.
        seed: seed of everything `int >= 0`.

    Returns:
        The pieces in order of their index.

    Raises:
        ValueError: for a number of clips or a seed out of range.
    """
    if clips <= 0:
        raise ValueError(f"clips must be > 0, got {clips!r}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed!r}")
    styles = repertoires()
    debts: defaultdict[tuple[str, str], float] = defaultdict(_rng(seed, MISS, 0).random)  # at 1 the occurrence goes missing

    def given(split: str, tag: str) -> bool:
        debt = debts[split, tag] + MISSING
        debts[split, tag] = debt % 1
        return debt < 1

    pieces = (_piece(index, seed, styles[index % ARTISTS]) for index in range(clips))
    return [replace(piece, tags=tuple(tag for tag in piece.tags if given(piece.split, tag))) for piece in pieces]


# --- rendering ---------------------------------------------------------------------------------------------------------------------------


class Note(NamedTuple):
    start_s: float
    duration_s: float
    degree: int
    velocity: float


def compose(role: Role, piece: Piece, who: Artist, rng: np.random.Generator) -> Iterator[Note]:
    """The notes of one role: steps of the beat, thinned by the artist's rhythm, on the chords of the piece."""
    beat_s = 60 / piece.tempo_bpm
    chord_beats = 4 if piece.tempo_bpm > 100 else 2
    for step in range(int(piece.duration_s / beat_s / role.step_beats)):
        beat = step * role.step_beats
        if step and (who.rhythm[step % 16] + rng.normal(0, 0.1)) > role.share:
            continue
        root = piece.progression[int(beat / chord_beats) % len(piece.progression)]
        for order, degree in enumerate(role.degrees(step, root, who.motif)):
            start_s = max(0.0, beat * beat_s + 0.012 * order + rng.normal(0, who.jitter_s))
            yield Note(start_s, role.hold_steps * role.step_beats * beat_s, degree, rng.uniform(0.5, 1) * (1.0 if beat % 1 else 1.2))


def _add(track: np.ndarray, start_s: float, sound: np.ndarray) -> None:
    start = int(start_s * RATE_HZ)
    end = min(start + len(sound), len(track))
    track[start:end] += sound[: max(0, end - start)]


def _play_notes(instrument: Instrument, role: Role, piece: Piece, who: Artist, rng: np.random.Generator, n: int) -> np.ndarray:
    track = np.zeros(n)
    low, high = instrument.register_midi
    lift = LIFT[piece.mode] - 0.5
    centre = rng.uniform(low + 6, max(low + 6, high - 6)) + 8 * lift
    scale = MODES[piece.mode]
    brightness = float(np.clip(instrument.brightness + 0.16 * lift + who.brightness + rng.normal(0, 0.05), 0.05, 1))
    for note in compose(role, piece, who, rng):
        midi = who.tonic + scale[note.degree % 7] + 12 * (note.degree // 7)
        midi += 12 * round((centre - midi) / 12)  # the octave nearest to the middle of the part
        frequency_hz = 440 * 2 ** ((midi - 69 + (who.tuning_cents + rng.normal(0, 6)) / 100) / 12)
        samples = min(int(min(note.duration_s, 4.0) * RATE_HZ), n - int(note.start_s * RATE_HZ))
        if samples > 0.05 * RATE_HZ:
            _add(track, note.start_s, note.velocity * instrument.sound(frequency_hz, samples, rng, brightness=brightness))
    return track


def _play_drums(instrument: Instrument, pattern: dict[str, str], piece: Piece, who: Artist, rng: np.random.Generator, n: int) -> np.ndarray:
    track = np.zeros(n)
    step_s = 15 / piece.tempo_bpm
    for name, bar in pattern.items():
        variants = [drum(instrument.sound[name], int(0.4 * RATE_HZ), rng) for _ in range(3)]
        for step in range(int(piece.duration_s / step_s)):
            if bar[step % 16] == "x" and rng.random() > 0.04:
                start_s = max(0.0, step * step_s + rng.normal(0, who.jitter_s / 2))
                _add(track, start_s, rng.uniform(0.7, 1) * variants[int(rng.integers(3))])
    return track


def _play(part: Part, name: str, piece: Piece, who: Artist, rng: np.random.Generator) -> np.ndarray:
    """One source of the mix at its level, 0 dB for a root mean square of 1."""
    instrument, n = INSTRUMENTS[name], int(piece.duration_s * RATE_HZ)
    track = np.zeros(n)
    for role in part.roles:
        if role in PATTERNS:
            track += _play_drums(instrument, PATTERNS[role], piece, who, rng, n)
        elif role in ROLES:
            track += _play_notes(instrument, ROLES[role], piece, who, rng, n)
        else:
            track += instrument.sound(n, rng)
    track /= np.sqrt(np.mean(track**2)) + 1e-9
    if instrument.drive:
        track = np.tanh(instrument.drive * track)
    return track * 10 ** ((part.level_db + rng.uniform(-8, 3)) / 20)


def _record(dry: np.ndarray, who: Artist, rng: np.random.Generator) -> np.ndarray:
    """The artist's room and tape: reverberation (decaying noise, Moorer, CMJ 3(2), 1979), tilted spectrum, hiss."""
    tail_n = int(who.reverb_s * RATE_HZ)
    tail = rng.standard_normal(tail_n) * 10 ** (-3 * np.arange(tail_n) / tail_n)
    wet = signal.oaconvolve(dry, tail / np.sqrt(np.sum(tail**2)))[: len(dry)]
    mix = dry + who.wet * wet
    dark = smooth(mix, 0.8)
    mix = mix + who.tilt * (mix - 2 * dark)
    return mix + np.sqrt(np.mean(mix**2)) * 10 ** (-who.hiss_db / 20) * rng.standard_normal(len(mix))


def render(piece: Piece, seed: int = 0) -> np.ndarray:
    """The sound of a piece: float64 in -1..1 `[shape=(samples,)]` at `RATE_HZ`, with its planned level (peaks are rounded off by tanh)."""
    rng, who = _rng(seed, RENDER, piece.index), artist(piece.index % ARTISTS, seed)
    mix = _record(sum(_play(part, name, piece, who, rng) for part, name in piece.sources), who, rng)
    return np.tanh(mix * 10 ** (piece.level_dbfs / 20) / np.sqrt(np.mean(mix**2)))


# --- files -------------------------------------------------------------------------------------------------------------------------------


def _write_clip(audio: pathlib.Path, seed: int, piece: Piece) -> None:
    path = audio / piece.path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.tmp")
    soundfile.write(part, np.round(32767 * render(piece, seed)).astype(np.int16), RATE_HZ, "PCM_16", format="FLAC")
    os.replace(part, path)


def _row(piece: Piece) -> dict[str, str]:
    columns = {name: getattr(piece, name) for name in ("path", "split", "group", "tags", "genre", "family", "event")}
    joined = {name: value if isinstance(value, str) else "|".join(value) for name, value in columns.items()}
    return joined | {name: f"{piece.affect[name]:.4f}" for name in AFFECT}


def family_rows() -> list[dict[str, str]]:
    """Rows of demo_families.csv: each label that the column event can have, once for each of its families."""
    return [{"label": label, "family": family} for label, families in sorted(EVENT_FAMILIES.items()) for family in families]


def write(out: pathlib.Path, clips: int = 600, seed: int = 0, workers: int | None = None) -> pathlib.Path:
    """Writes the collection: `out/audio/<artist>/<index>.flac` (16 bit), out/demo.json, and last of all out/demo_families.csv and out/demo.csv.

    demo_families.csv has the families of the labels that demo.csv's column event holds; a collection without it gets it.

    A complete collection of the same seed, size and `VERSION` is left as it is. Otherwise clips are rendered by `workers` processes; the
    caller's main module must be importable (`if __name__ == "__main__":`), since they are spawned.

    Args:
        out: directory, made where missing.
        clips: number of clips `int > 0`.
        seed: seed of everything `int >= 0`.
        workers: processes `int > 0`, none: one per CPU, 8 at most; 1 renders in this process.

    Returns:
        Path of demo.csv.

    Raises:
        ValueError: for a number of clips or processes or a seed out of range.
    """
    if workers is not None and workers <= 0:
        raise ValueError(f"workers must be > 0 or None, got {workers!r}")
    out, begin_s = pathlib.Path(out), time.perf_counter()
    pieces = plan(clips, seed)
    table, families, note = out / "demo.csv", out / "demo_families.csv", out / "demo.json"
    about = json.dumps({"seed": seed, "clips": clips, "version": VERSION})
    if table.exists() and note.exists() and note.read_text() == about and all((out / "audio" / piece.path).exists() for piece in pieces):
        if not families.exists():
            files.write_csv(families, family_rows())
        print(f"demo: {clips} clips are in {out} already")
        return table
    table.unlink(missing_ok=True)

    workers = min(workers or min(os.cpu_count() or 1, 8), clips)
    work = partial(_write_clip, out / "audio", seed)
    progress = partial(cli.progress, total=clips, desc="demo", unit="clip")
    if workers == 1:
        for _ in progress(map(work, pieces)):
            pass
    else:
        with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            for _ in progress(pool.map(work, pieces, chunksize=4)):
                pass

    files.write_text(note, about)
    files.write_csv(families, family_rows())
    files.write_csv(table, [_row(piece) for piece in pieces])
    print(f"demo: {clips} clips in {out}, {time.perf_counter() - begin_s:.0f} s")
    return table
