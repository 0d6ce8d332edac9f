"""A search for a recipe's settings with Optuna: trials that are ordinary runs, several processes on one study, and a winner on validation alone.

    study.db       Optuna's storage (SQLite)          search.html    table, importance, history
    trial-0000/    a run directory for each trial     trial-0000.lock held by the process that trains it
    search.lock    held while a trial is chosen or told

A trial that a dead process has left is known by its lock, which the system frees, and gone on with by the next process that looks for work.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import math
import shlex
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfmusic import catalogue, files, recipes, report, run, schema, tables, training, tune_report
from tfmusic.config import Experiment, InputError, Settings
from tfmusic.space import Range, Space, get, points, replaced, rounded, text

if TYPE_CHECKING:
    import optuna

STUDY, LOCK, PAGE = "study.db", "search.lock", "search.html"
STARTUP_TRIALS = 5  # before the pruner has a median, as Optuna's own default
SHELTERED = 5  # one part in so many of the epochs is trained before a trial can be pruned
DRAWS = 20  # of the same settings again, after which there are no new ones
DEATHS = 5  # of the process in the same epoch, after which a trial is given up
FAILURES = 3  # trials in a row that could not be trained, after which the search is
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "RUNNING": "in work"}
SAMPLERS = ("tpe", "grid", "random")


@dataclasses.dataclass(frozen=True)
class Search:
    """What a process needs to take part."""

    experiment: Experiment
    records: Path | files.RemotePath
    out: Path
    space: Space
    trials: int
    sampler: str
    seed: int
    optuna: ModuleType
    storage: optuna.storages.RDBStorage
    study: optuna.Study

    def directory(self, number: int) -> Path:
        return self.out / f"trial-{number:04d}"

    def trial_id(self, number: int) -> int:
        """What the storage calls a trial."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def live(self) -> list[optuna.trial.FrozenTrial]:
        """All trials but those that were never begun."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.name != "FAIL"]

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a trial as they are trained."""
        return {path: rounded(params[path]) if isinstance(one, Range) and not one.whole else params[path] for path, one in self.space.items()}


def search(
    experiment: Experiment,
    records: Path | str,
    out: Path | str,
    space: Space | None = None,
    trials: int = 30,
    sampler: str = "tpe",
    seed: int = 0,
    base: Experiment | None = None,
) -> Path | None:
    """Trains trials until the study has `trials` of them, then evaluates the best one on the test split, which nothing looked at before.

    A trial is as good as its best epoch by `fit.monitor`, on validation. TPE (Bergstra et al., NeurIPS 2011) after ten random trials, all
    settings together; a trial stops after an epoch when its best one so far is below the median of the finished trials at that epoch (Golovin
    et al., KDD 2017). The first trial is the recipe itself, as far as the space holds its settings.

    Args:
        experiment: a recipe's, with or without changes.
        records: directory that `python -m records build` wrote.
        out: folder of the search: new, empty, or of the same search, at work in other processes or not.
        space: `space.read` gives one; none: that of the recipe.
        trials: of the whole study, pruned ones included `int > 0`.
        sampler: "tpe", "random", or "grid": ends and middle of every range, all combinations in a random order.
        seed: of the sampler `int >= 0`; what is drawn depends on it and on the trial's number.
        base: what train.py's flags stand at; none: the recipe. The winner's command names the differences.

    Returns:
        The winner's run directory, or none when other processes still train.

    Raises:
        InputError: no Optuna; `out` of another search; settings or records that cannot be trained.
        KeyboardInterrupt: Ctrl-C; the same call goes on, as it does after kill -9.

    >>> search(recipes.tagging(), "data/records", "runs/search", trials=30)  # doctest: +SKIP
    """
    one = _begin(experiment, files.location(records), Path(out), recipes.space(experiment) if space is None else space, trials, sampler, seed)
    tf.get_logger().setLevel("ERROR")  # it takes the graphs of many trials for one that is traced again and again
    failures = 0
    while (taken := _take(one)) is not None:
        number, lock = taken
        with lock:
            try:
                failed = _train(one, number)
            except KeyboardInterrupt:
                one.storage.set_trial_user_attr(one.trial_id(number), "starts", [])
                raise
        failures = failures + 1 if failed else 0
        with _locked(one.out / LOCK):
            _write(one, base)
        if failures == FAILURES:
            raise InputError(f"{FAILURES} trials in a row could not be trained; the last one: {failed}")
    with _locked(one.out / LOCK):
        return _finish(one, base)


