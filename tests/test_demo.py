"""The demo collection: its plan in full, its sound on a few clips, its files on fewer."""

from __future__ import annotations

import csv
import pathlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from records import demo, inspect, synthesis
from records.build import build
from records.datasets.clip import Source
from tests.conftest import write_csv
from tfmusic import schema

MAGNATAGATUNE = {
    tag.strip()
    for tag in """
    no voice, singer, duet, plucking, hard rock, world, bongos, harpsichord, female singing, clasical, sitar, chorus, female opera,
    male vocal, vocals, clarinet, heavy, silence, beats, men, woodwind, funky, no strings, chimes, foreign, no piano, horns, classical,
    female, no voices, soft rock, eerie, spacey, jazz, guitar, quiet, no beat, banjo, electric, solo, violins, folk, female voice, wind,
    happy, ambient, new age, synth, funk, no singing, middle eastern, trumpet, percussion, drum, airy, voice, repetitive, birds, space,
    strings, bass, harpsicord, medieval, male voice, girl, keyboard, acoustic, loud, classic, string, drums, electronic, not classical,
    chanting, no violin, not rock, no guitar, organ, no vocal, talking, choral, weird, opera, soprano, fast, acoustic guitar,
    electric guitar, male singer, man singing, classical guitar, country, violin, electro, reggae, tribal, dark, male opera, no vocals,
    irish, electronica, horn, operatic, arabic, lol, low, instrumental, trance, chant, strange, drone, synthesizer, heavy metal, modern,
    disco, bells, man, deep, fast beat, industrial, hard, harp, no flute, jungle, pop, lute, female vocal, oboe, mellow, orchestral,
    viola, light, echo, piano, celtic, male vocals, orchestra, eastern, old, flutes, punk, spanish, sad, sax, slow, male, blues, vocal,
    indian, no singer, scary, india, woman, woman singing, rock, dance, piano solo, guitars, no drums, jazzy, singing, cello, calm,
    female vocals, voices, different, techno, clapping, house, monks, flute, not opera, not english, oriental, beat, upbeat, soft, noise,
    choir, female singer, rap, metal, hip hop, quick, water, baroque, women, fiddle, english
    """.split(",")
}
VOICES = {"woman", "man", "soprano", "tenor", "choir"}


def tag_counts(pieces, split=None) -> Counter:
    return Counter(tag for piece in pieces for tag in piece.tags if split in (None, piece.split))


def level_db(samples: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(samples**2)))


def peak_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * synthesis.RATE_HZ / len(samples))


def amplitude_at(samples: np.ndarray, hz: float) -> float:
    t = np.arange(len(samples)) / synthesis.RATE_HZ
    return float(np.abs(np.sum(samples * np.hanning(len(samples)) * np.exp(-2j * np.pi * hz * t))))


