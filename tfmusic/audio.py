"""Audio files to int16 mono waveforms, and waveforms to windows; numpy, soundfile and soxr only.

Record builder and prediction both decode here, so that training and serving hear the same samples. Everything is decoded as float32, mixed,
resampled and rounded once, at the end: libsndfile's int16 reads of Vorbis and Opus wrap around above full scale and its MP3 ones take half
as long again, and soxr's int16 output is dithered, which turns digital silence into noise.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import re
from collections.abc import Iterator
from typing import BinaryIO, Literal

import numpy as np
import soundfile
import soxr

from tfmusic.config import InputError, printable
from tfmusic.files import RemotePath

Source = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO
Short = Literal["pad", "tile"]

MIN_S = 0.1  # the shortest clip that loads
MAX_S = 86_400.0  # longer claims are damaged headers, or streams that state no length
TRUNCATED_S = 0.1  # a sound header may promise this much more than decodes: one MP3 frame lasts up to 0.072 s
READABLE = "WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, AIFF, AU and CAF"

LASTING = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}  # errors that another try meets

_BLOCK_FRAMES = 1 << 16
_STREAMED_BYTES = 0x7FFF_0000  # writers to a pipe put this or more where the size belongs


class AudioError(InputError):
    """A clip that cannot be used; the message is one line that says what is wrong with it, and which file it is if a path was given."""


class UnreadableError(AudioError):
    """A clip that could not be read for a reason that lies outside it: too many open files, a network that failed."""


def unreadable(name: str, error: OSError) -> AudioError:
    """The error of a file that the system does not let be read: final where another try would meet the same."""
    return (AudioError if error.errno in LASTING else UnreadableError)(f"{name} cannot be read: {error.strerror or error}")


def load(source: Source, sample_rate_hz: int, start_s: float = 0.0, duration_s: float | None = None, min_s: float = MIN_S) -> np.ndarray:
    """Decodes a clip to a mono waveform.

    The mean of the channels, resampled by soxr HQ, rounded to the nearest integer (halves to even: no bias), clipped at full scale. A mono
    file of 16 bits or fewer at `sample_rate_hz` keeps its integers. The result depends on the file alone, not on run, thread or source.

    A part (`start_s`, `duration_s`) is cut before resampling: it equals the load of a file that holds that part only. Uncompressed files
    and FLAC are sought; MP3, Ogg and the like decode from their beginning, because libsndfile's seeks there are off by up to full scale.

    Truncation: WAV, FLAC, AIFF, AU, ALAC and MP3 files that end more than 0.1 s before their header says raise, and so do Ogg files that
    end within a page. An MP3 without a Xing, Info or VBRI tag states no length: it loads as far as it goes. libmpg123, inside libsndfile,
    writes about broken MP3s to file descriptor 2; only a redirection of the whole process (`2>/dev/null`) stops that.

    Args:
        source: path, bytes, or binary file object (read from its first byte).
        sample_rate_hz: rate of the result `int > 0`.
        start_s: beginning of the part, seconds into the file `float >= 0`.
        duration_s: length of the part in seconds `float > 0`; it ends with the file at the latest. None: to the end.
        min_s: shortest length in seconds that is accepted `float >= 0`.

    Returns:
        Waveform int16 `[shape=(samples,)]`.

    Raises:
        AudioError: the source is missing, unreadable, truncated, too short, or has NaN or infinite samples.

    Example:
        >>> waveform = load("track.mp3", sample_rate_hz=16_000, start_s=30, duration_s=29)
    """
    if sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz must be > 0, got {sample_rate_hz!r}")
    if not start_s >= 0:
        raise ValueError(f"start_s must be >= 0, got {start_s!r}")
    if duration_s is not None and not duration_s > 0:
        raise ValueError(f"duration_s must be > 0 or None, got {duration_s!r}")
    with _open(source) as (sound, stream, untagged_mp3):
        rate, channels = sound.samplerate, sound.channels
        start = round(start_s * rate)
        end = math.inf if duration_s is None else start + round(duration_s * rate)
        if start >= sound.frames:
            raise AudioError(f"is {sound.frames / rate:.3f} s long, start_s must be less, got {start_s:g} s")
        mono = _decode(sound, start, min(end, sound.frames))
        _check_complete(sound, stream, untagged_mp3, start + len(mono), end)
        if len(mono) < max(int(min_s * rate), math.ceil(rate / sample_rate_hz)):  # one sample at least is left
            raise AudioError(f"is too short: {len(mono) / rate:.3f} s, must be at least {min_s:g} s")
        if not np.isfinite(mono).all():
            raise AudioError("has NaN or infinite samples, all must be finite")
    return _finish(mono, channels, rate, sample_rate_hz)


def convert(waveform: np.ndarray, from_hz: int, sample_rate_hz: int) -> np.ndarray:
    """A waveform in memory to what `load` gives for a file of it.

    Args:
        waveform: int16, or floats in [-1, 1] `[shape=(samples,) or (samples, channels)]`.
        from_hz: its sample rate `int > 0`.
        sample_rate_hz: rate of the result `int > 0`.

    Returns:
        Waveform int16 `[shape=(samples,)]`.

    Raises:
        AudioError: shorter than `MIN_S`, or NaN or infinite samples.
        ValueError: another type or shape.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim not in (1, 2) or not (waveform.dtype == np.int16 or np.issubdtype(waveform.dtype, np.floating)):
        raise ValueError(f"waveform must be int16 or float of shape (samples[, channels]), got {waveform.dtype} {waveform.shape}")
    if min(from_hz, sample_rate_hz) <= 0:
        raise ValueError(f"sample rates must be > 0, got {from_hz} and {sample_rate_hz}")
    if len(waveform) < int(MIN_S * from_hz):
        raise AudioError(f"waveform is too short: {len(waveform) / from_hz:.3f} s, must be at least {MIN_S:g} s")
    channels = waveform[:, None] if waveform.ndim == 1 else waveform  # (samples, channels)
    mono = channels.sum(axis=1, dtype=np.float32) * np.float32(1 / 32_768 if waveform.dtype == np.int16 else 1)
    if not np.isfinite(mono).all():
        raise AudioError("waveform has NaN or infinite samples, all must be finite")
    return _finish(mono, channels.shape[1], from_hz, sample_rate_hz)


