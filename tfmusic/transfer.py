"""What a run takes over from others: a net to begin with, layers that stay, a frozen net among the front ends, a tagger's scores.

Another run is asked first whether it, or one that it came from, was trained on what is scored here (`leaks.check_apart`).
"""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import keras
import numpy as np

from tfmusic import catalogue, cli, data, evaluate, files, leaks, models, pretrained, run, schema
from tfmusic.config import Experiment, InputError
from tfmusic.frontend import LogMel
from tfmusic.labels import Vocabulary


def front_end(
    experiment: Experiment, records: Path, manifest: schema.Manifest
) -> tuple[LogMel | keras.Model | None, models.Shape | dict[str, models.Shape]]:
    """What stands before the net, and the shape of what the net reads."""
    if experiment.sequences:
        leaks.check_apart(manifest.layout.features.run, records, manifest)
        return None, (None, manifest.feature_dims)
    settings = experiment.frontend
    frozen = _frozen(experiment, records, manifest) if experiment.frozen else None
    frontend = models.front_end(settings, frozen, alone=experiment.net.name == "mlp")
    if frozen is None:
        return frontend, frontend.compute_output_shape((None, settings.window_samples))[1:]
    outputs = frontend.output  # its output_shape would be a list, whatever their names
    return frontend, {name: output.shape[1:] for name, output in outputs.items()} if isinstance(outputs, dict) else outputs.shape[1:]


def _frozen(experiment: Experiment, records: Path, manifest: schema.Manifest) -> keras.Model:
    """The trained net that --frozen names: waveform of the experiment's window to a vector.

    Raises:
        InputError: no run, one of another rate or window, or one that was trained on what is scored here.
    """
    published = pretrained.PRETRAINED.get(experiment.frozen)
    leaks.check_apart(experiment.frozen, records, manifest)
    source = published.frontend if published else run.read(Path(experiment.frozen)).experiment.frontend
    for name in ("sample_rate_hz",) if published else ("sample_rate_hz", "window_s"):  # a published net is made anew for the window
        ours, theirs = getattr(experiment.frontend, name), getattr(source, name)
        if ours != theirs:
            raise InputError(f"--frontend.{name.replace('_', '-')} must be that of --frozen {experiment.frozen}, {theirs:g}, got {ours:g}")
    if published:
        return models.vector_of(pretrained.deployed(experiment.frozen, window_s=experiment.frontend.window_s))
    return models.vector_of(evaluate.load_best(Path(experiment.frozen)))


def frozen_sha256(experiment: Experiment) -> str | None:
    """Hash of the best model of the run that --frozen names; none: no run is frozen, or it is gone.

    A run that is resumed must stand on the weights that it began with, and is finished without them: its own best model holds them.
    """
    path = Path(experiment.frozen or "") / run.BEST
    return schema.sha256_of(path) if experiment.frozen and path.is_file() else None