def onsets(samples: np.ndarray) -> int:
    """Peaks of the spectral flux (mean rise in dB over the bins, frames of 32 ms every 10 ms) that stand out by half of its range."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::160] * np.hanning(512)
    db = 20 * np.log10(np.abs(np.fft.rfft(frames)) + 1e-3)
    flux = np.maximum(np.diff(db, axis=0), 0).mean(axis=1)
    high = flux > np.median(flux) + 0.5 * (np.quantile(flux, 0.99) - np.median(flux))
    return int(np.sum(high[1:] & ~high[:-1]))


@pytest.fixture(scope="module")
def pieces():
    return demo.plan()


@pytest.fixture(scope="module")
def one_of_each_style(pieces):
    """The first clip of every style, with its sound."""
    first = {piece.style: piece for piece in reversed(pieces)}
    return [(piece, demo.render(piece)) for piece in first.values()]


# --- the plan ---------------------------------------------------------------------------------------------------------------------------


def test_plan_depends_on_seed_and_grows_at_its_end(pieces):
    assert demo.plan(50) == pieces[:50]
    assert demo.plan(50, seed=1) != pieces[:50]


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"clips": -1}, {"seed": -1}, {"workers": 0}])
def test_numbers_out_of_range_are_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        demo.write(tmp_path, **wrong)


def test_no_artist_is_in_two_splits_and_shares_are_as_announced(pieces):
    """17, 3 and 4 of 24 artists with 25 clips each: 425, 75 and 100 of 600."""
    assert len({piece.group for piece in pieces}) == demo.ARTISTS
    assert len({(piece.group, piece.split) for piece in pieces}) == demo.ARTISTS
    assert Counter(piece.split for piece in pieces) == {"train": 425, "valid": 75, "test": 100}


def test_even_a_tiny_collection_has_all_splits_and_several_genres():
    pieces = demo.plan(8)
    assert {piece.split for piece in pieces} == {"train", "valid", "test"}
    assert len({piece.genre for piece in pieces}) >= 3


def test_tags_are_magnatagatunes_with_a_long_tail(pieces):
    assert len(MAGNATAGATUNE) == 188
    counts = tag_counts(pieces)
    assert len(counts) >= 20
    assert set(counts) <= MAGNATAGATUNE
    shares = sorted(count / len(pieces) for count in counts.values())
    assert shares[-1] > 0.5
    assert 0.015 < shares[0] < 0.03
    assert np.median(shares) < 0.15


@pytest.mark.parametrize("seed", range(4))
def test_every_tag_is_in_every_split(seed):
    pieces = demo.plan(seed=seed)
    for split in ("train", "valid", "test"):
        rare = {tag: n for tag in tag_counts(pieces) if (n := tag_counts(pieces, split)[tag]) < 3}
        assert not rare, (split, rare)


def test_styles_do_not_give_their_tags_away(pieces):
    """A tag that a style has always or never would make tagging a choice among 16 styles. Half of the tags or more vary within a style."""
    tags, varying = tag_counts(pieces), set()
    for style in demo.STYLES:
        counts, n = tag_counts(p for p in pieces if p.style == style), sum(p.style == style for p in pieces)
        varying |= {tag for tag in counts if 0.15 < counts[tag] / n < 0.85}
    assert len(varying) > len(tags) / 2


def test_eight_percent_of_the_tags_are_missing(pieces, monkeypatch):
    monkeypatch.setattr(demo, "MISSING", 0.0)
    complete = demo.plan()
    assert all(set(given.tags) <= set(true.tags) for given, true in zip(pieces, complete, strict=True))
    assert tag_counts(pieces).total() / tag_counts(complete).total() == pytest.approx(0.92, abs=0.005)


def test_complete_tags_say_what_is_played(monkeypatch):
    monkeypatch.setattr(demo, "MISSING", 0.0)
    for piece in demo.plan():
        instruments = {instrument for _, instrument in piece.sources}
        assert ("solo" in piece.tags) == (len(piece.sources) == 1)
        assert ("vocal" in piece.tags) == bool(instruments & VOICES)
        assert ("no vocals" in piece.tags) == (not instruments & VOICES)
        assert ("Singing" in piece.event) == bool(instruments & VOICES)
        assert ("piano" in piece.tags) == ("piano" in instruments)
        assert not {"slow", "fast"} <= set(piece.tags)
        assert not {"loud", "quiet"} <= set(piece.tags)


def test_affect_is_spread_over_its_range_and_follows_its_cues(pieces):
    for name in demo.AFFECT:
        values = np.array([piece.affect[name] for piece in pieces])
        assert values.min() >= 0
        assert values.max() <= 1
        assert values.std() > 0.15

    def correlation(name, cue):
        return np.corrcoef([piece.affect[name] for piece in pieces], [cue(piece) for piece in pieces])[0, 1]

    assert correlation("valence", lambda piece: piece.mode == "major") > 0.5
    assert correlation("energy", lambda piece: piece.level_dbfs) > 0.7
    assert correlation("danceability", lambda piece: bool({"beat", "drums"} & set(piece.tags))) > 0.7


# --- the sound --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sound", [synthesis.pluck, synthesis.bow, synthesis.blow, synthesis.strike, synthesis.saw])
def test_sounds_are_in_tune(sound):
    """One second: bins of 1 Hz; bow and saw are detuned by a few cents on purpose (5 cents of 220 Hz: 0.6 Hz)."""
    assert peak_hz(sound(220.0, synthesis.RATE_HZ, np.random.default_rng(0))) == pytest.approx(220, abs=2)


def test_pluck_dies_away_in_its_decay_time():
    """T60 of 1 s: 30 dB in 0.5 s; the loop's average adds 220 * 20 log10 cos(pi 220 / 16000) = -1.8 dB a second at 220 Hz."""
    string = synthesis.pluck(220.0, synthesis.RATE_HZ, np.random.default_rng(0), decay_s=1.0)
    early, late = (amplitude_at(string[start : start + 3200], 220.0) for start in (800, 8800))
    assert 20 * np.log10(early / late) == pytest.approx(30.9, abs=0.8)