def _finish(mono: np.ndarray, channels: int, from_hz: int, sample_rate_hz: int) -> np.ndarray:
    """Sum of the channels, float32, to their mean as int16 at the wanted rate: the one place where samples are resampled and rounded."""
    if from_hz != sample_rate_hz:
        mono = soxr.resample(mono, from_hz, sample_rate_hz, quality="HQ")
    np.clip(mono, -channels, channels, out=mono)
    mono *= 32_768 / channels
    np.rint(mono, out=mono)
    return np.minimum(mono, 32_767, out=mono).astype(np.int16)


def probe(source: Source) -> tuple[float, int, int]:
    """Reads a clip's header.

    Args:
        source: as in `load`.

    Returns:
        Duration in seconds (of an MP3 without a Xing, Info or VBRI tag an estimate), sample rate in Hz, channels.

    Raises:
        AudioError: the source is missing or not readable audio; damage behind the header is only seen by `load`.
    """
    with _open(source) as (sound, _, _):
        return sound.frames / sound.samplerate, sound.samplerate, sound.channels


def encode_flac(waveform: np.ndarray, sample_rate_hz: int) -> bytes:
    """A waveform as a FLAC stream, lossless; `decode_flac` is its inverse.

    Args:
        waveform: int16 `[shape=(samples,)]`.
        sample_rate_hz: its rate, which stands in the stream `int > 0`.
    """
    stream = io.BytesIO()
    soundfile.write(stream, waveform, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def decode_flac(stream: bytes, first: int = 0, samples: int = -1) -> np.ndarray:
    """Samples of a FLAC stream of ours, which seeks exactly.

    Args:
        stream: what `encode_flac` made.
        first: first sample `0 <= int <= length`.
        samples: how many, as far as the stream goes; -1: all.

    Returns:
        int16 `[shape=(<= samples,)]`.

    Raises:
        AudioError: the stream is damaged.
    """
    try:
        return soundfile.read(io.BytesIO(stream), samples, start=first, dtype="int16")[0]
    except soundfile.LibsndfileError as error:
        raise AudioError(f"a FLAC stream is damaged: libsndfile stopped with {error.error_string!r}") from None


def window_starts(samples: int, window: int, hop: int) -> np.ndarray:
    """First samples of a track's windows: every `hop`, and a last window that ends exactly where the track ends.

    Args:
        samples: length of the track `int > 0`.
        window: length of a window in samples `int > 0`.
        hop: samples between windows `int > 0`; the last step may be smaller.

    Returns:
        Increasing starts int64 `[shape=(windows,)]`; one window, at 0, if the track is not longer than the window.

    Example:
        >>> window_starts(samples=10, window=4, hop=4)
        array([0, 4, 6])
    """
    if min(samples, window, hop) <= 0:
        raise ValueError(f"samples, window and hop must be > 0, got {samples}, {window} and {hop}")
    last = max(samples - window, 0)
    return np.append(np.arange(0, last, hop), last)


def fit_length(waveform: np.ndarray, samples: int, short: Short) -> np.ndarray:
    """Lengthens a short waveform to `samples`; a longer one stays as it is.

    Args:
        waveform: `[shape=(length,)]`, `length > 0`.
        samples: least length of the result `int > 0`.
        short: "pad" appends zeros, "tile" repeats the waveform.

    Returns:
        Waveform of the same type `[shape=(max(length, samples),)]`.
    """
    if short not in ("pad", "tile"):
        raise ValueError(f"short must be 'pad' or 'tile', got {short!r}")
    if len(waveform) == 0:
        raise ValueError("waveform must have at least one sample, got none")
    if len(waveform) >= samples:
        return waveform
    return np.resize(waveform, samples) if short == "tile" else np.pad(waveform, (0, samples - len(waveform)))


def windows(waveform: np.ndarray, window: int, hop: int, short: Short = "pad") -> np.ndarray:
    """Cuts a track into the windows of `window_starts`.

    Args:
        waveform: int16 `[shape=(samples,)]`.
        window: length of a window in samples `int > 0`.
        hop: samples between windows `int > 0`.
        short: what `fit_length` does to a track shorter than the window.

    Returns:
        Windows float32 in [-1, 1), the integers / 32768 `[shape=(windows, window)]`.
    """
    if waveform.dtype != np.int16 or waveform.ndim != 1:
        raise ValueError(f"waveform must be int16 of shape (samples,), got {waveform.dtype} {waveform.shape}")
    starts = window_starts(len(waveform), window, hop)
    crops = np.lib.stride_tricks.sliding_window_view(fit_length(waveform, window, short), window)[starts]  # (windows, window)
    return np.multiply(crops, 1 / 32_768, dtype=np.float32)


@contextlib.contextmanager
def _open(source: Source) -> Iterator[tuple[soundfile.SoundFile, BinaryIO, bool]]:
    """Yields the decoder, the bytes under it, and whether it is an MP3 that states no length; failures inside become named AudioErrors."""
    remote = isinstance(source, RemotePath)
    path = os.fspath(source) if isinstance(source, str | os.PathLike) and not remote else None
    name = printable(source) if remote or path is not None else getattr(source, "name", "audio")
    try:
        with contextlib.ExitStack() as stack:
            if remote:
                source = stack.enter_context(source.open("rb"))
            if path is not None:
                stream = stack.enter_context(open(path, "rb"))
            elif isinstance(source, bytes | bytearray | memoryview):
                stream = io.BytesIO(source)
            else:
                stream = source if source.seekable() else io.BytesIO(source.read())
            if stream.seek(0, os.SEEK_END) == 0:
                raise AudioError("is empty (0 bytes)")
            untagged_mp3 = _is_untagged_mp3(stream)
            stream.seek(0)
            # By its path libsndfile reads a file without Python's lock; only an untagged MP3 needs the position in the stream afterwards.
            # A name that is not UTF-8 soundfile cannot pass on.
            sound = stack.enter_context(_sound_file(stream if path is None or untagged_mp3 or name != path else path))
            if not 0 < sound.frames <= MAX_S * sound.samplerate:
                found = "no samples" if sound.frames <= 0 else "no length, or one beyond 24 h"
                raise AudioError(f"has a header that states {found}, it must state the number of samples that follow")
            yield sound, stream, untagged_mp3
    except AudioError as error:
        raise type(error)(f"{name} {error}") from None
    except OSError as error:
        raise unreadable(name, error) from None
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name} is damaged: libsndfile stopped with {error.error_string!r}") from None


