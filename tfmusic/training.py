"""One run from start to end: records and experiment to a run directory with the best deployed model, resumable after any kill."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmusic import (
    callbacks,
    catalogue,
    data,
    distribution,
    evaluate,
    files,
    imbalance,
    models,
    optimizers,
    pretrained,
    run,
    sampling,
    schema,
    tasks,
    throughput,
    transfer,
)
from tfmusic.config import Experiment, Fit, InputError
from tfmusic.frontend import LogMel
from tfmusic.parts import WHOLE, Part
from tfmusic.tasks import TASKS

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}  # precision -> Keras dtype policy
CPU_FLAGS = Path("/proc/cpuinfo")
COMPILE = {"auto": "auto", "on": True, "off": False}  # fit.xla -> Keras' jit_compile
NEVER_SURE = 1e-7  # least distance of a probability from 0 and 1 in a validation loss, Keras' own
LESS_IS_BETTER = {"mse"}  # figures that cannot pick the best epoch


def fit(experiment: Experiment, records: Path | str, out: Path | str, watcher: keras.callbacks.Callback | None = None) -> Path:
    """Trains a new run and evaluates its best epoch.

    Args:
        experiment: a recipe's, with or without changes.
        records: directory that `python -m records build` wrote.
        out: run directory; new or empty.
        watcher: of a search, called after every epoch is kept; the run is trained then and not evaluated.

    Returns:
        The run directory: best.keras, metrics.json and the rest of `tfmusic.run`.

    Raises:
        InputError: records that do not fit, or `out` in use.
        KeyboardInterrupt: Ctrl-C; `resume` goes on.

    >>> fit(recipes.tagging(), "data/records", "runs/first")  # doctest: +SKIP
    """
    out, records, team = Path(out), files.location(records), _team(experiment)
    if watcher and team.workers > 1:
        raise InputError("a search trains by itself: TF_CONFIG must not be set")
    team.told(lambda: _begin(experiment, records, out))
    try:
        return resume(out, watcher)
    except (callbacks.Diverged, distribution.WorkerLost):
        raise  # --resume says the same, or goes on
    except InputError:
        if team.chief and not (out / run.STATE).is_file():  # it could not begin: nothing is left that would refuse the same --out
            files.remove_tree(out)
        raise


def _team(experiment: Experiment) -> distribution.Team:
    """Whom this process trains an experiment with; waits for them."""
    team = distribution.join(experiment.fit, alone=bool(distribution.refused(experiment)))
    distribution.check(team, experiment)
    return team


def _begin(experiment: Experiment, records: Path | files.RemotePath, out: Path) -> None:
    manifest = schema.read_manifest(records)
    check(catalogue.limited(records, manifest, experiment.data.limit), experiment)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out must be a new or empty folder, got {out}; to go on with it: python train.py --resume {out}")
    experiment = settled(experiment)
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / run.LABELS, manifest.vocabulary.text())
    info = run.describe(experiment, records, manifest.sha1, manifest.vocabulary_sha1)
    info = info.model_copy(update={"frozen_sha256": transfer.frozen_sha256(experiment)})
    files.write_text(out / run.EXPERIMENT, info.model_dump_json(indent=1))


def fit_or_resume(experiment: Experiment, records: Path | str, out: Path | str, watcher: keras.callbacks.Callback | None = None) -> Path:
    """`fit`, or `resume` where the run directory already has this run; a finished one is left as it is. Arguments and errors as of `fit`."""
    out = Path(out)

    def next_step() -> str | None:
        if not (out / run.EXPERIMENT).is_file():
            return "fit"
        info = run.read(out)
        if info.experiment != settled(experiment) or info.records_sha1 != schema.read_manifest(files.location(records)).sha1:
            raise InputError(f"{out} must be new, or the same run on the same records, got one with other settings or records")
        return None if (out / run.METRICS).is_file() else "resume"

    step = _team(experiment).told(next_step)
    if step == "fit":
        return fit(experiment, records, out, watcher)
    return resume(out, watcher) if step else out


def settled(experiment: Experiment) -> Experiment:
    """What "auto" means here, and other runs and files under paths that do not depend on where one stands."""
    changes: dict[str, object] = {"fit": experiment.fit.model_copy(update={"precision": precision_of(experiment.fit.precision)})}
    if experiment.frozen and experiment.frozen not in pretrained.PRETRAINED:
        changes["frozen"] = str(Path(experiment.frozen).resolve())
    if experiment.init and str(experiment.init) not in pretrained.PRETRAINED:
        changes["init"] = experiment.init.resolve()
    if experiment.net.weights:
        changes["net"] = experiment.net.model_copy(update={"weights": experiment.net.weights.resolve()})
    if folder := experiment.augment.waveform.noise_folder:
        changed = experiment.augment.waveform.model_copy(update={"noise_folder": folder.resolve()})
        changes["augment"] = experiment.augment.model_copy(update={"waveform": changed})
    if experiment.sampling.tagger:
        changes["sampling"] = experiment.sampling.model_copy(update={"tagger": experiment.sampling.tagger.resolve()})
    return experiment.model_copy(update=changes)


def resume(out: Path | str, watcher: keras.callbacks.Callback | None = None) -> Path:
    """Goes on with a run at its last finished epoch, and evaluates it; a finished run is only evaluated.

    Args:
        out: run directory.
        watcher: see `fit`.

    Returns:
        The run directory.

    Raises:
        InputError: no run, or its records are gone or are others.
        KeyboardInterrupt: Ctrl-C; `resume` goes on.
    """
    out = Path(out)
    info = distribution.processes().told(lambda: run.read(out))
    team = _team(info.experiment)
    manifest = evaluate.records_of(out, info)
    check(manifest, info.experiment)
    if transfer.frozen_sha256(info.experiment) not in (info.frozen_sha256, None):
        raise InputError(f"--frozen {info.experiment.frozen} was trained anew and is not the net that {out} began with; begin this run anew, too")
    _train(out, info, manifest, watcher, team)
    if not watcher:
        team.told(lambda: _evaluate(out, info, manifest))
    return out


def _evaluate(out: Path, info: run.RunInfo, manifest: schema.Manifest) -> None:
    score = evaluate.scorer(evaluate.load_best(out))
    valid, test = (evaluate.score_split(score, info.records, manifest, split, info.experiment) for split in ("valid", "test"))
    files.write_npz(out / run.EMBEDDINGS, **evaluate.kept(test, manifest, info.experiment))
    thresholds = evaluate.tuned_thresholds(valid, info.experiment)
    figures = {"validation": evaluate.figures(valid, manifest, info), "test": evaluate.figures(test, manifest, info, thresholds)}
    if thresholds is not None:
        figures["validation"]["thresholds"] = thresholds.tolist()
    files.write_json(out / run.METRICS, figures)


def precision_of(setting: str) -> str:
    """What "auto" means here: bfloat16 on processors that compute in it, float32 on those that would emulate it.

    >>> precision_of("float32")
    'float32'
    """
    if setting != "auto":
        return setting
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capable = all(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= (8, 0) for gpu in gpus)
    else:
        flags = CPU_FLAGS.read_text() if CPU_FLAGS.is_file() else ""
        capable = re.search(r"\b(avx512_bf16|amx_bf16)\b", flags) is not None
    return "bfloat16" if capable else "float32"


def check(manifest: schema.Manifest, experiment: Experiment) -> None:
    """Everything that can be refused before the first step.

    Raises:
        InputError: the records do not fit the experiment.
    """
    data.check_records(manifest, experiment)
    if not experiment.sequences:
        data.steps_per_epoch(manifest, experiment)
    weights = len(experiment.loss.targets_weight)
    if weights > 1 and weights != (learnt := len(data.target_columns(manifest, experiment))):
        raise InputError(f"--loss.targets-weight must be one number, or one for each of the {learnt} targets, got {weights}")
    allowed = [f"val_{name}" for name in tasks.logged(experiment, bool(manifest.families)) if name not in LESS_IS_BETTER]
    if experiment.fit.monitor not in allowed:
        raise InputError(f"--fit.monitor must be one of {', '.join(allowed)} for {experiment.task}, got {experiment.fit.monitor}")
    for name in ("train", "valid", "test"):
        split, outputs = manifest.split(name), TASKS[experiment.task].outputs
        if name != "train" and outputs != ("targets",) and not any(0 < count < split.tracks for count in split.label_counts):
            raise InputError(f"the {name} split must have a label that some of its {split.tracks} tracks have and some have not, got none")
        if "tags" in outputs and experiment.activation == "softmax" and (split.unlabelled or sum(split.label_counts) != split.tracks):
            raise InputError(
                f"the {split.tracks} tracks of the {name} split must have one label each for --loss.name crossentropy, got {split.unlabelled} "
                f"without and {sum(split.label_counts)} labels in all; build the records with --single"
            )


def _train(out: Path, info: run.RunInfo, manifest: schema.Manifest, watcher: keras.callbacks.Callback | None, team: distribution.Team) -> None:
    experiment, task = info.experiment, TASKS[info.experiment.task]
    settings = experiment.fit
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)

    frontend, shape = transfer.front_end(experiment, info.records, manifest)
    classes = len(manifest.labels) if "tags" in task.outputs or experiment.similarity.tag_weight else 0
    targets = _spread(info.records, manifest, experiment) if "targets" in task.outputs else []
    with team.strategy.scope():
        net = models.build(experiment.net, shape, classes, POLICIES[settings.precision], targets)
    # A net that trains in half precision is served by a float32 twin: TFLite converts no other. The twin takes averaged weights, too, and
    # is of one device.
    apart = settings.precision != "float32" or settings.ema > 0 or team.replicas > 1
    twin = models.build(experiment.net, shape, classes, targets=targets) if apart else net
    deployed = models.deploy(frontend, twin, experiment.activation)
    split = manifest.split("train")
    state = callbacks.SaveState(out, writes=team.chief)
    first_epoch, stopped, state.saved, state.history = team.told(lambda: (*state.load(), state.saved, state.history))
    _prepare(net, experiment, info.records, manifest, fresh=state.saved is None)
    if settings.epochs == 0 and team.chief:
        twin.set_weights(net.get_weights())
        callbacks.save_model(deployed, out / run.BEST)  # the fresh weights
    if stopped or first_epoch >= settings.epochs:
        return
    chosen = _choose(out, info, manifest) if task.chooses else None
    with team.strategy.scope():
        trainee, losses = task.trainee(net, experiment, chosen.truth if chosen else None, split.label_counts)
    part = Part(team.worker, team.workers, team.replicas // team.workers)
    stream, steps, clips = _stream(info, manifest, trainee, [*(losses or ())], chosen, frontend, first_epoch, part)
    trunk = [layer.name for layer in net.layers if layer.name not in models.HEADS]
    statistics = _statistics(trainee)
    with team.strategy.scope():
        _compile(trainee, losses, settings, trunk, steps, team.replicas)
    score = evaluate.scorer(deployed)

    def validated() -> evaluate.Scored:
        if twin is not net:
            twin.set_weights(optimizers.averaged(net, trainee.optimizer))
        return evaluate.score_split(score, info.records, manifest, "valid", experiment)

    switches = optimizers.stages(settings)
    begin = {"two_stage": switches[0][-1], "cosine": settings.epochs}  # of others at once
    patience = {"patience": settings.patience, "start_from_epoch": begin.get(settings.schedule, 0)}
    scheduled = {
        "plateau": [callbacks.Plateau(settings.monitor, settings.plateau_factor, settings.plateau_patience)],
        "two_stage": [callbacks.Stages(*switches, settings.monitor)],
    }
    validation = _watcher(experiment, manifest, validated, losses)
    validation.figures = functools.partial(team.told, validation.figures)  # one evaluates, so that all decide alike
    watchers = [
        callbacks.StopAtNaN(clips, steps, settings.steps_per_execution, out),
        distribution.MeanStatistics(team, statistics),
        validation,
        callbacks.LearningRate(),
        *([callbacks.SaveBest(deployed, out / run.BEST, settings.monitor)] if team.chief else []),
        *scheduled.get(settings.schedule, []),
        keras.callbacks.EarlyStopping(settings.monitor, mode="max", **patience),
        *([keras.callbacks.TensorBoard(out / run.TENSORBOARD, histogram_freq=settings.histogram_epochs, write_graph=False)] if team.chief else []),
    ]
    state.callbacks = watchers
    reported = [callbacks.Progress([settings.monitor, *(f"val_{name}" for name in task.watched)])] if team.chief else []
    if team.replicas == 1:  # else TensorFlow fetches ahead behind the clock, which would show no waiting
        speed = throughput.Throughput(out / run.TENSORBOARD / "throughput")
        stream, reported = speed.watched(stream), [*reported, speed]
    with schema.damage_named(info.records), team.together(), distribution.mended(team):
        trainee.fit(
            team.batches(stream),
            initial_epoch=first_epoch,
            epochs=settings.epochs,
            steps_per_epoch=steps,
            callbacks=[
                *watchers,
                state,
                *([watcher] if watcher else []),
                *reported,
            ],
            shuffle=False,  # the stream is shuffled
            verbose=0 if not team.chief else 1 if sys.stdout.isatty() else 2,
        )


def _stream(
    info: run.RunInfo,
    manifest: schema.Manifest,
    trainee: keras.Model,
    learnt: list[str],
    chosen: Chosen | None,
    frontend: LogMel | keras.Model | None,
    first_epoch: int,
    part: Part = WHOLE,
) -> tuple[tf.data.Dataset, int, Callable[[int, list[int]], list[str]]]:
    """What the model is fitted on, epoch after epoch: the inputs of chosen tracks, or features and the truth of outputs; the steps of one; and the
    ids of the clips in some steps of an epoch."""
    experiment, records = info.experiment, info.records
    clips = functools.partial(data.clips_of, records, manifest, experiment)
    if chosen:
        names = [*trainee.input]
        stream = data.chosen_batches(manifest, experiment, chosen.tracks, chosen.rows, chosen.truth, first_epoch, frontend)
        stream = stream.map(lambda batch: ({name: batch[name] for name in names},))
        return stream, data.steps_per_epoch(manifest, experiment), functools.partial(clips, catalogue=chosen.tracks, choose=chosen.rows)
    if experiment.sequences:
        steps = data.sequence_steps(records, manifest, experiment.fit.batch_size)
        stream = data.sequence_epochs(records, manifest, experiment, first_epoch)
    else:
        steps = data.steps_per_epoch(manifest, experiment)
        tracks, rows = _oversampled(records, manifest, experiment) if experiment.data.oversample else (None, None)
        clips = functools.partial(clips, catalogue=tracks, choose=rows)
        stream = data.train_batches(records, manifest, experiment, first_epoch, frontend, tracks, rows, part)
    columns = data.target_columns(manifest, experiment) if "targets" in learnt else []

    def with_truth(features, truth):
        known = {"logits": truth["labels"], "targets": tf.gather(truth["targets"], columns, axis=1) if columns else None}
        return features, {name: known[name] for name in learnt}

    return stream.map(with_truth), steps, clips


def _spread(records: Path, manifest: schema.Manifest, experiment: Experiment) -> list[tuple[float, float]]:
    """Mean and standard deviation of every target that is learnt, over the training tracks that have it.

    Raises:
        InputError: a target that no two training tracks have with different values.
    """
    columns = data.target_columns(manifest, experiment)
    with schema.damage_named(records):
        values = catalogue.read(records, manifest).targets[:, columns].astype(np.float64)
    spread = []
    for column, of_tracks in zip(columns, values.T, strict=True):
        known = of_tracks[~np.isnan(of_tracks)]
        if not len(known) or known.std() == 0:
            raise InputError(f"the target {manifest.targets[column]!r} must have two values or more among the training tracks, got {len({*known})}")
        spread.append((float(known.mean()), float(known.std())))
    return spread


def validation_losses(scored: evaluate.Scored, losses: tasks.Losses, columns: list[int], activation: str) -> dict[str, float]:
    """The losses that are minimised, of whole tracks: of each track's pooled outputs, where training has windows.

    What a loss takes as logits are those of the pooled probabilities. It is convex, so it is less of a mean over windows than the mean of theirs; and
    training has dropout, augmentation, and weights that move: look at how the two change, not at their difference.

    Args:
        scored: validation tracks.
        losses: those of training and their weights, by output.
        columns: of the records' targets that are learnt.
        activation: of the tags, "sigmoid" or "softmax".

    Returns:
        "loss", their weighted sum, and where there are several each by itself, "<output>_loss", as Keras names them.
    """
    found = {}
    for name, (loss, _) in losses.items():
        if name == "targets":
            found[name] = loss(scored.targets[:, columns], scored.outputs["targets"])
        else:
            p = np.clip(scored.outputs["tags"].astype(np.float64), NEVER_SURE, 1 - NEVER_SURE)
            found[name] = loss(scored.y_true.astype(np.float32), np.log(p) if activation == "softmax" else np.log(p) - np.log1p(-p))
    single = {name: float(value) for name, value in found.items()}
    parts = {f"{name}_loss": value for name, value in single.items()} if len(single) > 1 else {}
    return {"loss": sum(losses[name][1] * value for name, value in single.items()), **parts}


def _watcher(
    experiment: Experiment, manifest: schema.Manifest, validated: Callable[[], evaluate.Scored], losses: tasks.Losses | None
) -> callbacks.TrackMetrics:
    """The callback that logs the task's figures of whole validation tracks, and their loss."""
    columns = data.target_columns(manifest, experiment) if "targets" in (losses or ()) else []
    outputs, names = TASKS[experiment.task].outputs, tasks.logged(experiment, bool(manifest.families))

    def embedded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scored = validated()
        return scored.outputs["embedding"], scored.y_true, catalogue.numbers(scored.groups)

    def figures() -> dict[str, float]:
        scored = validated()
        if not scored.finite:
            parts = [f"{name}_loss" for name in losses if len(losses) > 1]
            return dict.fromkeys(["loss", *parts, *names], math.nan)
        found = {name: value for output in outputs for name, value in evaluate.FIGURES[output](scored, (experiment, manifest, None), 0).items()}
        found = {name: math.nan if found[name] is None else found[name] for name in names}
        return validation_losses(scored, losses, columns, experiment.activation) | found

    return callbacks.Retrieval(embedded) if outputs == ("embedding",) else callbacks.TrackMetrics(figures)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What metric learning draws its batches from."""

    tracks: catalogue.Catalogue
    truth: np.ndarray | None  # see sampling.truth
    rows: Callable[[int], np.ndarray]  # epoch -> rows of the catalogue (steps, batch)


def _choose(out: Path, info: run.RunInfo, manifest: schema.Manifest) -> Chosen:
    """The catalogue, and the sampler on it, which is tried once: what it cannot draw is refused before the first step.

    A tagger's scores are copied into the run, so that it goes on with the same ones whatever became of the tagger.
    """
    experiment = info.experiment
    settings, fit = experiment.sampling, experiment.fit
    with schema.damage_named(info.records):
        tracks = catalogue.read(info.records, manifest)
        scores = None
        if settings.tagger and (out / run.STATE).is_file():
            scores = transfer.kept_scores(out / run.SCORES, manifest.sha1)
        elif settings.tagger:
            scores = transfer.tagger_scores(settings.tagger, info.records, manifest, tracks)
            files.write_npz(out / run.SCORES, key=manifest.sha1, scores=scores)
    if settings.tagger and scores is None:
        raise InputError(f"{out / run.SCORES} must hold the tagger's scores that this run began with; it is gone or damaged: begin the run anew")
    pool = sampling.Pool(tracks.labels, catalogue.numbers(tracks.groups), scores)
    steps = data.steps_per_epoch(manifest, experiment)
    rows = functools.partial(sampling.rows, pool, settings, fit.batch_size, steps, fit.seed)
    first = rows(0)
    if experiment.triplets_given:
        print("triplets: " + ", ".join(f"{name} {value:.3f}" for name, value in sampling.describe(pool, first).items()))
    truth = sampling.truth(pool, settings)
    if truth is not None and not _has_pair(truth):
        raise InputError(f"--sampling.positives {settings.positives} must be shared by two training tracks or more, got none that are")
    return Chosen(tracks, truth, rows)


def _oversampled(
    records: Path | files.RemotePath, manifest: schema.Manifest, experiment: Experiment
) -> tuple[catalogue.Catalogue, Callable[[int], np.ndarray]]:
    """The catalogue, and an epoch's rows of it in which rare labels come more often.

    Raises:
        InputError: the labels cannot all have the share that is asked for.
    """
    with schema.damage_named(records):
        tracks = catalogue.read(records, manifest)
    times = imbalance.repeats(tracks.labels, experiment.data.oversample)
    crops = experiment.data.crops_per_clip
    print(f"oversampling: {crops * times.min():.2f} to {crops * times.max():.2f} windows of a track an epoch")
    steps = data.steps_per_epoch(manifest, experiment)
    return tracks, functools.partial(imbalance.rows, times, experiment.fit.batch_size, steps, experiment.fit.seed)


def _prepare(net: keras.Model, experiment: Experiment, records: Path, manifest: schema.Manifest, fresh: bool = True) -> None:
    """What a net begins with, unless a saved state brings all of it, and which of its layers stay."""
    if fresh:
        if experiment.loss.prior_bias:
            _begin_at_priors(net, manifest.split("train"), experiment.activation)
        if experiment.init:
            transfer.load_weights(net, experiment, records, manifest)
        if experiment.net.weights:
            pretrained.load_file(net, experiment.net.weights)
    if experiment.freeze:
        transfer.freeze(net, experiment.freeze)


def _begin_at_priors(net: keras.Model, split: schema.Split, activation: str) -> None:
    """The bias of the logits from the labels' shares; weights of --init that come later replace it for the labels that they know."""
    kernel, _ = net.get_layer("logits").get_weights()
    net.get_layer("logits").set_weights([kernel, imbalance.prior_logits(split.label_counts, split.tracks, activation)])