def test_voices_differ_by_their_vowels_not_by_noise():
    """A sung note: most of its energy within 15 Hz of the harmonics of 200 Hz (vibrato off), and no two notes alike."""
    one, two = (synthesis.sing(200.0, synthesis.RATE_HZ, np.random.default_rng(seed), vibrato_cents=0.0) for seed in (0, 1))
    power = np.abs(np.fft.rfft(one * np.hanning(len(one)))) ** 2
    distance = np.abs((np.arange(len(power)) + 100) % 200 - 100)
    assert power[distance < 15].sum() > 0.9 * power.sum()
    assert np.corrcoef(np.abs(np.fft.rfft(one)), np.abs(np.fft.rfft(two)))[0, 1] < 0.99


def test_clips_are_sound_and_not_clipped(one_of_each_style):
    for piece, samples in one_of_each_style:
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() < 1
        assert 6 <= len(samples) / synthesis.RATE_HZ <= 10
        assert level_db(samples) == pytest.approx(piece.level_dbfs, abs=2.5), piece.style
        assert abs(samples.mean()) < 0.1 * np.sqrt(np.mean(samples**2)), piece.style


def test_music_is_not_noise(one_of_each_style):
    """Spectral flatness (geometric over arithmetic mean of the power spectrum): 0.56 for white noise, whose bins are exponential."""
    for piece, samples in one_of_each_style:
        power = np.abs(np.fft.rfft(samples)) ** 2
        flatness = np.exp(np.mean(np.log(power + 1e-12))) / np.mean(power)
        assert flatness < 0.2, piece.style


@pytest.mark.parametrize("style", ["recital", "fingerstyle", "baroque", "techno"])
def test_fast_clips_have_more_onsets_than_slow_ones(pieces, style):
    piece = next(piece for piece in pieces if piece.style == style)
    slow, fast = (onsets(demo.render(replace(piece, tempo_bpm=bpm))) for bpm in (60.0, 150.0))
    assert fast > 1.5 * slow > 0


def test_an_artist_has_one_key_tuning_and_motif_in_all_clips():
    assert demo.artist(3, 0) == demo.artist(3, 0)
    assert len({demo.artist(number, 0).motif for number in range(demo.ARTISTS)}) == demo.ARTISTS
    assert demo.artist(3, 0) != demo.artist(3, 1)


# --- the files --------------------------------------------------------------------------------------------------------------------------


def contents(out: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_bytes_depend_on_the_seed_and_not_on_the_processes(tmp_path):
    runs = {"alone": (3, 1), "together": (3, 2), "other": (4, 1)}
    alone, together, other = (demo.write(tmp_path / name, 3, seed, workers).parent for name, (seed, workers) in runs.items())
    assert contents(alone) == contents(together)
    audio = [{name: data for name, data in contents(out).items() if name.endswith(".flac")} for out in (alone, other)]
    assert audio[0].keys() == audio[1].keys()
    assert all(audio[0][name] != audio[1][name] for name in audio[0])


def test_table_and_audio_agree(tmp_path):
    table = demo.write(tmp_path, clips=3, workers=1)
    assert table == tmp_path / "demo.csv"
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert " ".join(rows[0]) == "path split group tags genre family event valence energy danceability"
    for row, piece in zip(rows, demo.plan(3), strict=True):
        info = soundfile.info(tmp_path / "audio" / row["path"])
        assert (info.samplerate, info.channels, info.subtype) == (synthesis.RATE_HZ, 1, "PCM_16")
        assert info.duration == pytest.approx(piece.duration_s, abs=1e-3)
        assert (row["split"], row["group"], row["genre"], row["family"]) == (piece.split, piece.group, piece.genre, piece.family)
        assert (tuple(row["tags"].split("|")), tuple(row["event"].split("|"))) == (piece.tags, piece.event)
        assert float(row["valence"]) == pytest.approx(piece.affect["valence"], abs=5e-5)


def test_every_event_has_families_and_a_clips_own_is_one_of_them(pieces):
    families = demo.EVENT_FAMILIES
    assert set(families) == {event for instrument in demo.INSTRUMENTS.values() for event in instrument.events}
    assert {family for of in families.values() for family in of} == {style.family for style in demo.STYLES.values()}
    assert all(piece.family in {family for event in piece.event for family in families[event]} for piece in pieces)


def test_families_are_written_beside_the_table_and_an_existing_collection_gets_them(tmp_path):
    demo.write(tmp_path, clips=1, workers=1)
    written = tmp_path / "demo_families.csv"
    with written.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["label"], row["family"]) for row in rows} == {(event, family) for event, of in demo.EVENT_FAMILIES.items() for family in of}
    before = contents(tmp_path)
    written.unlink()
    demo.write(tmp_path, clips=1, workers=1)
    assert contents(tmp_path) == before


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """Eight clips, where the table says nothing of the first one's energy."""
    table = demo.write(tmp_path_factory.mktemp("eight"), clips=8, workers=1)
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0]["energy"] = ""
    return write_csv(table, rows), rows


