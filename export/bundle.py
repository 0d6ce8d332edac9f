"""A run's best model as files that ship: SavedModel and TFLite, reloaded and compared with Keras before they get their names.

saved_model/  model_float32.tflite  model_float16.tflite  labels.txt  model.json  experiment.json  metrics.json  card.md
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as flatbuffer

from export.predict import MODEL_INFO, ModelInfo, Predictor
from tfmusic import cli, data, evaluate, files, models, run, schema
from tfmusic.config import VERSION, InputError
from tfmusic.frontend import LogMel
from tfmusic.tasks import TASKS

SAVED_MODEL, CARD = "saved_model", "card.md"
RUN_FILES = (run.LABELS, run.EXPERIMENT, run.METRICS)  # copied as they are
FILES = {"float32": "model_float32.tflite", "float16": "model_float16.tflite"}
OUTPUTS = {
    "tags": "`tags`, one score in [0, 1] for each line of labels.txt.",
    "targets": "`targets`, one number for each of model.json's targets.",
    "embedding": "`embedding`, a vector of unit length; the scalar product of two is how alike they sound.",
}
TOLERANCES = {SAVED_MODEL: 1e-5, FILES["float32"]: 1e-4, FILES["float16"]: 5e-3}  # greatest difference of a score from Keras'


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
    run_directory = Path(run_directory)
    out = Path(out) if out else run_directory / "bundle"
    if out.exists():
        raise InputError(f"--out must not exist yet, got {out}")
    info = run.read(run_directory)
    manifest = evaluate.records_of(run_directory, info)
    model = evaluate.load_best(run_directory)

    missing = [name for name in RUN_FILES if not (run_directory / name).is_file()]
    if missing:
        raise InputError(f"{run_directory} has no {missing[0]}; finish it with: python train.py --resume {run_directory}")

    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        for name in RUN_FILES:
            shutil.copy(run_directory / name, work)
        _export_saved_model(model, work / SAVED_MODEL, samples=None)
        content = to_tflite(model)
        (work / FILES["float32"]).write_bytes(content)
        (work / FILES["float16"]).write_bytes(to_float16(content, model))
        files.write_text(work / MODEL_INFO, _model_info(info, model, manifest).model_dump_json(indent=1))
        files.write_text(work / CARD, _card(info, model, manifest, _checked(work, model, info, manifest)))
        os.replace(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def _model_info(info: run.RunInfo, model: keras.Model, manifest: schema.Manifest) -> ModelInfo:
    frontend = info.experiment.frontend
    columns = data.target_columns(manifest, info.experiment) if "targets" in model.output else []
    return ModelInfo(
        name=info.experiment.recipe,
        task=info.experiment.task,
        sample_rate_hz=frontend.sample_rate_hz,
        window_samples=frontend.window_samples,
        hop_s=info.experiment.evaluation.hop_s,
        short=frontend.short,
        pool=info.experiment.evaluation.pool,
        outputs={name: int(tensor.shape[1]) for name, tensor in model.output.items()},
        targets=tuple(manifest.targets[column] for column in columns),
        files=FILES,
        vocabulary_sha1=info.vocabulary_sha1,
        code_version=VERSION,
    )


def to_tflite(model: keras.Model) -> bytes:
    """A deployed model as one float32 .tflite file with a static input [1, samples] and TFLite's own operators only.

    Raises:
        InputError: an operator that TFLite does not have, or more than one subgraph.
    """
    frontend, net, activation = models.parts(model)
    n_fft = frontend.frontend.n_fft
    if n_fft & (n_fft - 1):  # TFLite's FFT takes powers of two only, and says so when the file is loaded
        model = models.deploy(LogMel(frontend.frontend, transform="dft"), net, activation)
    # Only this way round: converting concrete functions of a Keras 3 model leaves its variables unread and scores nan without an error.
    with tempfile.TemporaryDirectory() as directory:
        _export_saved_model(model, Path(directory), samples=frontend.frontend.window_samples)
        with _quiet():
            content = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=["serving_default"]).convert()
    graph = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    custom = [code.customCode.decode() for code in graph.operatorCodes if code.customCode]
    if custom or len(graph.subgraphs) != 1:
        raise InputError(f"{model.name} must convert to builtin operators in one graph, got {len(graph.subgraphs)} graphs and {custom}")
    return content


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
    _, net, _ = models.parts(model)
    for operator in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.DEPTHWISE_CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
        casting.update_quantization_recipe(rf".*/{net.name}(_\d+)?/.*", operator, half, algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING)
    with _quiet():
        content = bytes(casting.quantize().quantized_model)
    tensors = flatbuffer.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].tensors
    if not any(tensor.type == flatbuffer.TensorType.FLOAT16 for tensor in tensors):
        raise InputError(f"no weight of {net.name} was cast to float16: TFLite's names of its operators must hold the net's")
    return content


def probes(samples: int) -> np.ndarray:
    """Windows that a careless front end fails on: silence, full scale, a constant, loud and faint noise.

    Returns:
        float32 `[shape=(windows, samples)]`.
    """
    square = np.where(np.arange(samples) // 40 % 2, -1.0, 1.0)
    noise = np.random.default_rng(0).uniform(-1, 1, samples)
    return np.stack([np.zeros(samples), square, np.ones(samples), noise, noise * 1e-4]).astype(np.float32)


def _checked(work: Path, model: keras.Model, info: run.RunInfo, manifest: schema.Manifest) -> list[dict]:
    """Scores `probes` and the whole test split with every file, and refuses one that does not score as Keras does.

    Scores are compared, not figures: on a small split one swapped pair of equal scores moves a figure, and no rank tells a bad file.
    """
    experiment, windows = info.experiment, probes(info.experiment.frontend.window_samples)

    def scored(score: evaluate.Score, name: str) -> evaluate.Scored:
        watch = functools.partial(cli.progress, total=manifest.split("test").tracks, unit="track", desc=name, leave=False)
        return evaluate.score_split(score, info.records, manifest, "test", experiment, watch)

    _, net, _ = models.parts(model)
    units = {"targets": net.get_layer("targets").scale} if "targets" in net.output else {}  # a tempo of 120 has other digits than a valence of .5
    keras_score = evaluate.scorer(model)
    of_windows, of_tracks = keras_score(windows), scored(keras_score, "Keras").outputs
    saved = tf.saved_model.load(str(work / SAVED_MODEL))

    def saved_score(batch: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values.numpy() for name, values in saved.serve(batch).items()}

    with cli.hush():
        scorers = {SAVED_MODEL: saved_score} | {FILES[name]: Predictor(work, name).score for name in FILES}
    rows = []
    for name, score in scorers.items():
        tracks, probed = scored(score, name), score(windows)
        pairs = [
            (found[output] - wanted[output]) / units.get(output, 1.0)
            for found, wanted in ((probed, of_windows), (tracks.outputs, of_tracks))
            for output in wanted
        ]
        difference = float(np.max([np.abs(pair).max() for pair in pairs]))  # Python's max may lose a nan
        if not difference <= TOLERANCES[name]:  # a nan is refused too
            raise InputError(f"{name} must score within {TOLERANCES[name]:g} of Keras, got a difference of {difference:.2g}; nothing was written")
        known = (experiment, manifest, None)
        figures = {key: value for output in TASKS[experiment.task].outputs for key, value in evaluate.FIGURES[output](tracks, known, 0).items()}
        rows.append({"file": name, "bytes": _bytes(work / name), "difference": difference, **figures})
    return rows


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size


def _export_saved_model(model: keras.Model, path: Path, samples: int | None) -> None:
    """Any batch of windows, or for `samples` the static [1, samples] that TFLite needs."""
    batch, length = (1, samples) if samples else (None, model.inputs[0].shape[1])
    with _quiet():
        model.export(path, input_signature=[tf.TensorSpec((batch, length), tf.float32, name="waveform")], verbose=False)


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


def _card(info: run.RunInfo, model: keras.Model, manifest: schema.Manifest, rows: list[dict]) -> str:
    """card.md: what the model is, what it hears, what it was measured on."""
    frontend, evaluation = info.experiment.frontend, info.experiment.evaluation
    train, test = manifest.split("train"), manifest.split("test")
    watched = [name for name in TASKS[info.experiment.task].watched if name in rows[0]]
    table = ["| file | size | greatest difference from Keras | " + " | ".join(f"test {name}" for name in watched) + " |"]
    table.append("|" + "---|" * (3 + len(watched)))
    for row in rows:
        scores = " | ".join("none" if row[name] is None else f"{row[name]:.4f}" for name in watched)
        table.append(f"| {row['file']} | {row['bytes'] / 1e6:.2f} MB | {row['difference']:.1e} | {scores} |")
    outputs = " ".join(OUTPUTS[name] for name in model.output)
    return f"""# {info.experiment.recipe}

{info.experiment.task.capitalize()} with {len(manifest.labels)} labels, made by tfmusic {VERSION} from records of the dataset reader
`{manifest.dataset}`: {train.tracks} training clips ({manifest.hours("train"):.2f} h), {test.tracks} test clips.

Input: mono waveform in [-1, 1] at {frontend.sample_rate_hz} Hz, {frontend.window_samples} samples ({frontend.window_s:.3g} s); the log-mel is inside.
Outputs: {outputs} A whole file is the mean over windows every {evaluation.hop_s:g} s.

Every file scored all test tracks by itself; the difference is over their scores, silence, full scale, a constant and noise, of targets in standard
deviations of the training tracks.

{chr(10).join(table)}
"""