def _sound_file(file: str | BinaryIO) -> soundfile.SoundFile:
    try:
        sound = soundfile.SoundFile(file)
        if sound.format != "RAW":  # what libsndfile makes of any bytes in a file named .au, .snd, .vox or .gsm
            return sound
        sound.close()
        reason = "Format not recognised."
    except soundfile.LibsndfileError as error:
        if error.code == 2:  # SF_ERR_SYSTEM: it opens the path once more, for which there may be no descriptor left
            raise UnreadableError(f"cannot be read: {error.error_string}") from None
        reason = "no MPEG frames found" if error.code == 7 else error.error_string  # 7: "File does not exist ...", wrong here
    except TypeError:  # a name that ends in .raw
        reason = "headerless samples"
    raise AudioError(f"is not audio that libsndfile can read, must be one of {READABLE}: {reason.rstrip('.')}")


def _decode(sound: soundfile.SoundFile, start: int, end: int) -> np.ndarray:
    """Sum of the channels over frames `start` to `end`, or to where decoding ends, float32 `[shape=(<= end - start,)]`."""
    # soundfile seeks after every read, and what is decoded after a seek in a lossy file is not what a decoder that came there by itself
    # gives (up to .75 of full scale in MP3, .3 in Vorbis): those are read from the beginning, in one call.
    exact = sound.subtype.startswith(("PCM_", "FLOAT", "DOUBLE"))
    first, block_frames = (start, _BLOCK_FRAMES) if exact else (0, end)
    if first:
        sound.seek(first)
    mono, done = np.empty(end - first, np.float32), 0
    with np.errstate(over="ignore", invalid="ignore"):  # load checks for NaN and infinity
        while done < len(mono):
            block = sound.read(min(block_frames, len(mono) - done), dtype="float32", always_2d=True)  # (frames, channels)
            if len(block) == 0:
                break
            part = mono[done : done + len(block)]
            np.copyto(part, block[:, 0])
            for channel in range(1, sound.channels):
                part += block[:, channel]
            done += len(block)
    return mono[start - first : done]


