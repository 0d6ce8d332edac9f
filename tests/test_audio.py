"""Decoding against an independent reference, damaged files, and windows. All audio is made here."""

import hashlib
import io
import itertools
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from tfmusic.audio import AudioError, convert, fit_length, load, probe, window_starts, windows

EXACT = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "ALAC_16")]
OTHER_WAV = [("WAV", subtype) for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "MS_ADPCM")]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
FORMATS = EXACT + OTHER_WAV + [("FLAC", "PCM_S8"), ("FLAC", "PCM_24"), ("WAVEX", "PCM_16"), ("W64", "PCM_24")] + LOSSY


def music(seconds: float, rate: int, channels: int, seed: int = 0) -> np.ndarray:
    """Gliding tones and noise, different in every channel, peaks near 0.9 `[shape=(frames, channels)]`."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate))[:, None] / rate
    tones = np.sin(2 * np.pi * (220 * (1 + np.arange(channels)) * t + 150 * t**2)) + 0.5 * np.sin(2 * np.pi * 1500 * t) * (t % 0.5 < 0.1)
    return 0.5 * tones + 0.02 * rng.normal(size=tones.shape)


def encode(samples: np.ndarray, rate: int, format: str = "WAV", subtype: str | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=format, **options) as sound:
        sound.write(samples)
    return buffer.getvalue()


def without_tag(mp3: bytes) -> bytes:
    """The MP3 without its first frame, which holds the Xing or Info tag instead of sound."""
    tag = max(mp3[:256].find(b"Xing"), mp3[:256].find(b"Info"))
    assert tag > 0
    return mp3[mp3.index(mp3[:2], tag) :]


def reference(encoded: bytes, rate_hz: int) -> np.ndarray:
    """Decoded, mixed and resampled in float64, at int16's scale, not rounded."""
    samples, rate = soundfile.read(io.BytesIO(encoded), dtype="float64", always_2d=True)
    return 32768 * soxr.resample(samples.mean(axis=1), rate, rate_hz, quality="HQ")


def grid():
    for (format, subtype), rate, channels in itertools.product(FORMATS, (8_000, 44_100, 48_000, 96_000), (1, 2, 6)):
        small = format == "MP3" or "ADPCM" in subtype
        if (small and (channels > 2 or rate > 48_000)) or (subtype == "OPUS" and rate not in (8_000, 48_000)):
            continue
        yield pytest.param(format, subtype, rate, channels, id=f"{format}-{subtype}-{rate}-{channels}")


@pytest.mark.parametrize("format, subtype, rate, channels", list(grid()))
def test_load_is_the_rounded_reference(format, subtype, rate, channels):
    """Rounding alone is at most half a step; .05 is left for float32. Dither would be up to 1.5, a second rounding up to 1."""
    encoded = encode(music(0.4, rate, channels), rate, format, subtype)
    waveform, expected = load(encoded, 16_000), np.clip(reference(encoded, 16_000), -32768, 32767)
    assert waveform.dtype == np.int16 and waveform.shape == expected.shape
    assert np.abs(expected).max() > 3000
    assert np.abs(waveform - expected).max() <= 0.55


@pytest.mark.parametrize("rate", [11_025, 44_100, 48_000, 96_000])
def test_a_sine_keeps_its_phase_and_amplitude(rate):
    """A sine of 440 Hz is known at every rate: 16,000 sin(2 pi 440 n / 16,000), away from the ends within a step and a half."""
    sine = 16_000 / 32_768 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    waveform = load(encode(sine, rate, "WAV", "FLOAT"), 16_000)
    expected = 16_000 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert waveform.shape == (32_000,)
    assert np.abs(waveform - expected)[1000:-1000].max() < 1.5


@pytest.mark.parametrize("format, subtype", EXACT)
def test_integers_survive(format, subtype):
    """Every int16 there is, in and out."""
    integers = np.arange(-32768, 32768).astype(np.int16)
    np.testing.assert_array_equal(load(encode(integers, 16_000, format, subtype), 16_000), integers)


