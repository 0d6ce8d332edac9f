"""Tags and embeddings of audio files from a bundle: numpy, soundfile, soxr and LiteRT, no TensorFlow. What it must know stands in the bundle's
model.json.

predict = Predictor("runs/first/bundle")
predict(waveform, sample_rate_hz)      # {"guitar": 0.83, ...}, highest first
predict.embedding("song.mp3")          # unit vector; the scalar product of two is their similarity
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydantic
from ai_edge_litert.interpreter import Interpreter

from tfmusic import audio, cli
from tfmusic.config import InputError, Settings, printable
from tfmusic.labels import Vocabulary

MODEL_INFO = "model.json"


class ModelInfo(Settings):
    """model.json: what a client must know of the .tflite files beside it."""

    name: str
    task: str
    sample_rate_hz: int = pydantic.Field(gt=0)
    window_samples: int = pydantic.Field(ge=0)  # 0: no windows, the model reads sequences of features
    hop_s: float = pydantic.Field(ge=0)  # 0: as before
    pool: str = "mean"  # of a file's windows: "mean" or "max" of their scores
    short: str
    outputs: dict[str, int]  # "tags" -> number of labels, "targets" -> how many, "embedding" -> dimensions
    targets: tuple[str, ...] = ()  # their names
    features: str = ""  # kind of features that the model reads in place of audio; none: audio
    feature_dims: int = pydantic.Field(0, ge=0)  # numbers in each of their frames
    files: dict[str, str]  # precision -> file; none for features
    mediapipe: str = ""  # file for MediaPipe's AudioClassifier; none: the model has no tags, or reads features
    vocabulary_sha1: str
    code_version: str


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is said of one file: row i of `scores` and `targets` belongs to the window that begins at `starts_s[i]`."""

    duration_s: float
    starts_s: np.ndarray  # (windows,)
    scores: np.ndarray  # (windows, labels)
    labels: tuple[str, ...]  # of the columns of `scores`; none: the model has no tags
    targets: np.ndarray  # (windows, target names)
    target_names: tuple[str, ...]
    pool: str  # "mean" or "max"

    def ranked(self) -> dict[str, float]:
        """Score of every label over the windows, highest first."""
        pooled = self.scores.max(axis=0) if self.pool == "max" else self.scores.mean(axis=0)
        return {self.labels[i]: float(pooled[i]) for i in np.argsort(-pooled, kind="stable")}

    def numbers(self) -> dict[str, float]:
        """Mean of every target over the windows."""
        return dict(zip(self.target_names, self.targets.mean(axis=0).tolist(), strict=True))


