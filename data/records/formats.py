"""What a task's records must hold: each dataset's file declares its format with these, and wrong records are named."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data.records.table import Column, Columns

_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Field:
    """One field of a record: how its value is checked and stored, and how it comes back from the store.

    `read` raises ValueError that says what it expected.
    """

    name: str
    read: Callable[[Any], Any]
    column: Column
    required: bool = True
    restore: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Format:
    """The fields of a task's records; with `either`, one of the fields named there must be present."""

    name: str
    fields: tuple[Field, ...]
    either: tuple[str, ...] = ()

    @property
    def columns(self) -> Columns:
        return {field.name: field.column for field in self.fields}

    def row(self, record: Any) -> list[Any]:
        """The stored values of one record in the order of `fields`, None where an optional one is missing.

        Raises ValueError that says what is wrong.
        """
        if not isinstance(record, dict):
            raise ValueError(f"is {_shown(record)}, expected an object with the fields {self._wanted()}")
        values = []
        for field in self.fields:
            value = record.get(field.name)
            if value is None and field.required:
                raise ValueError(f"has no {field.name!r} (its fields: {', '.join(record) or 'none'})")
            try:
                values.append(None if value is None else field.read(value))
            except ValueError as error:
                raise ValueError(f"{field.name!r} is {_shown(value)}, expected {error}") from None
        if self.either and all(record.get(name) is None for name in self.either):
            raise ValueError(f"has none of {', '.join(self.either)} (its fields: {', '.join(record) or 'none'})")
        return values

    def restored(self, values: list[Any]) -> dict[str, Any]:
        """The record that a store gives back for a row that `row` made."""
        return {
            field.name: field.restore(value) if field.restore and value is not None else value
            for field, value in zip(self.fields, values, strict=True)
        }

    def _wanted(self) -> str:
        return ", ".join(field.name for field in self.fields if field.required or field.name in self.either)


def text(name: str, required: bool = True) -> Field:
    """A string."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("a string")
        return whole_characters(value)

    return Field(name, read, "string", required)


def path(name: str, required: bool = True) -> Field:
    """A string that is not empty."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError("a string that is not empty")
        return whole_characters(value)

    return Field(name, read, "string", required)


def texts(name: str, required: bool = True, count: int | None = None) -> Field:
    """A string or a list of strings (`count` of them, if given), stored as a list."""

    def read(value: Any) -> list[str]:
        strings = [value] if isinstance(value, str) and count is None else value
        if not isinstance(strings, list) or not strings or not all(isinstance(string, str) for string in strings):
            raise ValueError(f"a list of {count} strings" if count else "a string or a list of strings")
        if count not in (None, len(strings)):
            raise ValueError(f"a list of {count} strings")
        return [whole_characters(string) for string in strings]

    return Field(name, read, "strings", required)


def truth(name: str) -> Field:
    """A string or a truth value; comes back as what it was, for the task to judge."""

    def read(value: Any) -> str:
        if not isinstance(value, (bool, str)):
            raise ValueError("'True' or 'False'")
        return json.dumps(value)

    return Field(name, read, "string", restore=json.loads)


def identity(name: str, required: bool = True) -> Field:
    """A whole number or a string that names something; comes back as what it was."""

    def read(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError("a whole number or a string")
        return json.dumps(value)

    return Field(name, read, "string", required, restore=json.loads)


def whole_characters(text: str) -> str:
    """`text` with a replacement mark for each half of a character, as texts cut in the middle of an emoji end in.

    JSON can spell such a half (a lone surrogate); UTF-8, which the store and the tokenizer want, cannot.
    """
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def _shown(value: Any) -> str:
    """A value in an error message: short, and with the kind that JSON calls it."""
    kinds = {
        bool: "a truth value",
        dict: "an object",
        list: "a list",
        str: "a string",
        int: "a number",
        float: "a number",
    }
    written = whole_characters(json.dumps(value, ensure_ascii=False))
    return f"{kinds.get(type(value), 'null')} ({written if len(written) <= 60 else written[:57] + '...'})"
