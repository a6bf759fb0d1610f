"""The formats of annotation records: which fields a task's records have, and how each is checked and stored."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from data.records.layouts import hint
from data.records.table import Column, Columns

_LISTED = 8  # fields of a record that are named in an error
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Field:
    """One field of a record.

    Attributes:
        encode: a record's value -> the stored one; raises ValueError that says what was expected.
        decode: the stored value -> the record's; None where they are the same.
    """

    name: str
    encode: Callable[[Any], Any]
    column: Column
    required: bool = True
    decode: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Format:
    """The fields of a task's records.

    Attributes:
        either: at least one of these fields must be present.
        needed: a field of texts; a record of which no text is left is left out.
        columns_of: pairs of a field and the column of a Parquet file that holds it, where that has no well-known name.
    """

    name: str
    fields: tuple[Field, ...]
    either: tuple[str, ...] = ()
    needed: str = ""
    columns_of: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> Columns:
        return {field.name: field.column for field in self.fields}

    def to_row(self, record: Any) -> list[Any]:
        """The stored values of one record in the order of `fields`, None where an optional one is missing.

        Raises ValueError that says what is wrong.
        """
        if not isinstance(record, dict):
            raise ValueError(f"is {quote(record)}, expected an object with the fields {self._wanted()}")
        values: list[Any] = []
        for field in self.fields:
            value = record.get(field.name)
            if value is None and field.required:
                raise ValueError(f"has no {field.name!r} (its fields: {_listed(record)}){hint(record)}")
            try:
                values.append(None if value is None else field.encode(value))
            except ValueError as error:
                raise ValueError(f"{field.name!r} is {quote(value)}, expected {error}{hint(record)}") from None
        if self.either and all(record.get(name) is None for name in self.either):
            raise ValueError(f"has none of {', '.join(self.either)} (its fields: {_listed(record)}){hint(record)}")
        return values

    def from_row(self, values: list[Any]) -> dict[str, Any]:
        """The record whose stored values are `values`."""
        return {
            field.name: field.decode(value) if field.decode and value is not None else value
            for field, value in zip(self.fields, values, strict=True)
        }

    def _wanted(self) -> str:
        return ", ".join(field.name for field in self.fields if field.required or field.name in self.either)


def text(name: str, required: bool = True) -> Field:
    """A string."""

    def encode(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("a string")
        return replace_lone_surrogates(value)

    return Field(name, encode, "string", required)


def path(name: str, required: bool = True) -> Field:
    """A string that is not empty."""

    def encode(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError("a string that is not empty")
        return replace_lone_surrogates(value)

    return Field(name, encode, "string", required)


def texts(name: str, required: bool = True, count: int | None = None) -> Field:
    """A string or a list of strings (`count` of them, if given), stored as a list."""

    def encode(value: Any) -> list[str]:
        strings = [value] if isinstance(value, str) and count is None else value
        if not isinstance(strings, list) or not strings or not all(isinstance(string, str) for string in strings):
            raise ValueError(f"a list of {count} strings" if count else "a string or a list of strings")
        if count not in (None, len(strings)):
            raise ValueError(f"a list of {count} strings")
        return [replace_lone_surrogates(string) for string in strings]

    return Field(name, encode, "strings", required)


def captions(name: str, required: bool = True, or_none: bool = False) -> Field:
    """A string or a list of strings (with `or_none`, it may be empty), stored as a list of those that hold a word."""
    found = _kept_texts(name, required, has_words)
    return replace(found, encode=lambda value: [] if value == [] else found.encode(value)) if or_none else found


def answers(name: str, required: bool = True) -> Field:
    """A string or a list of strings, stored as a list of those that are not blank."""
    return _kept_texts(name, required, str.strip)


def _kept_texts(name: str, required: bool, keep: Callable[[str], object]) -> Field:
    all_texts = texts(name, required)
    return Field(name, lambda value: list(filter(keep, all_texts.encode(value))), "strings", required)


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit; blanks, marks and emoji alone say nothing to learn from or to score by."""
    return any(map(str.isalnum, text))


_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def truth(name: str) -> Field:
    """True or false, as JSON's truth value, as the number 1 or 0, or as one of these in a string (NLVR2: "True")."""

    def encode(value: Any) -> int:
        written = str(value).lower() if isinstance(value, (bool, int, str)) else ""
        if written not in _TRUTH:
            raise ValueError("'True' or 'False' (or true, false, 1, 0)")
        return int(_TRUTH[written])

    return Field(name, encode, "int64", decode=bool)


def identifier(name: str, required: bool = True) -> Field:
    """An id: a whole number or a string, kept as it is."""

    def encode(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError("a whole number or a string")
        return json.dumps(value)

    return Field(name, encode, "string", required, decode=json.loads)


def replace_lone_surrogates(text: str) -> str:
    """`text` with the replacement mark U+FFFD for each lone surrogate.

    A text that was cut in the middle of an emoji ends in one. JSON can spell it, UTF-8 (which the store and the
    tokenizer need) cannot.
    """
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _listed(record: dict[str, Any]) -> str:
    """The names of a record's fields; only the first ones where there are very many."""
    names = [name if len(name) <= 60 else f"{name[:57]}..." for name in itertools.islice(record, _LISTED)]
    more = f", and {len(record) - _LISTED:,} more" if len(record) > _LISTED else ""
    return replace_lone_surrogates(", ".join(names) or "none") + more


def quote(value: Any) -> str:
    """A value for an error message: shortened, and with its type in JSON's words."""
    kinds = {
        bool: "a truth value",
        dict: "an object",
        list: "a list",
        str: "a string",
        int: "a number",
        float: "a number",
    }
    written = replace_lone_surrogates(json.dumps(value, ensure_ascii=False, default=repr))
    kind = "null" if value is None else kinds.get(type(value), type(value).__name__)
    return f"{kind} ({written if len(written) <= 60 else written[:57] + '...'})"