def _begin(experiment: Experiment, records: Path, out: Path, space: Space, trials: int, sampler: str, seed: int) -> Search:
    """Opens the study, or makes it."""
    if trials < 1 or seed < 0 or sampler not in SAMPLERS:
        raise InputError(f"--trials must be > 0, --seed >= 0 and --sampler one of {', '.join(SAMPLERS)}, got {trials}, {seed} and {sampler}")
    if not experiment.fit.epochs:
        raise InputError("--epochs must be > 0 for a search, got 0")
    settings = {path: one[0] for path, one in space.items() if not isinstance(one, Range) and len(one) == 1}
    experiment, space = replaced(experiment, settings), {path: one for path, one in space.items() if path not in settings}
    if not space:
        raise InputError("--space must leave a field to search, got none")
    package = library()
    manifest = schema.read_manifest(records)
    training.check(catalogue.limited(records, manifest, experiment.data.limit), experiment)
    if out.exists() and not (out / STUDY).is_file() and any(path.name != LOCK for path in out.iterdir()):
        raise InputError(f"--out must be a new or empty folder, or that of a search, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    package.logging.set_verbosity(package.logging.WARNING)
    with _locked(out / LOCK), _database(out):
        connect = functools.partial(
            sqlite3.connect, out / STUDY, timeout=60, check_same_thread=False
        )  # of any name: a URL has %, ? and {} for itself
        storage = package.storages.RDBStorage(f"sqlite:///{STUDY}", engine_kwargs={"creator": connect})
        pruner = package.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=experiment.fit.epochs // SHELTERED)
        study = package.create_study(
            study_name=experiment.recipe, storage=storage, pruner=pruner, direction="maximize", load_if_exists=True,
            sampler=package.samplers.RandomSampler(seed=seed),
        )  # fmt: skip
        about = {"experiment": experiment.model_dump(mode="json"), "space": text(space), "records": manifest.sha1}
        for name, value in about.items():
            if study.user_attrs.get(name, value) != value:
                raise InputError(f"{out} must be new, or of the same search, got one with another {name}")
            study.set_user_attr(name, value)
    return Search(experiment, records, out, space, trials, sampler, seed, package, storage, study)


def library() -> ModuleType:
    """Optuna.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError(f"tune needs Optuna: pip install -r requirements/tune.txt ({error})") from error
    return optuna


def _take(one: Search) -> tuple[int, IO] | None:
    """A trial to train, one that a dead process left before a new one, and its lock; none: enough are finished or in work."""
    with _locked(one.out / LOCK), _database(one.out):
        for trial in one.study.get_trials(deepcopy=False, states=(one.optuna.trial.TrialState.RUNNING,)):
            lock = _lock(one.directory(trial.number).with_suffix(".lock"))
            if lock and trial.params.keys() == one.space.keys():
                print(f"trial {trial.number}: goes on, its process has ended")
                return trial.number, lock
            if lock:  # its process died while it drew: nothing was begun
                one.study.tell(trial.number, state=one.optuna.trial.TrialState.FAIL)
        number = _draw(one)
        return None if number is None else (number, _lock(one.directory(number).with_suffix(".lock")))


def _draw(one: Search) -> int | None:
    """A new trial whose settings none before had; none: there are enough, or no others."""
    tried = [one.values(trial.params) for trial in one.live() if trial.params.keys() == one.space.keys()]
    if len(tried) >= one.trials:
        return None
    left = [point for point in points(one.space) if point not in tried] if one.sampler == "grid" else []
    if one.sampler == "grid" and not left:
        return None
    planned = None
    if left:
        planned = left[np.random.default_rng([one.seed, len(tried)]).integers(len(left))]
    elif not tried:
        own = {path: get(one.experiment, path) for path in one.space}
        planned = {path: value for path, value in own.items() if value in one.space[path]}
    if planned and not one.study.get_trials(deepcopy=False, states=(one.optuna.trial.TrialState.WAITING,)):  # a kill may have come before `ask`
        one.study.enqueue_trial(planned)
    distributions = {path: _distribution(one.optuna, entry) for path, entry in one.space.items()}
    for _ in range(DRAWS):
        number = len(one.study.get_trials(deepcopy=False))
        # Seeded by the trial and not once: two processes would draw the same numbers one after the other.
        seed = int(np.random.SeedSequence([one.seed, number]).generate_state(1)[0])
        kind = one.optuna.samplers.TPESampler if one.sampler == "tpe" else one.optuna.samplers.RandomSampler
        one.study.sampler = kind(seed=seed)
        trial = one.study.ask(distributions)
        if one.values(trial.params) not in tried:
            return trial.number
        one.study.tell(trial, state=one.optuna.trial.TrialState.FAIL)
    print(f"no settings that were not tried in {DRAWS} draws: the search ends")
    return None


def _distribution(library: ModuleType, entry: Range | tuple) -> optuna.distributions.BaseDistribution:
    if not isinstance(entry, Range):
        return library.distributions.CategoricalDistribution(entry)
    kind = library.distributions.IntDistribution if entry.whole else library.distributions.FloatDistribution
    return kind(entry.low, entry.high, log=entry.log)


class _Watcher(keras.callbacks.Callback):
    """Tells the study of every epoch, and stops a trial that it prunes."""

    def __init__(self, one: Search, number: int):
        super().__init__()
        self.one, self.number, self.pruned = one, number, False

    def on_epoch_end(self, epoch, logs=None):
        with _database(self.one.out):
            _tell_epochs(self.one, self.number)
            trial = self.one.storage.get_trial(self.one.trial_id(self.number))
            self.pruned = bool(self.one.study.pruner.prune(self.one.study, trial))  # numpy's own
        self.model.stop_training = self.model.stop_training or self.pruned


def _train(one: Search, number: int) -> str:
    """Trains a trial to its end, and tells the study; returns what went wrong, or nothing."""
    directory, states = one.directory(number), one.optuna.trial.TrialState
    with _database(one.out):
        trial = one.storage.get_trial(one.trial_id(number))
        starts = [*trial.user_attrs.get("starts", []), len(_history(directory))]
        one.storage.set_trial_user_attr(one.trial_id(number), "starts", starts)
    values, failed, watcher = one.values(trial.params), "", _Watcher(one, number)
    print(f"trial {number} of {one.trials}: {directory}, {_settings(values)}")
    if directory.exists() and not (directory / run.EXPERIMENT).is_file():
        files.remove_tree(directory)  # a kill came before the run had begun
    keras.backend.clear_session()
    try:
        if starts[-DEATHS - 1 :] == [starts[-1]] * (DEATHS + 1):
            raise InputError(f"its process died {DEATHS} times in epoch {starts[-1] + 1}")
        training.fit_or_resume(replaced(one.experiment, values), one.records, directory, watcher)
    except InputError as error:
        failed = str(error)
    except tf.errors.ResourceExhaustedError:
        failed = "out of memory"
    with _locked(one.out / LOCK), _database(one.out):
        best = _tell_epochs(one, number)
        if best is None and not failed:
            failed = f"no finite {one.experiment.fit.monitor}"
        if failed:
            one.storage.set_trial_user_attr(one.trial_id(number), "failed", failed)
        finished = not (failed or watcher.pruned)
        # A failed trial counts as one that was pruned before its first epoch: to the sampler, the worst there is.
        one.study.tell(number, best if finished else None, state=states.COMPLETE if finished else states.PRUNED)
        directory.with_suffix(".lock").unlink(missing_ok=True)
        leader = _best(one)
    standing = f"best {leader.value:.4f} (trial {leader.number})" if leader else "none finished yet"
    outcome = f"failed: {failed}" if failed else f"{one.experiment.fit.monitor} {best:.4f}{' (pruned)' * watcher.pruned}"
    print(f"trial {number}: {outcome}; {standing}")
    return failed


def _history(directory: Path) -> list[dict[str, float]]:
    """The logs of a trial's epochs."""
    path = directory / run.HISTORY
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _tell_epochs(one: Search, number: int) -> float | None:
    """Brings the study up to a trial's last epoch: a kill may have come between the two; returns the best finite figure."""
    trial_id, monitor = one.trial_id(number), one.experiment.fit.monitor
    told = one.storage.get_trial(trial_id).intermediate_values
    found = {int(row["epoch"]): row[monitor] for row in _history(one.directory(number)) if math.isfinite(row[monitor])}
    for epoch, value in found.items():
        if epoch not in told:
            one.storage.set_trial_intermediate_value(trial_id, epoch, value)
    return max(found.values(), default=None)


def _best(one: Search) -> optuna.trial.FrozenTrial | None:
    """The first of the greatest value, of trials that were trained to their end."""
    finished = [trial for trial in one.live() if trial.state.name == "COMPLETE"]
    return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)


