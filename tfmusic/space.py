"""What a search may change: ranges and choices for fields of an experiment, as text, as points of a grid, as experiments. No TensorFlow, no Optuna.

A field is named as its flag is, `fit.learning_rate`; `recipes.space` has those of every recipe.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence

import pydantic

from tfmusic.config import Experiment, InputError, Settings

GRID_POINTS = 3  # of a range, both ends among them
DIGITS = 3  # of a number that is drawn: what is printed is what was tried
PLAIN = (str, int, float, bool, type(None))  # what a choice may be


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included; whole ones where both ends are.

    Args:
        low: least.
        high: greatest, above `low`.
        log: equally likely in every octave; `low > 0`.

    >>> str(Range(1e-4, 1e-2, log=True)), str(Range(0.0, 0.5))
    ('log:0.0001..0.01', '0..0.5')
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self):
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"a range must be LOW..HIGH with LOW < HIGH, got {self.low:g}..{self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range must begin above 0, got {self.low:g}..{self.high:g}")

    def __str__(self) -> str:
        return f"{'log:' * self.log}{self.low:g}..{self.high:g}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def points(self, count: int = GRID_POINTS) -> list[float]:
        """So many values of it at equal distances, on its own scale.

        >>> Range(1e-4, 1e-2, log=True).points(3)
        [0.0001, 0.001, 0.01]
        """
        shares = [place / (count - 1) for place in range(count)]
        found = [self.low * (self.high / self.low) ** share if self.log else self.low + (self.high - self.low) * share for share in shares]
        return [*dict.fromkeys(round(value) for value in found)] if self.whole else [rounded(value) for value in found]


Choices = tuple  # of plain values
Space = Mapping[str, Range | Choices]


def text(space: Space) -> dict[str, str]:
    """The space as one writes it on the command line.

    >>> text({"net.width": (0.5, 1.0)})
    {'net.width': '0.5,1.0'}
    """
    return {path: str(one) if isinstance(one, Range) else ",".join(str(value) for value in one) for path, one in space.items()}


def rounded(value: float) -> float:
    """A number with three digits that count, so that it can be read and typed.

    >>> rounded(0.00123456)
    0.00123
    """
    return float(f"{value:.{DIGITS}g}")


def get(experiment: Experiment, path: str) -> object:
    """The value of a field.

    >>> get(Experiment(recipe="mine"), "fit.batch_size")
    16
    """
    value: object = experiment
    for name in path.split("."):
        value = getattr(value, name)
    return value


def replaced(experiment: Experiment, values: Mapping[str, object]) -> Experiment:
    """An experiment with other values of some fields.

    Args:
        experiment: of all other fields.
        values: path to value, or to its text.

    Raises:
        InputError: a value that the field, or the experiment as a whole, does not take.
    """
    content = experiment.model_dump()
    for path, value in values.items():
        *parents, name = path.split(".")
        part = content
        for parent in parents:
            part = part[parent]
        part[name] = value
    try:
        return Experiment.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
        complaint = first["msg"].removeprefix("Value error, ")
        raise InputError(where + complaint + ("" if ", got " in complaint else f", got {first['input']}")) from error


def points(space: Space) -> list[dict[str, object]]:
    """Every combination of the choices and of a range's `points`, the last field changing first."""
    axes = [one.points() if isinstance(one, Range) else one for one in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]


