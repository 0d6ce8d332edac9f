"""What every command line shares: flags from typed functions, one line for a mistake, an exit code, and quiet libraries."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pydantic
import tyro

from tfmusic.config import InputError

USAGE, FAILED, INTERRUPTED = 2, 1, 130  # exit codes
NOISE = re.compile(
    rb"WARNING: All log messages before absl|[IWE]0000 .*(port|cudart_stub|cuda_platform|cpu_feature_guard)\.cc|To enable the f|"
    rb"INFO: (Created|Initialized) TensorFlow Lite|Note: (Illegal Audio-MPEG|Trying to resync|Hit end of|Skipped)|Warning: Xing|.*libmpg123"
)


def parse(target: Any, *, prog: str, cli: Callable[..., Any] = tyro.cli, **options: Any) -> Any:
    """Flags of a typed settings class; a wrong one ends the program with one line on stderr.

    Args:
        target: what `cli` takes.
        prog: the command as the user types it.
        cli: tyro's entry.
        **options: its further arguments.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return cli(target, prog=prog, **options)
    except pydantic.ValidationError as error:  # of a class whose flags have no prefix; tyro lets it through
        first = error.errors()[0]
        flag = "".join(f"--{name}".replace("_", "-") + ": " for name in first["loc"][-1:])
        message = flag + first["msg"].removeprefix("Value error, ")
        if flag and ", got " not in message:
            message += f", got {first['input']}"
    except SystemExit as stop:
        if not stop.code:
            raise
        message = _one_line(box.getvalue())
    print(f"error: {message} ({prog} --help)", file=sys.stderr)
    sys.exit(USAGE)


def dispatch(commands: dict[str, Any], *, prog: str, args: Sequence[str] | None = None) -> None:
    """Calls the one of several typed functions that the command line names, with its flags.

    Args:
        commands: name to function, or to a further table of such.
        prog: the command as the user types it.
        args: what follows it. Default: of this process.
    """
    args = sys.argv[1:] if args is None else args
    group = commands.get(args[0]) if args else None
    if isinstance(group, dict):
        return dispatch(group, prog=f"{prog} {args[0]}", args=args[1:])

    def deferred(command):  # parse holds stderr back, so the command itself must run after it
        return functools.wraps(command)(lambda *arguments, **flags: functools.partial(command, *arguments, **flags))

    def listed(group):  # only for the help of the level above
        def line(): ...

        line.__doc__ = " ".join(f"{name}: {command.__doc__.splitlines()[0]}" for name, command in group.items())
        return line

    functions = {name: listed(command) if isinstance(command, dict) else deferred(command) for name, command in commands.items()}
    parse(functions, prog=prog, cli=tyro.extras.subcommand_cli_from_dict, args=args)()


def _one_line(box: str) -> str:
    """The sentence inside tyro's box: without frame, value dumps, links and the pointer to --help."""
    rows = [line.strip("│╭╰─╮╯ ") for line in box.splitlines()[1:]]
    text = " ".join(row for row in rows if row)
    text = re.sub(r" For full helptext.*| Argument helptext:.*", "", text)
    invalid = re.match(
        r"Error parsing (?:experiment\.)?(?P<group>\S+): \d+ validation errors? for \w+ (?P<complaint>.*?) "
        r"\[type=\w+, input_value=(?P<value>.*?), input_type=",
        text,
    )
    if invalid:  # pydantic's: a field and "Input should be ...", or the sentence of one of our validators
        field, _, rule = invalid["complaint"].partition(" Input ")
        if rule:
            return f"--{invalid['group']}.{field.replace('_', '-')} {rule}, got {invalid['value']}"
        return f"--{invalid['group']}: {field.removeprefix('Value error, ')}"
    return text.replace("Perhaps you meant:", "- perhaps you meant")


@contextlib.contextmanager
def hush() -> Iterator[None]:
    """Drops known lines that TensorFlow, LiteRT and libmpg123 write to stderr from C; TF_CPP_MIN_LOG_LEVEL=0 shows them.

    They come whatever the log level, past Python's sys.stderr, so the file descriptor is held back and all other lines follow afterwards:
    not while another thread writes.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") == "0":
        yield
        return
    sys.stderr.flush()
    outer = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(outer, 2)
            os.close(outer)
            held.seek(0)
            for line in held:
                if not NOISE.match(line):
                    os.write(2, line)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_tensorflow() -> None:
    """Imports TensorFlow and finds its devices, without the chatter."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with hush():
        import tensorflow as tf

        tf.config.list_physical_devices()


def progress(iterable: Any = None, **options: Any) -> Any:
    """A bar with an estimate on a terminal, a line every half minute in a log; arguments of `tqdm`."""
    from tqdm import tqdm

    return tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 30, dynamic_ncols=True, **options)


def main(program: Callable[[], Any]) -> None:
    """Runs `program`; a user's mistake, a full disk or Ctrl-C becomes one line and an exit code, anything else a traceback."""
    try:
        program()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        print(f"\ninterrupted; {stop}" if str(stop) else "\ninterrupted", file=sys.stderr)
        if "tensorflow" in sys.modules:  # its threads may still be at work, and crash an interpreter that is taken down around them
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, `| head` for instance
        sys.exit(FAILED)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: {error.filename or 'output'}: {error.strerror}")