def _finish(one: Search, base: Experiment | None) -> Path | None:
    """Evaluates the winner, when no trial is in work any more."""
    with _database(one.out):
        at_work = [trial.number for trial in one.live() if trial.state.name == "RUNNING"]
        best = _best(one)
    if at_work:
        print(f"{len(at_work)} trials are in work in other processes; the last one ends the search. So far: {one.out / PAGE}")
        return None
    if best is None:
        raise InputError(f"no trial of {one.out} was trained to its end; widen --space or begin another search")
    directory = one.directory(best.number)
    if not (directory / run.METRICS).is_file():
        training.resume(directory)
    print(report.write(directory))
    _write(one, base)
    print(
        f"\nbest of {len(one.live())} trials: {directory}, {_settings(one.values(best.params))}\nsearch: {one.out / PAGE}\nagain:\n"
        f"  {command(run.read(directory), base)}\nbundle:\n  python -m export bundle {shlex.quote(str(directory))}"
    )
    return directory


def _write(one: Search, base: Experiment | None) -> None:
    """The page, as far as the search has come."""
    with _database(one.out):
        trials, best = one.live(), _best(one)
        weights = importance(one.study)
    rows = [
        tune_report.Trial(
            trial.number,
            STATES[trial.state.name] if "failed" not in trial.user_attrs else f"failed: {trial.user_attrs['failed']}",
            max(trial.intermediate_values.values(), default=None),
            len(trial.intermediate_values),
            one.values(trial.params),
        )
        for trial in trials
        if trial.params.keys() == one.space.keys()
    ]
    directory = one.directory(best.number) if best else None
    again = command(run.read(directory), base) if best else ""
    figures = run.figures(directory) if best and (directory / run.METRICS).is_file() else {}
    names = tables.of_task(one.experiment.task)
    page = tune_report.page_of(one.experiment, text(one.space), rows, best and best.number, weights, again, tables.of_figures(figures, names))
    files.write_text(one.out / PAGE, page)