def read(experiment: Experiment, declared: Space, given: Sequence[str] = (), only: Sequence[str] = ()) -> dict[str, Range | Choices]:
    """The space of a search: what is declared for its recipe, narrowed or widened as the command line says.

    Args:
        experiment: whose fields they are.
        declared: `recipes.space`.
        given: `FIELD=LOW..HIGH` (on the scale that is declared, or `log:LOW..HIGH`), `FIELD=A,B,C`, or `FIELD=A`, which is not searched but set.
        only: fields of `declared` to search; none: all. Those `given` are searched besides.

    Returns:
        Field to range or choices; a single choice is one that is set.

    Raises:
        InputError: no such field, or a value that it does not take.

    >>> read(Experiment(recipe="mine"), {}, ["net.dropout=0..0.5", "fit.batch-size=8,16"])
    {'net.dropout': Range(low=0.0, high=0.5, log=False), 'fit.batch_size': (8, 16)}
    """
    named = [_path(path) for path in only]
    for path in named:
        if path not in declared:
            raise InputError(f"--only must name fields of the search, {', '.join(declared)}, got {path}; --space {path}=... adds another")
    found = {path: one for path, one in declared.items() if path in named or not named}
    texts = dict(_split(one) for one in given)
    if len(texts) < len(given):
        raise InputError(f"--space must name each field once, got {' '.join(given)}")
    for path, one in texts.items():
        kind = _number(path, experiment)
        bounds = re.fullmatch(r"(log:)?(.+?)\.\.(.+)", one)
        earlier = declared.get(path)
        try:
            if bounds and kind is None:
                raise ValueError("a range is for numbers; name the choices: A,B,C")
            if bounds:
                found[path] = Range(kind(bounds[2]), kind(bounds[3]), bool(bounds[1]) or (isinstance(earlier, Range) and earlier.log))
            else:
                found[path] = tuple(None if word.lower() == "none" else word for word in one.split(","))
        except ValueError as error:
            raise InputError(f"--space {path}: {error}, got {one}" if ", got " not in str(error) else f"--space {path}: {error}") from error
    return {path: _checked(experiment, path, one) for path, one in found.items()}


def _checked(experiment: Experiment, path: str, one: Range | Choices) -> Range | Choices:
    """The same with the field's own type, when it takes both ends, or every choice."""
    ends = (one.low, one.high) if isinstance(one, Range) else one
    try:
        values = tuple(get(replaced(experiment, {path: value}), path) for value in ends)
    except InputError as error:
        raise InputError(f"--space {path}: {error}") from error
    if odd := [value for value in values if not isinstance(value, PLAIN)]:
        raise InputError(f"--space {path} must be a number, a word or a switch, got {odd[0]}")
    if len({*values}) < len(values):
        raise InputError(f"--space {path} must name each choice once, got {', '.join(map(str, values))}")
    return Range(*values, log=one.log) if isinstance(one, Range) else values


def _split(one: str) -> tuple[str, str]:
    path, equals, values = one.partition("=")
    if not (path and equals and values):
        raise InputError(f"--space must be FIELD=LOW..HIGH or FIELD=A,B,C, got {one}")
    return _path(path), values


def _path(text: str) -> str:
    return text.removeprefix("--").replace("-", "_")


def _number(path: str, experiment: Experiment) -> type[int] | type[float] | None:
    """What a range of the field is made of, none: it is no number.

    Raises:
        InputError: no such field.
    """
    owner: type | None = type(experiment)
    *parents, name = path.split(".")
    for parent in parents:
        inner = {*_types(owner.model_fields[parent].annotation)} if _has(owner, parent) else set()
        owner = next((one for one in inner if isinstance(one, type) and issubclass(one, Settings)), None)
    if not _has(owner, name):
        raise InputError(f"--space must name fields of the experiment such as fit.learning_rate, got {path}; `python train.py --help` has all")
    inner = {*_types(owner.model_fields[name].annotation)}
    if any(isinstance(one, type) and issubclass(one, Settings) for one in inner):
        raise InputError(f"--space must name a single field, got all of {path}")
    return next((kind for kind in (float, int) if kind in inner), None)


def _has(owner: type | None, name: str) -> bool:
    return owner is not None and name in owner.model_fields


def _types(annotation: object) -> list[object]:
    """The types in an annotation, out of unions and Annotated."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _types(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [inner for one in typing.get_args(annotation) for inner in _types(one)]
    return [annotation]