def test_24_bits_round_to_the_nearest_16():
    """In steps of 16 bits: 127/256 -> 0, 128/256 = .5 -> 0, 129/256 -> 1, 1.5 -> 2, 2.5 -> 2, -.5 -> 0, -1.5 -> -2; 32767.996 clips."""
    values = np.array([127, 128, 129, 384, 640, -128, -384, 0x7FFFFF, -0x800000])
    encoded = encode(np.tile(values, 1000).astype(np.int32) << 8, 16_000, "WAV", "PCM_24")
    np.testing.assert_array_equal(load(encoded, 16_000)[:9], [0, 0, 1, 2, 2, 0, -2, 32767, -32768])


def test_mono_is_the_mean_of_the_channels():
    """L = -R cancels; (1 + 2) / 2 and (2 + 3) / 2 round to even, 2 and 2; two full scales stay full scale."""
    left = (20_000 * music(1, 16_000, 1)[:, 0]).astype(np.int16)
    assert not load(encode(np.stack([left, -left], 1), 16_000), 16_000).any()
    pairs = np.tile(np.array([[1, 2], [2, 3], [32767, 32767], [-32768, -32768], [32767, -32768]], np.int16), (1000, 1))
    np.testing.assert_array_equal(load(encode(pairs, 16_000), 16_000)[:5], [2, 2, 32767, -32768, 0])


@pytest.mark.parametrize("format, subtype", LOSSY)
def test_overshoot_of_lossy_decoders_clips(format, subtype):
    """A clipped, loud signal decodes above full scale. A wrapped sample would have the other sign."""
    loud = np.clip(6 * music(1, 48_000, 2), -1, 1)
    encoded = encode(loud, 48_000, format, subtype)
    decoded = soundfile.read(io.BytesIO(encoded), dtype="float32")[0].mean(axis=1)
    waveform = load(encoded, 48_000)
    assert (decoded > 1.05).sum() > 100 and (decoded < -1.05).sum() > 100
    assert (waveform[decoded >= 1] == 32767).all() and (waveform[decoded <= -1] == -32768).all()


def test_overshoot_of_floats_and_of_the_resampler_clips():
    """3.0 is 32767, -3.0 is -32768, at once and after resampling; a full-scale square wave overshoots by Gibbs' 9 % on its way up."""
    np.testing.assert_array_equal(load(encode(np.tile([3.0, -3.0], 1000), 8_000, "WAV", "FLOAT"), 8_000)[:2], [32767, -32768])
    square = np.where(np.arange(16_000) % 200 < 100, 32767, -32768).astype(np.int16)
    overshooting = soxr.resample(square / 32768, 16_000, 44_100)
    waveform = load(encode(square, 16_000), 44_100)
    assert (overshooting > 1.05).any() and (overshooting < -1.05).any()
    assert (waveform[overshooting > 1] == 32767).all() and (waveform[overshooting < -1] == -32768).all()


def test_silence_stays_silent():
    assert not load(encode(np.zeros((44_100, 2), np.int16), 44_100), 16_000).any()


@pytest.mark.parametrize("format, subtype", [("WAV", "PCM_16"), ("FLAC", "PCM_16"), *LOSSY])
def test_every_kind_of_source_gives_the_same_samples(format, subtype, tmp_path):
    class Pipe(io.RawIOBase):
        """Reads, and can do no more: `seekable` is False and `seek` raises."""

        def __init__(self, content):
            self.read = io.BytesIO(content).read

    path = tmp_path / f"track.{format.lower()}"
    encoded = encode(music(1, 48_000, 2), 48_000, format, subtype)
    path.write_bytes(encoded)
    moved = io.BytesIO(encoded)
    moved.seek(100)
    with open(path, "rb") as file:
        sources = [str(path), encoded, bytearray(encoded), memoryview(encoded), file, moved, Pipe(encoded)]
        for source in sources:
            np.testing.assert_array_equal(load(source, 16_000), load(path, 16_000))
        assert not file.closed


def test_runs_threads_and_processes_agree(tmp_path):
    path = tmp_path / "track.mp3"
    path.write_bytes(encode(music(2, 44_100, 2), 44_100, "MP3"))

    def digest(_=None):
        return hashlib.sha1(load(path, 16_000).tobytes()).hexdigest()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(digest, range(16))) == {digest()}
    code = "import hashlib, sys; from tfmusic.audio import load; print(hashlib.sha1(load(sys.argv[1], 16_000).tobytes()).hexdigest())"
    other = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert other.stdout.strip() == digest(), other.stderr


