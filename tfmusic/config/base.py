"""What all settings share: the base class, the error that a wrong one is, and refusals of what nothing reads."""

from __future__ import annotations

import os

import pydantic

VERSION = "0.1.0"  # of the code; stands in every manifest, run and bundle


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what, where, and what was expected."""


def printable(path: str | os.PathLike) -> str:
    r"""A path as text that any file and terminal takes: bytes of a name that are not UTF-8 become `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Settings(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Base of all settings: immutable, unknown keys are errors."""


def check_read(name: str, settings: Settings, choice: str, read: set[str]) -> None:
    """Refuses a field that is set and not read."""
    for field, value in settings:
        if field not in read and value != type(settings).model_fields[field].default:
            raise ValueError(f"{name}.{field} does nothing for {choice} and must be left out, got {value}")