def _check_complete(sound: soundfile.SoundFile, stream: BinaryIO, untagged_mp3: bool, decoded: int, end: float) -> None:
    """Raises if decoding ended at frame `decoded`, before `end` and before what the headers promise."""
    if untagged_mp3:  # sound.frames is a guess from the first frame's bit rate; libsndfile stops there even if the file goes on
        if decoded >= sound.frames < end and stream.tell() < 0.95 * stream.seek(0, os.SEEK_END):
            raise AudioError(
                f"is a variable-rate MP3 without a length tag, of which libsndfile reads the first {decoded / sound.samplerate:.2f} s only,"
                " must have a Xing tag (`ffmpeg -i in.mp3 -c copy out.mp3` writes one)"
            )
        return
    log, promised = sound.extra_info, float(sound.frames)
    if "Last page lacks an end-of-stream bit" in log and "Junk after the last page" in log:
        promised = math.inf
    # libsndfile corrects sizes that exceed the file: "data : 2646000 (should be 1322978)"
    size = re.search(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if size and int(size[1]) < _STREAMED_BYTES:
        promised *= int(size[1]) / int(size[2])
    if decoded < min(promised, end) - TRUNCATED_S * sound.samplerate:
        expected = "more" if math.isinf(promised) else f"{promised / sound.samplerate:.2f} s"
        raise AudioError(f"is truncated: it ends after {decoded / sound.samplerate:.2f} s, must hold {expected}")


def _is_untagged_mp3(stream: BinaryIO) -> bool:
    """Whether the stream begins, after ID3 tags, with an MPEG frame that carries no Xing, Info or VBRI tag (the number of frames)."""
    stream.seek(0)
    head, offset = stream.read(10), 0
    if head[:3] == b"ID3" and len(head) == 10:
        offset = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    stream.seek(offset)
    frame = stream.read(256)
    is_frame = len(frame) > 2 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0 and frame[1] & 0x06 != 0
    return is_frame and not any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))