@pytest.mark.parametrize("format, subtype", FORMATS)
def test_a_part_is_a_slice_of_the_whole(format, subtype):
    """Sample by sample, also in the low-bit-rate MP3 and the Vorbis where a seek by libsndfile is not exact."""
    encoded = encode(music(4, 48_000, 2), 48_000, format, subtype, **({"compression_level": 0.99} if format in ("MP3", "OGG") else {}))
    whole = load(encoded, 48_000)
    for start_s, duration_s in [(0, 0.5), (0.25, 1.0), (1.1, 0.3), (2.0, None), (3.3, 0.123), (3.5, 9)]:
        start = round(start_s * 48_000)
        end = None if duration_s is None else start + round(duration_s * 48_000)
        np.testing.assert_array_equal(load(encoded, 48_000, start_s, duration_s), whole[start:end], str((start_s, duration_s)))


def test_a_part_is_cut_before_resampling():
    samples = (20_000 * music(2, 44_100, 2)).astype(np.int16)
    part = load(encode(samples, 44_100, "FLAC"), 16_000, start_s=0.5, duration_s=1)
    np.testing.assert_array_equal(part, load(encode(samples[22_050:66_150], 44_100), 16_000))
    assert part.shape == (16_000,)


def test_soundfile_blocks_do_not_show():
    """70,000 and 131,072 frames: one block and a bit, and exactly two."""
    for frames in (65_535, 65_536, 65_537, 70_000, 131_072):
        integers = np.random.default_rng(frames).integers(-32768, 32768, frames).astype(np.int16)
        np.testing.assert_array_equal(load(encode(integers, 16_000), 16_000), integers)


# --- damaged input ----------------------------------------------------------------------------------------------------------------------
def refuse(source, match: str, **options) -> None:
    with pytest.raises(AudioError, match=match) as caught:
        load(source, 16_000, **options)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(source) if isinstance(source, str | os.PathLike) else "audio "), message


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("empty.wav", b"", r"is empty \(0 bytes\)"),
        ("text.wav", b"these are words\n" * 100, "is not audio .* must be one of WAV, FLAC, MP3.*: Format not recognised"),
        ("text.mp3", b"these are words\n" * 100, "is not audio .*: no MPEG frames found"),
        ("text.au", b"these are words\n" * 100, "is not audio"),
        ("text.vox", b"these are words\n" * 100, "is not audio"),
        ("samples.raw", bytes(4000), "is not audio .*: headerless samples"),
        ("phone.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(4000), "is not audio"),
        ("header.wav", encode(np.zeros(9000, np.int16), 16_000)[:44], "header that states no samples"),
        ("nothing.wav", encode(np.zeros(0, np.int16), 16_000), "header that states no samples"),
        ("header.flac", encode(music(1, 16_000, 1), 16_000, "FLAC")[:200], "is damaged: libsndfile stopped"),
        ("header.mp3", encode(music(1, 16_000, 1), 16_000, "MP3")[:100], "is not audio"),
        ("header.ogg", encode(music(1, 16_000, 1), 16_000, "OGG")[:100], "is not audio"),
        ("short.wav", encode(np.ones(160, np.int16), 16_000), r"is too short: 0\.010 s, must be at least 0\.1 s"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,  # the content of an Ogg file differs in every process
)
def test_bad_files_say_what_is_wrong(name, content, match, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    refuse(path, match)
    refuse(str(path), match)
    if name not in ("text.mp3", "samples.raw"):  # what these say comes from the name
        refuse(content, match)
    if name != "header.flac" and name != "short.wav":  # these have a header in order
        with pytest.raises(AudioError):
            probe(path)


def test_bad_paths_say_what_is_wrong(tmp_path):
    refuse(tmp_path / "missing.wav", "cannot be read: No such file")
    refuse(tmp_path, "cannot be read: Is a directory")
    with pytest.raises(AudioError, match="missing.wav cannot be read"):
        probe(tmp_path / "missing.wav")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(encode(np.zeros(9000, np.int16), 16_000))
    path.chmod(0)
    refuse(path, "cannot be read: Permission denied")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 4000, -1])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_must_be_finite(value, position, subtype):
    samples = music(1, 44_100, 2)
    samples[position, 1] = value
    refuse(encode(samples, 44_100, "WAV", subtype), "has NaN or infinite samples")


