"""The same shards on Apache Beam: a pipeline over the names of the shards, each written by `build.write_shard` wherever the runner puts it.

Audio and output must lie where every worker reaches them under the same path: a bucket or a shared mount. Beam counts clips, quarantined
files, shards and seconds of audio as metrics of the namespace `tfmusic`. What is finished when a job dies stays finished: the same command
goes on.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult

from records import build
from tfmusic import cli, files
from tfmusic.config import InputError
from tfmusic.files import RemotePath

NAMESPACE, LOG = "tfmusic", "beam.log"
LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner", "PrismRunner")
SERVED = ("PortableRunner", "FlinkRunner", "SparkRunner")  # have a job server, which may know more options
POLL_S = 1.0  # between looks at what is finished


class WriteShard(beam.DoFn):
    """Name of a shard to itself, written, with counters."""

    def __init__(self, out: str):
        self.out = out
        names = ("clips", "quarantined", "shards", "seconds_of_audio")
        self.clips, self.quarantined, self.shards, self.seconds = (Metrics.counter(NAMESPACE, name) for name in names)

    def setup(self) -> None:
        self.plan = build.read_plan(files.location(self.out))

    def process(self, name: str):
        note = build.write_shard(files.location(self.out), name, self.plan, self.clips.inc)
        self.quarantined.inc(len(note["quarantine"]))
        self.shards.inc()
        self.seconds.inc(round(note["counts"]["samples"] / self.plan.layout.sample_rate_hz))
        yield name


def run(out: Path | RemotePath, names: list[str], options: str, workers: int) -> dict[str, int]:
    """Writes shards on Beam and waits for the job.

    Args:
        out: directory of the build, with its plan.
        names: of the shards.
        options: of the Beam runner, as on a command line; none: the DirectRunner with `workers` processes.
        workers: of the DirectRunner where the options do not say.

    Returns:
        The counters.

    Raises:
        InputError: the options are none that Beam knows, or the job failed.
        KeyboardInterrupt: Ctrl-C; the finished shards are kept.
    """
    (out / LOG).unlink(missing_ok=True)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # argparse prints its usage, and then leaves
            settings = _settings(options, workers)
            unknown = _unknown(settings)
            pipeline = beam.Pipeline(options=settings)
    except SystemExit as error:
        raise InputError(f"--beam-options must have values that Beam takes, got {options}") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"the Beam job could not be started: {' '.join(str(error).split())[:300]}") from error
    if unknown and settings.view_as(StandardOptions).runner not in SERVED:
        raise InputError(f"--beam-options must be flags that Beam knows, got {', '.join(f'--{name}' for name in sorted(unknown))}")
    _ = pipeline | beam.Create(names, reshuffle=True) | beam.ParDo(WriteShard(str(out.absolute())))
    local, result = settings.view_as(StandardOptions).runner in LOCAL_RUNNERS, None
    try:
        with _progress(out, names), _calm(out) if local else contextlib.nullcontext():
            result = pipeline.run()
            state = result.wait_until_finish()
    except KeyboardInterrupt:
        stopped = _cancelled(result) or local
        more = "" if stopped else "; the job may still run: cancel it where it runs first"
        raise KeyboardInterrupt(f"the finished shards are kept, the same command goes on{more}") from None
    except Exception as error:  # of any class, with the worker's traceback as its text
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        log = f"; {out / LOG} has the rest" if local and isinstance(out, Path) else ""
        raise InputError(f"the Beam job failed, its finished shards are kept: {lines[-1].strip()[:300]}{log}") from error
    if state not in (None, "DONE"):
        raise InputError(f"the Beam job ended as {state}, its finished shards are kept")
    counters = {found.key.metric.name: found.result for found in result.metrics().query()["counters"] if found.key.metric.namespace == NAMESPACE}
    print("beam:", ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in sorted(counters.items())))
    return counters


@contextlib.contextmanager
def _progress(out: Path | RemotePath, names: list[str]) -> Iterator[None]:
    """A bar over shards, from the notes that workers leave: that works for every runner."""
    stop = threading.Event()
    with os.fdopen(os.dup(2), "w") as terminal, cli.progress(total=len(names), unit="shard", desc="beam", file=terminal) as bar:

        def watch() -> None:
            while not stop.wait(POLL_S):
                with contextlib.suppress(OSError):
                    bar.update(len(build.noted(out).intersection(names)) - bar.n)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


@contextlib.contextmanager
def _calm(out: Path | RemotePath) -> Iterator[None]:
    """Local runners tell a failure or Ctrl-C many times, from logs, threads and worker processes, each with a traceback; the exception that
    `run` catches suffices. Worker processes inherit the file descriptor, so that is what is turned away, into a log when something fails."""
    logger, hook = logging.getLogger("apache_beam"), threading.excepthook
    level, outer = logger.level, os.dup(2)
    logger.setLevel(logging.CRITICAL)
    threading.excepthook = lambda _: None
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception as error:
            held.seek(0)
            if isinstance(out, Path):
                files.write_text(out / LOG, held.read().decode("utf-8", "replace") or f"{error}\n")
            raise
        finally:
            os.dup2(outer, 2)
            os.close(outer)
            logger.setLevel(level)
            threading.excepthook = hook


def _cancelled(result: PipelineResult | None) -> bool:
    """Stops a job that was begun; whether that worked."""
    try:
        return result is not None and result.cancel() is not None
    except Exception as error:  # a runner that cannot, or that cannot be reached any more
        logging.getLogger("apache_beam").warning("not cancelled: %s", error)
        return False


def _unknown(settings: PipelineOptions) -> set[str]:
    """Names of the flags that no class of Beam's options declares."""
    return {*settings.get_all_options(retain_unknown_options=True)} - {*settings.get_all_options()}


def _settings(options: str, workers: int) -> PipelineOptions:
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise InputError(f"--beam-options must be one string of flags, got {options!r}: {error}") from error
    stray = [word for word in words if not word.startswith("-")]
    if stray:
        raise InputError(f"--beam-options must be flags such as --runner=FlinkRunner, got {stray[0]!r}")
    if "--default_sdk_harness_log_level" not in options:
        words.append("--default_sdk_harness_log_level=WARNING")
    if "--runner" not in options:
        words.append("--runner=DirectRunner")
    if PipelineOptions(words).view_as(StandardOptions).runner in LOCAL_RUNNERS:
        defaults = {"--direct_num_workers": workers, "--direct_running_mode": "multi_processing"}
        words += [f"{flag}={value}" for flag, value in defaults.items() if flag not in options]
    return PipelineOptions(words)