def _has_pair(truth: np.ndarray) -> bool:
    return bool((truth.sum(axis=0) > 1).any() if truth.ndim == 2 else (np.bincount(truth[truth >= 0]) > 1).any())


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What a run trains with, and no run: to try it out."""

    experiment: Experiment  # settled
    manifest: schema.Manifest
    frontend: LogMel | keras.Model | None
    net: keras.Model  # fresh, or with the weights of --init
    model: keras.Model  # that is fitted, compiled
    stream: tf.data.Dataset  # its batches, epoch after epoch


def rehearse(experiment: Experiment, records: Path | str) -> Rehearsal:
    """Puts together what `fit` would, and writes nothing.

    Args:
        experiment: as of `fit`; its stream ends after `fit.epochs`.
        records: as of `fit`.

    Raises:
        InputError: records that do not fit.
    """
    experiment, records = settled(experiment), files.location(records)
    whole = schema.read_manifest(records)
    manifest = catalogue.limited(records, whole, experiment.data.limit)
    check(manifest, experiment)
    keras.utils.set_random_seed(experiment.fit.seed)
    task, split = TASKS[experiment.task], manifest.split("train")
    frontend, shape = transfer.front_end(experiment, records, manifest)
    classes = len(manifest.labels) if "tags" in task.outputs or experiment.similarity.tag_weight else 0
    targets = _spread(records, manifest, experiment) if "targets" in task.outputs else []
    net = models.build(experiment.net, shape, classes, POLICIES[experiment.fit.precision], targets)
    _prepare(net, experiment, records, manifest)
    info = run.describe(experiment, records, whole.sha1, whole.vocabulary_sha1)
    with tempfile.TemporaryDirectory() as nowhere:  # where a run keeps a tagger's scores
        chosen = _choose(Path(nowhere), info, manifest) if task.chooses else None
    trainee, losses = task.trainee(net, experiment, chosen.truth if chosen else None, split.label_counts)
    stream, steps, _ = _stream(info, manifest, trainee, [*(losses or ())], chosen, frontend, 0)
    trunk = [layer.name for layer in net.layers if layer.name not in models.HEADS]
    _compile(trainee, losses, experiment.fit, trunk, steps)
    return Rehearsal(experiment, manifest, frontend, net, trainee, stream)


def _statistics(trainee: keras.Model) -> list[keras.Variable]:
    """Those of batch normalization."""
    return [one for one in trainee.non_trainable_variables if one.name.startswith("moving_")]


def _compile(trainee: keras.Model, losses: tasks.Losses | None, settings: Fit, trunk: list[str], steps: int, replicas: int = 1) -> None:
    trainee.compile(
        optimizer=optimizers.make(settings, trunk, steps, _statistics(trainee)),
        loss={name: loss for name, (loss, _) in losses.items()} if losses else None,
        loss_weights={name: weight for name, (_, weight) in losses.items()} if losses else None,
        jit_compile=COMPILE[settings.xla] if replicas == 1 else False,  # XLA has no collectives of a strategy
        steps_per_execution=settings.steps_per_execution,
    )
    trainee.optimizer.build(trainee.trainable_variables)