def test_channels_that_overflow_together_are_not_finite():
    """3e38 is a float32, twice that is not."""
    refuse(encode(np.full((9000, 2), 3e38), 16_000, "WAV", "FLOAT"), "has NaN or infinite samples")


def test_the_shortest_clip_is_a_tenth_of_a_second():
    clip = encode(np.ones(4410, np.int16), 44_100)
    assert load(clip, 44_100).shape == (4410,)
    refuse(encode(np.ones(4409, np.int16), 44_100), r"is too short: 0\.100 s")
    refuse(clip, "is too short: 0.050 s, must be at least 0.1 s", start_s=0.05)
    assert load(clip, 44_100, start_s=0.05, min_s=0.01).shape == (2205,)
    refuse(clip, "is 0.100 s long, start_s must be less, got 0.1 s", start_s=0.1)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.95])
@pytest.mark.parametrize("format, subtype", [*EXACT, ("WAV", "PCM_24"), ("WAV", "IMA_ADPCM"), ("WAVEX", "FLOAT"), *LOSSY])
def test_truncated_files_are_refused(format, subtype, keep):
    """Five seconds of which 30, 50 and 95 % of the bytes are left; whole they load."""
    encoded = encode(music(5, 48_000, 2), 48_000, format, subtype)
    assert len(load(encoded, 16_000)) == pytest.approx(80_000, abs=1000)
    refuse(encoded[: int(keep * len(encoded))], "truncated|damaged|malformed")


