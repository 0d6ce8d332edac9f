"""The first layers of a trained net as pictures: filters, what they make of one window, and where the score pulls at them."""

from __future__ import annotations

import html
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import audio, board, data, evaluate, files, models, page, pictures, run, schema
from tfmusic.config import InputError
from tfmusic.page import Exhibit, Sound

PAGE, BOARD = "layers.html", "layers"


def write(run_directory: Path | str, count: int = 2, track: int = 0) -> Path:
    """Writes layers.html of a run, and the same for TensorBoard.

    Args:
        run_directory: with a best model, and its records where they were.
        count: layers with a kernel, from the input on `int > 0`.
        track: place of a validation track, whose first window is looked at `int >= 0`.

    Returns:
        The page.

    Raises:
        InputError: no run or no best model yet, records that are gone, or no such track.
    """
    directory = Path(run_directory)
    info = run.read(directory)
    manifest = evaluate.records_of(directory, info)
    if count < 1 or not 0 <= track < manifest.split("valid").tracks:
        raise InputError(f"--count must be > 0 and --track in 0..{manifest.split('valid').tracks - 1}, got {count} and {track}")
    frontend, net, _ = models.parts(evaluate.load_best(directory))
    name, sounds, features = _window(info, manifest, frontend, track)
    shown = [Exhibit("Input", f"The first window of the validation track {name}.", figure=_drawn(features), sounds=sounds)]
    for layer, activations, gradient in of_first_layers(net, features, count):
        kernel = layer.kernel.numpy()
        text = f"{layer.name} ({type(layer).__name__}), kernel {' x '.join(map(str, kernel.shape))}: the first {pictures.TILES} outputs at most."
        told = "Mean over the layer's inputs; red is positive, blue negative."
        shown += [
            Exhibit(f"Filters of {layer.name}", f"{text} {told}", figure=pictures.tiles(_planes(kernel), signed=True)),
            Exhibit(
                f"Gradients of {layer.name}",
                f"Of the highest output by the filters, for this window: which of them it hangs on. {told}",
                figure=pictures.tiles(_planes(gradient), signed=True),
            ),
            Exhibit(f"Activations of {layer.name}", "Frames from left to right.", figure=pictures.tiles(_maps(activations))),
        ]
    rate_hz = manifest.layout.sample_rate_hz
    board.write(directory / run.TENSORBOARD / BOARD, shown, rate_hz)
    title = f"First layers of {info.experiment.net.name}"
    files.write_text(directory / PAGE, page.document(title, [f"<h1>{html.escape(title)}</h1>", *(page.section(one, rate_hz) for one in shown)]))
    return directory / PAGE


def of_first_layers(net: keras.Model, features, count: int) -> list[tuple[keras.layers.Layer, np.ndarray, np.ndarray]]:
    """The first layers that have a kernel, what they put out, and the gradient of the net's highest output by the kernel.

    Args:
        net: features to named outputs.
        features: of one window, as the net takes them.
        count: `int > 0`; fewer where the net has fewer.

    Returns:
        (layer, output without the batch, gradient of the kernel's shape) each. The output that counts is the first of logits, targets and embedding
        that the net has.
    """
    found = [layer for layer in net.layers if hasattr(layer, "kernel")][:count]
    outputs = net.output if isinstance(net.output, dict) else {"logits": net.output}
    chosen = next(outputs[name] for name in ("logits", "targets", "embedding") if name in outputs)
    probe = keras.Model(net.input, [*(layer.output for layer in found), chosen])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([layer.kernel.value for layer in found])
        *activations, scores = probe(features, training=False)
        highest = tf.reduce_max(scores)
    gradients = tape.gradient(highest, [layer.kernel.value for layer in found], unconnected_gradients="zero")
    return [(layer, output.numpy()[0], gradient.numpy()) for layer, output, gradient in zip(found, activations, gradients, strict=True)]


def _window(info: run.RunInfo, manifest: schema.Manifest, frontend, track: int):
    """A validation track's name, its first window to listen to, and what the net reads of it."""
    experiment = info.experiment
    reader = data.sequences if experiment.sequences else data.tracks
    found = next(one for place, one in enumerate(reader(info.records, manifest, "valid")) if place == track)
    if experiment.sequences:
        return found.id, (), tf.constant(found.features[None], tf.float32)
    settings = experiment.frontend
    window = audio.windows(found.waveform, settings.window_samples, settings.window_samples, settings.short)[:1]
    heard = (Sound(found.id, found.waveform[: settings.window_samples]),)
    return found.id, heard, frontend(tf.constant(window, tf.float32))


def _drawn(features):
    features = features["features"] if isinstance(features, dict) else features
    values = features.numpy()[0]
    return pictures.spectrograms({"what the net reads": values if values.ndim > 1 else values[:, None]})


def _planes(kernel: np.ndarray) -> np.ndarray:
    """A kernel as pictures `[shape=(outputs, bands, frames)]`: the mean over its inputs, or of one over time alone or a dense layer all inputs."""
    if kernel.ndim == 4:  # (frames, bands, inputs, outputs)
        return kernel.mean(axis=2).transpose(2, 1, 0)
    return kernel.transpose(2, 1, 0) if kernel.ndim == 3 else kernel.T[:, :, None]


def _maps(output: np.ndarray) -> np.ndarray:
    """What a layer puts out as pictures: each channel over frames and bands, or all channels as one over frames."""
    if output.ndim == 3:  # (frames, bands, channels)
        return output.transpose(2, 1, 0)
    return output.T[None] if output.ndim == 2 else output[None, :, None]
