"""A model as files that ship: SavedModel and TFLite, reloaded and compared with Keras before they get their names.

saved_model/  model_float32.tflite  model_float16.tflite  model_mediapipe.tflite  labels.txt  model.json  card.md
and of a run  experiment.json  metrics.json

The model is a run's best or one of `tfmusic.pretrained`; a net that reads sequences of features has no .tflite.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as flatbuffer
from ai_edge_litert.interpreter import Interpreter

from export import metadata
from export.predict import MODEL_INFO, ModelInfo, Predictor
from tfmusic import cli, data, evaluate, files, models, pretrained, run, tables
from tfmusic.config import VERSION, InputError
from tfmusic.frontend import LogMel
from tfmusic.labels import Vocabulary
from tfmusic.tasks import TASKS

SAVED_MODEL, CARD = "saved_model", "card.md"
RUN_FILES = (run.LABELS, run.EXPERIMENT, run.METRICS)  # copied as they are
FILES = {"float32": "model_float32.tflite", "float16": "model_float16.tflite"}
MEDIAPIPE = "model_mediapipe.tflite"  # float16 as phones are small, and the tags alone: see export.metadata
OUTPUTS = {
    "tags": "one score in [0, 1] for each line of labels.txt",
    "targets": "one number for each of model.json's targets",
    "embedding": "a vector of unit length; the scalar product of two is how alike they sound",
}
TOLERANCES = {SAVED_MODEL: 1e-5, FILES["float32"]: 1e-4, FILES["float16"]: 5e-3, MEDIAPIPE: 5e-3}  # greatest difference of a score from Keras'
POOLS = {"mean": "the mean", "max": "the maximum (of tags; else the mean)"}
Outputs = dict[str, np.ndarray]
Figures = dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a bundle is made of."""

    model: keras.Model  # waveform, or features, to outputs
    info: ModelInfo
    labels: Vocabulary
    origin: str  # card.md: whose model it is
    measured: str  # card.md: what `measure` measures
    measure: Callable[[evaluate.Score, str], tuple[Outputs, Callable[[], Figures]]]  # a file's scores, its name -> outputs, and their figures
    figures: tuple[str, ...] = ()  # that card.md shows
    copied: tuple[Path, ...] = ()
    author: str = ""
    licence: str = ""


def bundle(run_directory: Path | str, out: Path | str | None = None) -> Path:
    """Makes the bundle of a run.

    Args:
        run_directory: of the run; its records must still be there, for every file is scored on their test split.
        out: directory of the bundle, which must not exist; none: `bundle` inside the run.

    Returns:
        The bundle's directory.

    Raises:
        InputError: no finished run, an `out` in use, or a file that does not score as Keras does. Nothing is left under `out` then.
    """
    return _write(lambda: _of_run(Path(run_directory)), Path(out or Path(run_directory) / "bundle"))


def bundle_pretrained(name: str, weights: Path | str | None = None, out: Path | str | None = None) -> Path:
    """Makes the bundle of one of musicnn's published taggers; there are no records, so nothing is measured but the difference from Keras.

    Args:
        name: key of `pretrained.PRETRAINED`.
        weights: directory with the published folders; none: the installed package musicnn.
        out: directory of the bundle, which must not exist; none: NAME.bundle.

    Returns:
        The bundle's directory.

    Raises:
        InputError: an unknown name, no weights, an `out` in use, or a file that does not score as Keras does. Nothing is left under `out` then.

    >>> bundle_pretrained("mtt_musicnn")  # doctest: +SKIP
    """
    return _write(lambda: _of_pretrained(name, weights), Path(out or f"{name}.bundle"))