def load_weights(net: keras.Model, experiment: Experiment, records: Path, manifest: schema.Manifest) -> None:
    """Takes over the weights of another run's net, or of a published one; a projection of as many dims, and the logits of the same labels.

    Raises:
        InputError: a run with another front end or net, or one that was trained on what is scored here.
    """
    leaks.check_apart(experiment.init, records, manifest)
    if str(experiment.init) in pretrained.PRETRAINED:
        begun = pretrained.PRETRAINED[str(experiment.init)]
        settings, labels, deployed = {"frontend": begun.frontend, "net": begun.net}, begun.labels, pretrained.deployed(str(experiment.init))
        apart = {"frozen": None, "sequences": None}
    else:
        info = run.read(experiment.init)
        settings, deployed = {"frontend": info.experiment.frontend, "net": info.experiment.net}, evaluate.load_best(experiment.init)
        labels = Vocabulary.read(experiment.init / run.LABELS).names
        apart = {"frozen": info.experiment.frozen, "sequences": info.experiment.sequences}
    for name, theirs in apart.items():
        if getattr(experiment, name) != theirs:
            raise InputError(f"--{name} must be that of --init {experiment.init}, {theirs}, got {getattr(experiment, name)}")
    for field, source in settings.items():
        ours, theirs = getattr(experiment, field).model_dump(), source.model_dump()
        differing = [name for name in ours if ours[name] != theirs[name] and name not in ("dropout", "embedding", "weights")]
        if differing:
            name = differing[0]
            raise InputError(f"--{field}.{name.replace('_', '-')} must be that of --init {experiment.init}, {theirs[name]}, got {ours[name]}")
    _, source, _ = models.parts(deployed)
    available = {layer.name: layer.get_weights() for layer in source.layers if layer.name != "targets_scaled"}
    if "logits" in available and "logits" in net.output:  # by name, whatever their order: a label that is new keeps its fresh weights
        known = [(place, labels.index(label)) for place, label in enumerate(manifest.labels) if label in labels]
        fresh = [label for label in manifest.labels if label not in labels]
        if fresh and not experiment.fit.epochs:
            raise InputError(
                f"--fit.epochs 0 needs labels that --init {experiment.init} knows all of, got {len(fresh)} others such as "
                f"{', '.join(fresh[:3])}; leave them out with `records build --tags`, or train"
            )
        ours, theirs = net.get_layer("logits").get_weights(), available["logits"]
        if ours[0].shape[0] == theirs[0].shape[0]:
            for place, there in known:
                ours[0][:, place], ours[1][place] = theirs[0][:, there], theirs[1][there]
        available["logits"] = ours
    for layer in net.layers:
        weights = available.get(layer.name, [])
        if weights and [weight.shape for weight in weights] == [weight.shape for weight in layer.weights]:
            layer.set_weights(weights)


def freeze(net: keras.Model, last: str) -> None:
    """Keeps the layers up to the one that is named, in the order of `net.summary()`, as they are.

    Raises:
        InputError: no layer of the trunk has the name and weights.
    """
    names = [layer.name for layer in net.layers if layer.weights and layer.name not in models.HEADS]
    if last not in names:
        raise InputError(f"--freeze must be a layer of {net.name}: {', '.join(names)}; got {last!r}")
    for layer in net.layers[: net.layers.index(net.get_layer(last)) + 1]:
        layer.trainable = False


def tagger_scores(tagger: Path, records: Path, manifest: schema.Manifest, tracks: catalogue.Catalogue) -> np.ndarray:
    """Scores of a trained tagger for whole training tracks, put together from their chunks; computed once and kept in the tagger's run.

    Args:
        tagger: its run directory.
        records: whose training tracks are scored.
        manifest: of the records.
        tracks: the catalogue of the records.

    Returns:
        float32 `[shape=(tracks, labels)]`, in the catalogue's order.

    Raises:
        InputError: no tagger, or one of another vocabulary or sample rate.
    """
    info, path = run.read(tagger), tagger / run.SCORES
    if info.vocabulary_sha1 != manifest.vocabulary_sha1:
        raise InputError(f"{tagger} must have the vocabulary of {records}, sha1 {manifest.vocabulary_sha1}, got {info.vocabulary_sha1}")
    data.check_records(manifest, info.experiment)
    leaks.check_apart(tagger, records, manifest)
    model = evaluate.load_best(tagger)
    if "tags" not in model.output:
        raise InputError(f"{tagger} must be the run of a tagger, got one without tags")
    key = f"{manifest.sha1} {schema.sha256_of(tagger / run.BEST)}"
    scores = kept_scores(path, key)
    if scores is not None:
        return scores
    counted = cli.progress(catalogue.tracks(tracks, manifest), total=len(tracks), unit="track", desc=f"scores of {tagger.name}", leave=False)
    scored = evaluate.score_tracks(evaluate.scorer(model), counted, info.experiment.frontend, info.experiment.evaluation)
    files.write_npz(path, key=key, scores=scored.outputs["tags"])
    return scored.outputs["tags"]


def kept_scores(path: Path, key: str) -> np.ndarray | None:
    """The scores of a file, if it is there, whole, and of this key."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with open(path, "rb") as file, np.load(file) as kept:
            if str(kept["key"]) == key:
                return kept["scores"]
    return None