def importance(study: optuna.Study) -> dict[str, float]:
    """How much each field decides whether a trial is among the best quarter: PED-ANOVA (Watanabe et al., IJCAI 2023), shares of one.

    A pruned trial counts with its best figure until then: most are pruned, and what they were below says as much. Empty before there are eight
    trials with a figure, or when no field is told from another.
    """
    import optuna

    known = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and (trial.intermediate_values or trial.values)]
    if len(known) < tune_report.TRIALS_FOR_IMPORTANCE:
        return {}
    finished = optuna.create_study(direction="maximize")
    for trial in known:
        value = max(trial.intermediate_values.values(), default=None)
        finished.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=trial.value if value is None else value))
    found = optuna.importance.get_param_importances(finished, evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25))
    return found if math.isfinite(sum(found.values())) and sum(found.values()) else {}


def command(info: run.RunInfo, base: Experiment | None = None) -> str:
    """The command line that trains a run again: its recipe, records, and every setting that is not what the flags stand at.

    Args:
        info: of the run.
        base: what train.py's flags stand at; none: the recipe.

    >>> from tfmusic.run import describe
    >>> command(describe(replaced(recipes.tagging(), {"net.dropout": 0.4}), Path("/data"), "", ""))
    'python train.py --recipe tagging --records /data --net.dropout 0.4'
    """
    base = base or recipes.RECIPES[info.experiment.recipe]()
    if info.experiment.sequences and not base.sequences:  # as train.py's flags do, see `train.defaults`
        base = base.hearing("sequences")
    elif info.experiment.net.name == "mlp" and base.net.name != "mlp":
        base = base.hearing("a frozen vector")
    flags = [*_flags(info.experiment, base, "")]
    return shlex.join(["python", "train.py", "--recipe", info.experiment.recipe, "--records", str(info.records), *flags])


def _flags(settings: Settings, base: Settings | None, prefix: str) -> Iterator[str]:
    for name, value in settings:
        other, flag = getattr(base, name, None), f"{prefix}{name}".replace("_", "-")
        if isinstance(value, Settings):
            yield from _flags(value, other, f"{prefix}{name}.")
        elif value != other and isinstance(value, bool):
            yield f"--{flag}" if value else f"--{prefix.replace('_', '-')}no-{name.replace('_', '-')}"
        elif value != other:
            yield from (f"--{flag}", *(map(str, value) if isinstance(value, tuple) else [str(value)]))


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {value}" for path, value in values.items())


@contextlib.contextmanager
def _database(out: Path) -> Iterator[None]:
    """What goes wrong in the study's file as one line: no place, no right to write, no database."""
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        raise InputError(f"{out / STUDY} cannot be used: {str(getattr(cause, 'orig', cause)).splitlines()[0]}; the same command goes on") from error


def _lock(path: Path, wait: bool = False) -> IO | None:
    """A file that this process alone holds until it is closed, or the process ends; none: another one does."""
    import fcntl

    file = open(path, "w")  # noqa: SIM115 (it is what is returned)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        raise InputError(f"--out must be on a file system with locks, got {path.parent}: {error.strerror}") from error
    return file


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits until no other process holds the file."""
    file = _lock(path, wait=True)
    with file:
        yield