def _of_run(directory: Path) -> Subject:
    info = run.read(directory)
    manifest = evaluate.records_of(directory, info)
    model = evaluate.load_best(directory)
    missing = [name for name in RUN_FILES if not (directory / name).is_file()]
    if missing:
        raise InputError(f"{directory} has no {missing[0]}; finish it with: python train.py --resume {directory}")
    experiment, train, test = info.experiment, manifest.split("train"), manifest.split("test")
    task, known = TASKS[experiment.task], (experiment, manifest, None)

    def measure(score: evaluate.Score, name: str) -> tuple[Outputs, Callable[[], Figures]]:
        watch = functools.partial(cli.progress, total=test.tracks, unit="track", desc=name, leave=False)
        tracks = evaluate.score_split(score, info.records, manifest, "test", experiment, watch)
        put_out = [output for output in task.outputs if output in tracks.outputs]
        return tracks.outputs, lambda: {key: value for name in put_out for key, value in evaluate.FIGURES[name](tracks, known, 0).items()}

    columns = data.target_columns(manifest, experiment) if "targets" in model.output else []
    windows = {"window_samples": experiment.frontend.window_samples, "hop_s": experiment.evaluation.hop_s}
    if experiment.sequences:
        windows = {"window_samples": 0, "hop_s": 0, "features": experiment.sequences.kind, "feature_dims": manifest.feature_dims}
    return Subject(
        model,
        ModelInfo(
            name=experiment.recipe,
            task=experiment.task,
            sample_rate_hz=manifest.layout.sample_rate_hz,
            short=experiment.frontend.short,
            pool=experiment.evaluation.pool,
            targets=tuple(manifest.targets[column] for column in columns),
            **windows,
            **_files_and_outputs(model, manifest.vocabulary),
        ),
        manifest.vocabulary,
        f"made by tfmusic {VERSION} from records of the dataset reader\n`{manifest.dataset}`: {train.tracks} training clips "
        f"({manifest.hours('train'):.2f} h), {test.tracks} test clips." + "".join(f"\n\n**{line}**" for line in tables.quick(experiment.data.limit)),
        "Every file scored all test tracks by itself; the difference is over their scores, silence, full scale, a constant and noise, of targets in "
        "standard\ndeviations of the training tracks.",
        measure,
        figures=task.watched,
        copied=tuple(directory / name for name in RUN_FILES),
    )


def _of_pretrained(name: str, weights: Path | str | None) -> Subject:
    model = pretrained.deployed(name, weights)
    published = pretrained.PRETRAINED[name]
    labels, settings = Vocabulary(published.labels), published.frontend
    heard = chords(settings.window_samples, settings.sample_rate_hz)
    return Subject(
        model,
        ModelInfo(
            name=name,
            task="tagging",
            sample_rate_hz=settings.sample_rate_hz,
            window_samples=settings.window_samples,
            hop_s=published.hop_s,
            short=settings.short,
            **_files_and_outputs(model, labels),
        ),
        labels,
        f"weights {published.folder} of the package musicnn 0.1.0 (Jordi Pons and\nXavier Serra, ISC licence; ISMIR late-breaking demos 2019), "
        f"put into files by tfmusic {VERSION}. Their authors published\n{published.published} (test ROC-AUC / PR-AUC). Nothing of that was measured "
        "here.",
        "The difference is over chords, silence, full scale, a constant and noise.",
        lambda score, _: (score(heard), dict),
        author="Jordi Pons, Xavier Serra",
        licence="ISC",
    )


def _files_and_outputs(model: keras.Model, labels: Vocabulary) -> dict:
    """What ModelInfo says alike of all models."""
    audio = len(model.inputs[0].shape) == 2
    return {
        "outputs": {name: int(tensor.shape[1]) for name, tensor in model.output.items()},
        "files": FILES if audio else {},
        "mediapipe": MEDIAPIPE if audio and "tags" in model.output else "",
        "vocabulary_sha1": labels.sha1,
        "code_version": VERSION,
    }


def _write(make: Callable[[], Subject], out: Path) -> Path:
    if out.exists():
        raise InputError(f"--out must not exist yet, got {out}")
    subject = make()
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        for path in subject.copied:
            shutil.copy(path, work)
        files.write_text(work / run.LABELS, subject.labels.text())
        files.write_text(work / MODEL_INFO, subject.info.model_dump_json(indent=1))
        _export_saved_model(subject.model, work / SAVED_MODEL, samples=None)
        for name, content in (_lite_files(subject) if subject.info.files else {}).items():
            (work / name).write_bytes(content)
        files.write_text(work / CARD, _card(subject, _checked(work, subject)))
        os.replace(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def _lite_files(subject: Subject) -> dict[str, bytes]:
    """Every .tflite by name; those with tags say what MediaPipe asks for."""
    whole = to_tflite(subject.model)
    half = to_float16(whole, subject.model)
    contents = {FILES["float32"]: whole, FILES["float16"]: half}
    if not subject.info.mediapipe:
        return contents
    about = metadata.About(
        name=subject.info.name,
        description=f"{subject.info.task.capitalize()} with {len(subject.labels)} labels.",
        version=VERSION,
        sample_rate_hz=subject.info.sample_rate_hz,
        outputs=OUTPUTS,
        author=subject.author,
        licence=subject.licence,
    )
    contents[subject.info.mediapipe] = metadata.only(half, "tags")
    return {name: metadata.add(content, about, subject.labels.text()) for name, content in contents.items()}


def to_tflite(model: keras.Model) -> bytes:
    """A deployed model as one float32 .tflite file with a static input [1, samples] and TFLite's own operators only.

    Raises:
        InputError: an operator that TFLite does not have, or more than one subgraph.
    """
    # Only this way round: converting concrete functions of a Keras 3 model leaves its variables unread and scores nan without an error.
    with tempfile.TemporaryDirectory() as directory:
        with _transforms_of_tflite(model):
            _export_saved_model(model, Path(directory), samples=model.inputs[0].shape[1])
        with _quiet():
            content = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=["serving_default"]).convert()
    graph = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    custom = [code.customCode.decode() for code in graph.operatorCodes if code.customCode]
    if custom or len(graph.subgraphs) != 1:
        raise InputError(f"{model.name} must convert to builtin operators in one graph, got {len(graph.subgraphs)} graphs and {custom}")
    return content