def built(table, out, **options):
    """The manifest, and a record of each clip."""
    manifest = build(Source(dataset="csv", csv=table, audio=table.parent / "audio", **options), out)
    records = tf.data.TFRecordDataset([str(out / shard.file) for shard in manifest.shards])
    parsed = records.map(lambda record: schema.parse(record, len(manifest.labels), len(manifest.targets))).as_numpy_iterator()
    return manifest, {record["id"].decode(): record for record in parsed}


@pytest.mark.parametrize("column", ["genre", "family"])
def test_one_label_a_clip_comes_out_of_its_column(eight, tmp_path, column):
    table, rows = eight
    manifest, found = built(table, tmp_path / "out", tags_column=column)
    assert manifest.labels == tuple(sorted({row[column] for row in rows})) and manifest.families == {}
    assert {name: manifest.vocabulary.decode(record["labels"]) for name, record in found.items()} == {row["path"]: [row[column]] for row in rows}


def test_targets_come_out_as_written_and_an_empty_cell_as_nan(eight, tmp_path):
    """Four decimals, stored as float32."""
    table, rows = eight
    manifest, found = built(table, tmp_path / "out", tags_column="genre", targets=tuple(demo.AFFECT))
    assert manifest.targets == ("valence", "energy", "danceability") and len(found) == 8
    for row in rows:
        expected = [float(row[name] or "nan") for name in manifest.targets]
        np.testing.assert_array_equal(found[row["path"]]["targets"], np.float32(expected))
    assert np.isnan(found[rows[0]["path"]]["targets"]).tolist() == [False, True, False]
    assert not inspect.check(tmp_path / "out").errors


def test_events_come_with_their_families(eight, tmp_path):
    table, rows = eight
    manifest, _ = built(table, tmp_path / "out", tags_column="event", families=table.parent / "demo_families.csv")
    assert manifest.families == {event: tuple(sorted(demo.EVENT_FAMILIES[event])) for row in rows for event in row["event"].split("|")}


def test_complete_collection_is_recognised_and_anything_else_is_made_anew(tmp_path, monkeypatch):
    rendered = []
    monkeypatch.setattr(demo, "render", lambda piece, seed: rendered.append(piece.index) or np.zeros(100))

    def made(**changes) -> int:
        rendered.clear()
        demo.write(tmp_path, **{"clips": 2, "seed": 0, "workers": 1, **changes})
        return len(rendered)

    assert made() == 2
    assert made() == 0
    next(tmp_path.rglob("*.flac")).unlink()
    assert made() == 2
    assert made(seed=1) == 2
    assert made(clips=3, seed=1) == 3
    monkeypatch.setattr(demo, "VERSION", "another")
    assert made(clips=3, seed=1) == 3


def test_a_killed_run_leaves_no_table_and_no_half_file(tmp_path, monkeypatch):
    demo.write(tmp_path, clips=2, workers=1)

    def half(path, *_, **__):
        pathlib.Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(soundfile, "write", half)
    with pytest.raises(KeyboardInterrupt):
        demo.write(tmp_path, clips=3, seed=1, workers=1)
    assert not (tmp_path / "demo.csv").exists()
    assert all(soundfile.info(path).frames > 0 for path in tmp_path.rglob("*.flac"))