class Predictor:
    """A bundle's model, ready to score waveforms and files.

    Args:
        bundle: directory that `python -m export bundle` wrote.
        precision: which of its files, "float32" or "float16".
        threads: of the interpreter `int > 0`.

    Raises:
        InputError: a file of the bundle is missing or does not fit the others, or its model reads features.
    """

    def __init__(self, bundle: Path | str, precision: str = "float32", threads: int | None = None):
        bundle = Path(bundle)
        self.info = read_info(bundle)
        if self.info.features:
            raise InputError(f"{printable(bundle)} must be of a model that hears audio, got one that reads features ({self.info.features})")
        self.labels = Vocabulary.read(bundle / "labels.txt")
        if self.labels.sha1 != self.info.vocabulary_sha1:
            raise InputError(f"{bundle}/labels.txt must have the sha1 {self.info.vocabulary_sha1} of model.json, got {self.labels.sha1}")
        if precision not in self.info.files:
            raise InputError(f"--precision must be one of {', '.join(self.info.files)}, got {precision!r}")
        path = bundle / self.info.files[precision]
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads or os.cpu_count() or 1)
            self._interpreter.allocate_tensors()
            self._run = self._interpreter.get_signature_runner("serving_default")  # finds the outputs by their names
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{path} must be a readable .tflite file: {str(error).splitlines()[0]}") from error
        shapes = {name: tuple(map(int, tensor["shape"])) for tensors in (self._run.get_input_details(), self._run.get_output_details())
                  for name, tensor in tensors.items()}  # fmt: skip
        wanted = {"waveform": (1, self.info.window_samples)} | {name: (1, dims) for name, dims in self.info.outputs.items()}
        if shapes != wanted or self.info.outputs.get("tags", len(self.labels)) != len(self.labels):
            raise InputError(f"{path} must have the tensors {wanted} that model.json and labels.txt tell of, got {shapes}")

    def __call__(self, waveform: np.ndarray, sample_rate_hz: int) -> dict[str, float]:
        """Scores over a whole waveform, or targets of a model that has these alone.

        Args:
            waveform: int16, or float in [-1, 1] `[shape=(samples,) or (samples, channels)]`.
            sample_rate_hz: of the waveform.

        Returns:
            Label to score in [0, 1], highest first; or target to number.

        Raises:
            AudioError: too short, or not finite.
            InputError: the bundle has neither.
        """
        prediction = self.over_time(audio.convert(waveform, sample_rate_hz, self.info.sample_rate_hz))
        return prediction.ranked() or prediction.numbers()

    def file(self, path: Path | str) -> Prediction:
        """Scores and targets of an audio file.

        Raises:
            AudioError: the file cannot be used.
            InputError: the bundle has neither.
        """
        return self.over_time(audio.load(Path(path), self.info.sample_rate_hz))

    def embedding(self, path: Path | str) -> np.ndarray:
        """The embedding of an audio file, the mean of its windows', float32 of unit length `[shape=(dims,)]`.

        Raises:
            AudioError: the file cannot be used.
            InputError: the bundle has no embedding.
        """
        return self._embedded(audio.load(Path(path), self.info.sample_rate_hz))

    def embed(self, waveform: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        """The embedding of a whole waveform; arguments as of a call, result as `embedding`."""
        return self._embedded(audio.convert(waveform, sample_rate_hz, self.info.sample_rate_hz))

    def _embedded(self, waveform: np.ndarray) -> np.ndarray:
        self._needs("embedding")
        _, outputs = self._outputs(waveform)
        mean = outputs["embedding"].mean(axis=0, dtype=np.float64)
        return (mean / max(np.linalg.norm(mean), 1e-12)).astype(np.float32)

    def over_time(self, waveform: np.ndarray) -> Prediction:
        """Scores and targets of every window of int16 mono audio at the model's own rate `[shape=(samples,)]`."""
        if "targets" not in self.info.outputs:
            self._needs("tags")
        starts, outputs = self._outputs(waveform)
        rate_hz, none = self.info.sample_rate_hz, np.empty((len(starts), 0), np.float32)
        labels = self.labels.names if "tags" in outputs else ()
        scores, targets = outputs.get("tags", none), outputs.get("targets", none)
        return Prediction(len(waveform) / rate_hz, starts / rate_hz, scores, labels, targets, self.info.targets, self.info.pool)

    def _outputs(self, waveform: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        window, rate_hz = self.info.window_samples, self.info.sample_rate_hz
        hop = max(1, round(self.info.hop_s * rate_hz))
        starts = audio.window_starts(len(waveform), window, hop)
        return starts, self.score(audio.windows(waveform, window, hop, self.info.short))

    def _needs(self, output: str) -> None:
        if output not in self.info.outputs:
            raise InputError(f"the bundle {self.info.name} must have the output {output}, got {', '.join(self.info.outputs)} ({self.info.task})")

    def score(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """float32 `[shape=(windows, samples)]` to every output: "tags" `[shape=(windows, labels)]`, "targets", "embedding"."""
        outputs = {name: np.empty((len(windows), dims), np.float32) for name, dims in self.info.outputs.items()}
        for row, window in enumerate(windows):
            for name, values in self._run(waveform=window[None]).items():
                outputs[name][row] = values[0]
        return outputs


def read_info(bundle: Path) -> ModelInfo:
    """Reads model.json.

    Raises:
        InputError: the directory is no bundle, or its model.json is malformed.
    """
    path = bundle / MODEL_INFO
    try:
        return ModelInfo.model_validate_json(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{bundle} must be a bundle with {MODEL_INFO}: {error.strerror}; make one with: python -m export bundle RUN") from error
    except ValueError as error:
        raise InputError(f"{path} is malformed: {' '.join(str(error).split())[:200]}") from error


def main(bundle: Path, files: Sequence[Path], *, json_output: bool, over_time: bool, top: int, precision: str) -> int:
    """Prints the scores of files; a file that cannot be used costs one line on stderr, and the exit code in the end.

    Args:
        bundle: directory.
        files: audio files.
        json_output: one JSON document instead of text.
        over_time: scores of every window, as csv (or inside the JSON).
        top: labels to show in text `int > 0`.
        precision: which .tflite.

    Returns:
        Number of files that could not be used.
    """
    if not files:
        raise InputError("predict needs at least one audio file after the bundle")
    with cli.hush():
        predictor = Predictor(bundle, precision)
    document, failed = [], 0
    table = csv.writer(sys.stdout, lineterminator="\n")
    if over_time and not json_output:
        table.writerow(["file", "start_s", *(predictor.labels.names if "tags" in predictor.info.outputs else ()), *predictor.info.targets])
    for path in files:
        try:
            with cli.hush():
                prediction = predictor.file(path)
        except audio.AudioError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        tags, numbers = prediction.ranked(), prediction.numbers()
        starts = np.round(prediction.starts_s, 3).tolist()
        rows = list(zip(starts, np.round(np.hstack([prediction.scores, prediction.targets]).astype(float), 6).tolist(), strict=True))
        if json_output:
            entry = {
                "file": printable(path),
                "duration_s": round(prediction.duration_s, 3),
                "tags": [{"tag": tag, "score": round(score, 6)} for tag, score in tags.items()],
            }
            if numbers:
                entry["targets"] = {name: round(value, 6) for name, value in numbers.items()}
            if over_time:
                names = (*prediction.labels, *prediction.target_names)
                entry["windows"] = [{"start_s": start, "scores": dict(zip(names, row, strict=True))} for start, row in rows]
            document.append(entry)
        elif over_time:
            table.writerows([printable(path), start, *row] for start, row in rows)
        else:
            print(f"{printable(path)}  ({prediction.duration_s:.1f} s)")
            for tag, score in [*list(tags.items())[:top], *numbers.items()]:
                print(f"  {score:.3f}  {tag}")
    if json_output:
        json.dump(document, sys.stdout, indent=1)
        print()
    return failed