@pytest.mark.parametrize("mode, tag", [("CONSTANT", b"Info"), ("VARIABLE", b"Xing")])
def test_truncated_mp3_of_either_tag_is_refused(mode, tag):
    """One second and a half of three is left; the tag promises all of them."""
    encoded = encode(music(3, 44_100, 2), 44_100, "MP3", bitrate_mode=mode, compression_level=0.3)
    assert tag in encoded[:256]
    refuse(encoded[: len(encoded) // 2], r"is truncated: it ends after 1\.[0-9]+ s, must hold 3\.00 s")


@pytest.mark.parametrize("format, subtype", [("WAV", "PCM_16"), ("FLAC", "PCM_16"), *LOSSY])
def test_what_lies_before_the_cut_still_loads(format, subtype):
    encoded = encode(music(10, 48_000, 2), 48_000, format, subtype)
    half = encoded[: len(encoded) // 2]
    np.testing.assert_array_equal(load(half, 16_000, start_s=1, duration_s=2), load(encoded, 16_000, start_s=1, duration_s=2))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_streamed_wav_has_no_size_to_be_held_to(size):
    encoded = encode(np.arange(9000, dtype=np.int16), 16_000)
    assert encoded[36:40] == b"data"
    streamed = encoded[:40] + struct.pack("<I", size) + encoded[44:]
    np.testing.assert_array_equal(load(streamed, 16_000), np.arange(9000))


def test_streamed_flac_is_refused():
    """Its 36 bits of length are 0: unknown. Byte 8 begins the stream info, the length is in bytes 13 to 17 of it."""
    encoded = bytearray(encode(music(1, 16_000, 1), 16_000, "FLAC"))
    encoded[8 + 13] &= 0xF0
    encoded[8 + 14 : 8 + 18] = bytes(4)
    refuse(bytes(encoded), "header that states no length")


def test_junk_in_an_mp3_is_refused():
    encoded = encode(music(4, 44_100, 2), 44_100, "MP3")
    middle = len(encoded) // 2
    refuse(encoded[:middle] + bytes(4000) + encoded[middle + 4000 :], "is damaged")


def test_mp3_that_lacks_its_last_frame_loads():
    """.026 s of sound are less than the .1 s that count as a truncation."""
    encoded = encode(music(4, 44_100, 2), 44_100, "MP3", bitrate_mode="CONSTANT", compression_level=0.0)
    assert 4 * 16_000 - 1600 < len(load(encoded[:-300], 16_000)) < 4 * 16_000


@pytest.mark.parametrize("art_bytes", [0, 200_000])
def test_mp3_without_a_tag_loads(art_bytes, tmp_path):
    """libsndfile guesses its length from size and bit rate, a cover in the ID3 tag included: the guess is not held against the file."""
    encoded = without_tag(encode(music(4, 44_100, 2), 44_100, "MP3", bitrate_mode="CONSTANT", compression_level=0.5))
    id3 = b"ID3\x03\0\0" + bytes((art_bytes >> shift) & 0x7F for shift in (21, 14, 7, 0)) + bytes(art_bytes) if art_bytes else b""
    frames = soundfile.info(io.BytesIO(id3 + encoded)).frames
    assert (frames > 10 * 44_100) == (art_bytes > 0)
    path = tmp_path / "track.mp3"
    path.write_bytes(id3 + encoded)
    for source in (id3 + encoded, path):
        assert len(load(source, 16_000)) == pytest.approx(64_000, abs=2000)


def test_mp3_too_small_for_a_tag_loads(tmp_path):
    """At 32 kbit/s no frame has room for a tag. From the second frame on, this one decodes to the guessed length to the sample."""
    encoded = encode(music(4, 44_100, 2), 44_100, "MP3", bitrate_mode="CONSTANT", compression_level=0.99)
    assert b"Info" not in encoded and b"Xing" not in encoded
    path = tmp_path / "track.mp3"
    path.write_bytes(encoded[encoded.index(encoded[:2], 2) :])
    guess, decoded = soundfile.info(path).frames, len(soundfile.read(path)[0])
    assert decoded == guess
    assert len(load(path, 44_100)) == decoded


def test_variable_rate_mp3_without_a_tag_is_refused(tmp_path):
    """Loud after quiet: from the rate of the first frame libsndfile expects another length than there is, and would stop early."""
    samples = np.concatenate([music(4, 44_100, 2), np.zeros((8 * 44_100, 2))])
    encoded = without_tag(encode(samples, 44_100, "MP3", bitrate_mode="VARIABLE", compression_level=0.2))
    assert soundfile.info(io.BytesIO(encoded)).frames < 11 * 44_100
    path = tmp_path / "cut.mp3"
    path.write_bytes(encoded)
    for source in (encoded, path):
        refuse(source, r"is a variable-rate MP3 without a length tag, of which libsndfile reads the first [0-9.]+ s only")
    assert load(path, 16_000, duration_s=1).shape == (16_000,)


@pytest.mark.parametrize("format, subtype", FORMATS)
def test_probe_reads_the_header(format, subtype, tmp_path):
    path = tmp_path / "clip"
    path.write_bytes(encode(music(0.5, 48_000, 2), 48_000, format, subtype))
    duration_s, rate, channels = probe(path)
    assert (rate, channels) == (48_000, 2)
    assert duration_s == pytest.approx(0.5, abs=0.03 if "ADPCM" in subtype else 1e-9)


@pytest.mark.parametrize(
    "options", [{"sample_rate_hz": 0}, {"start_s": -1}, {"start_s": np.nan}, {"duration_s": 0}, {"duration_s": -1}, {"duration_s": np.nan}]
)
def test_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be .*, got") as caught:
        load(encode(np.ones(9000, np.int16), 16_000), **{"sample_rate_hz": 16_000, **options})
    assert not isinstance(caught.value, AudioError)


# --- windows ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("samples", [1, 2, 7, 8, 9, 15, 16, 17, 100, 101])
@pytest.mark.parametrize("window", [1, 5, 8, 16])
@pytest.mark.parametrize("hop", [1, 3, 8, 20])
def test_window_starts_cover_the_track(samples, window, hop):
    """Steps are `hop`, only the last may be smaller; 1 + ceil((samples - window) / hop) windows; the last ends at the end."""
    starts = window_starts(samples, window, hop)
    assert starts[0] == 0 and starts.dtype == np.int64
    if samples <= window:
        assert starts.tolist() == [0]
        return
    assert len(starts) == 1 + -(-(samples - window) // hop)
    assert starts[-1] + window == samples
    steps = np.diff(starts)
    assert (steps[:-1] == hop).all() and 0 < steps[-1] <= hop
    if hop <= window:
        covered = np.zeros(samples, bool)
        for start in starts:
            covered[start : start + window] = True
        assert covered.all()


def test_window_starts_by_hand():
    """10 samples, windows of 4: every 3 samples they end at 4, 7, 10; every 4 at 4, 8 and, two samples on, 10."""
    assert window_starts(10, 4, 3).tolist() == [0, 3, 6]
    assert window_starts(10, 4, 4).tolist() == [0, 4, 6]
    assert window_starts(4, 4, 4).tolist() == [0]


def test_windows_hold_the_waveform_between_minus_one_and_one():
    waveform = np.array([-32768, -16384, 0, 16384, 32767, 1], np.int16)
    crops = windows(waveform, window=4, hop=3)
    assert crops.dtype == np.float32
    np.testing.assert_array_equal(crops, [[-1, -0.5, 0, 0.5], [0, 0.5, 32767 / 32768, 1 / 32768]])


def test_short_clips_are_padded_or_tiled():
    clip = np.array([1, 2, 3], np.int16)
    assert fit_length(clip, 8, "pad").tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert fit_length(clip, 8, "tile").tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    for short in ("pad", "tile"):
        assert fit_length(clip, 2, short).tolist() == fit_length(clip, 3, short).tolist() == [1, 2, 3]
        assert fit_length(clip, 8, short).dtype == np.int16
        np.testing.assert_array_equal(windows(clip, 8, 4, short), [fit_length(clip, 8, short) / 32768])
    np.testing.assert_array_equal(windows(clip, 8, 4), windows(clip, 8, 4, "pad"))


def test_windows_refuse_what_they_do_not_know():
    clip = np.ones(10, np.int16)
    with pytest.raises(ValueError, match="short must be 'pad' or 'tile', got 'loop'"):
        windows(clip, 20, 5, "loop")
    with pytest.raises(ValueError, match="waveform must be int16 .*, got float64"):
        windows(clip / 2, 4, 2)
    with pytest.raises(ValueError, match=r"waveform must be int16 of shape \(samples,\), got int16 \(1, 10\)"):
        windows(clip[None], 4, 2)
    with pytest.raises(ValueError, match="at least one sample"):
        fit_length(clip[:0], 4, "tile")
    for arguments in [(0, 4, 2), (10, 0, 2), (10, 4, 0)]:
        with pytest.raises(ValueError, match="samples, window and hop must be > 0, got"):
            window_starts(*arguments)


def test_no_sample_left_is_too_short_whatever_the_least_length(tmp_path):
    """One sample at 48 kHz is a third of one at 16 kHz."""
    soundfile.write(tmp_path / "click.wav", np.ones(1), 48_000)
    with pytest.raises(AudioError, match="too short"):
        load(tmp_path / "click.wav", 16_000, min_s=0)


# --- waveforms in memory ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_a_converted_waveform_is_what_its_file_loads_as(tmp_path, channels, rate_hz):
    integers = np.random.default_rng(0).integers(-32_768, 32_768, (9_000, channels)).astype(np.int16)
    soundfile.write(tmp_path / "noise.wav", integers, rate_hz)
    expected = load(tmp_path / "noise.wav", 8_000)
    np.testing.assert_allclose(convert(integers, rate_hz, 8_000), expected, atol=1)
    np.testing.assert_allclose(convert(integers / 32_768, rate_hz, 8_000), expected, atol=1)
    if channels == 1:
        np.testing.assert_array_equal(convert(integers[:, 0], rate_hz, 8_000), expected)


@pytest.mark.parametrize("waveform", [np.full(8_000, np.nan), np.full(8_000, np.inf), np.zeros(799), np.zeros((0, 2))])
def test_a_waveform_too_short_or_not_finite_is_refused(waveform):
    with pytest.raises(AudioError, match="waveform"):
        convert(waveform, 8_000, 8_000)


@pytest.mark.parametrize("waveform", [np.zeros(9, np.int32), np.zeros((1, 2, 3)), np.zeros(9, bool)])
def test_a_waveform_of_another_type_or_shape_is_refused(waveform):
    with pytest.raises(ValueError, match="must be int16 or float"):
        convert(waveform, 8_000, 8_000)