@contextlib.contextmanager
def _transforms_of_tflite(model: keras.Model) -> Iterator[None]:
    """TFLite's FFT takes powers of two only, and says so when the file is loaded: all other log-mels, a frozen net's too, are traced as products."""
    others = [layer for layer in models.leaves(model) if isinstance(layer, LogMel) and layer.frontend.n_fft & (layer.frontend.n_fft - 1)]
    before = [layer.transform for layer in others]
    for layer in others:
        layer.transform = "dft"
    try:
        yield
    finally:
        for layer, transform in zip(others, before, strict=True):
            layer.transform = transform


def _nets(model: keras.Model) -> Iterator[str]:
    """Names of the models inside that read features, which hold all the weights."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            if any(isinstance(leaf, LogMel) for leaf in models.leaves(layer)):
                yield from _nets(layer)
            else:
                yield layer.name


def to_float16(content: bytes, model: keras.Model) -> bytes:
    """Casts the weights of convolutions and dense layers to float16, half the size; the front end's constants stay float32.

    A log floor or a mel filter rounded to float16 turns quiet input into -inf; the weights of the net lose nothing that a score shows.
    """
    from ai_edge_quantizer import qtyping, quantizer

    half = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    casting = quantizer.Quantizer(bytearray(content))
    nets = "|".join(dict.fromkeys(_nets(model)))
    for operator in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.DEPTHWISE_CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
        casting.update_quantization_recipe(rf".*/({nets})(_\d+)?/.*", operator, half, algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING)
    with _quiet():
        content = bytes(casting.quantize().quantized_model)
    tensors = flatbuffer.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].tensors
    if not any(tensor.type == flatbuffer.TensorType.FLOAT16 for tensor in tensors):
        raise InputError(f"no weight of {nets} was cast to float16: TFLite's names of its operators must hold the net's")
    return content


def probes(samples: int) -> np.ndarray:
    """Windows that a careless front end fails on: silence, full scale, a constant, loud and faint noise.

    Returns:
        float32 `[shape=(windows, samples)]`.
    """
    square = np.where(np.arange(samples) // 40 % 2, -1.0, 1.0)
    noise = np.random.default_rng(0).uniform(-1, 1, samples)
    return np.stack([np.zeros(samples), square, np.ones(samples), noise, noise * 1e-4]).astype(np.float32)


def chords(samples: int, rate_hz: int) -> np.ndarray:
    """Windows that are something like music: triads on ten roots from A2 up, eight partials a note, struck twice a second.

    Returns:
        float32 `[shape=(10, samples)]`.
    """
    time_s = np.arange(samples) / rate_hz
    decay = np.exp(-4 * (time_s % 0.5))
    roots_hz = 110 * 2 ** (np.arange(10) * 5 / 12)[:, None, None, None]
    notes_hz = roots_hz * 2 ** (np.array([0, 4, 7]) / 12)[:, None, None]
    partials = np.arange(1, 9)[:, None]
    heard = notes_hz * partials < rate_hz / 2
    waves = (heard * np.sin(2 * np.pi * notes_hz * partials * time_s) / partials).sum(axis=(1, 2))
    return (0.8 * decay * waves / np.abs(waves).max(axis=-1, keepdims=True)).astype(np.float32)


def _probes(model: keras.Model) -> np.ndarray:
    """`probes`, or for a model that reads features: no frames but padding, and noise of three levels with padding behind it."""
    shape = model.inputs[0].shape
    if len(shape) == 2:
        return probes(shape[1])
    noise = np.random.default_rng(0).normal(size=(1, 40, shape[2])) * np.array([0, 1, 100, 1e-3])[:, None, None]
    return np.pad(noise, [(0, 0), (0, 8), (0, 0)]).astype(np.float32)


def _scorer(path: Path) -> evaluate.Score:
    """A .tflite file that a Predictor does not read, window by window."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    score = interpreter.get_signature_runner("serving_default")

    def scored(windows: np.ndarray) -> Outputs:
        rows = [score(waveform=window[None]) for window in windows]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return scored


def _checked(work: Path, subject: Subject) -> list[dict]:
    """Scores `probes` and what there is to measure with every file, and refuses one that does not score as Keras does.

    Scores are compared, not figures: on a small split one swapped pair of equal scores moves a figure, and no rank tells a bad file.
    """
    model, windows = subject.model, _probes(subject.model)
    _, net, _ = models.parts(model)
    units = {"targets": net.get_layer("targets").scale} if "targets" in net.output else {}  # a tempo of 120 has other digits than a valence of .5
    keras_score = evaluate.scorer(model)
    of_windows, (of_tracks, _) = keras_score(windows), subject.measure(keras_score, "Keras")
    saved = tf.saved_model.load(str(work / SAVED_MODEL))

    def saved_score(batch: np.ndarray) -> Outputs:
        return {name: values.numpy() for name, values in saved.serve(batch).items()}

    with cli.hush():
        scorers = {SAVED_MODEL: saved_score} | {name: Predictor(work, precision).score for precision, name in subject.info.files.items()}
        if subject.info.mediapipe:
            scorers[subject.info.mediapipe] = _scorer(work / subject.info.mediapipe)
    rows = []
    for name, score in scorers.items():
        (tracks, figures), probed = subject.measure(score, name), score(windows)
        pairs = [
            (found[output] - wanted[output]) / units.get(output, 1.0)
            for found, wanted in ((probed, of_windows), (tracks, of_tracks))
            for output in found
        ]
        difference = float(np.max([np.abs(pair).max() for pair in pairs]))  # Python's max may lose a nan
        if not difference <= TOLERANCES[name]:  # a nan is refused too
            raise InputError(f"{name} must score within {TOLERANCES[name]:g} of Keras, got a difference of {difference:.2g}; nothing was written")
        rows.append({"file": name, "bytes": _bytes(work / name), "difference": difference, **figures()})
    return rows


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size


def _export_saved_model(model: keras.Model, path: Path, samples: int | None) -> None:
    """Any batch of windows or sequences, or for `samples` the static [1, samples] that TFLite needs."""
    heard = model.inputs[0]
    shape = (1, samples) if samples else heard.shape
    with _quiet():
        model.export(path, input_signature=[tf.TensorSpec(shape, tf.float32, name=heard.name)], verbose=False)


@contextlib.contextmanager
def _quiet():
    """Keras, the converter and the quantizer chat on stdout and through absl's logger."""
    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.getLogger("absl").setLevel(level)


def _card(subject: Subject, rows: list[dict]) -> str:
    """card.md: what the model is, what it hears, what it was measured on."""
    info = subject.info
    shown = [name for name in subject.figures if name in rows[0]]
    table = ["| file | size | greatest difference from Keras |" + "".join(f" test {name} |" for name in shown)]
    table.append("|" + "---|" * (3 + len(shown)))
    for row in rows:
        scores = "".join(f" {'none' if row.get(name) is None else format(row[name], '.4f')} |" for name in shown)
        table.append(f"| {row['file']} | {row['bytes'] / 1e6:.2f} MB | {row['difference']:.1e} |{scores}")
    outputs = " ".join(f"`{name}`, {OUTPUTS[name]}." for name in subject.model.output)
    if info.features:
        heard = (
            f"Input: features of the kind {info.features} ({run.EXPERIMENT} says how they are computed), float32 [batch, frames, "
            f"{info.feature_dims}],\nzeros behind the shorter sequences. They are made offline and in no graph, so this bundle takes no audio: it "
            "has no .tflite file,\nand `predict` and `similar` refuse it."
        )
        whole = "A whole file is one sequence."
    else:
        heard = (
            f"Input: mono waveform in [-1, 1] at {info.sample_rate_hz} Hz, {info.window_samples} samples "
            f"({info.window_samples / info.sample_rate_hz:.3g} s); the log-mel is inside."
        )
        whole = f"A whole file is {POOLS[info.pool]} over windows every {info.hop_s:g} s."
    mediapipe = f"""
MediaPipe: labels and sample rate are inside the .tflite files. `{info.mediapipe}` has the tags alone and float16 weights and is the
one for AudioClassifier; it also loads the others, shows their other outputs as heads without names, and refuses allow and deny lists for them.
"""
    return f"""# {info.name}

{info.task.capitalize()} with {len(subject.labels)} labels, {subject.origin}

{heard}
Outputs: {outputs}
{whole}
{mediapipe if info.mediapipe else ""}
{subject.measured}

{chr(10).join(table)}
"""
