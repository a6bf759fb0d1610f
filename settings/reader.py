"""Reading a config: a dataclass filled from YAML and `key=value` overrides; an error names the file and line.

The YAML is 1.2, where `1e-5` is a number and `no` is a text. A dataclass checks its values in `__post_init__`, by
`ValueError`s whose message begins with the key; the file and line of that key are added here.
"""

import dataclasses
import difflib
import io
import logging
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from models.errors import ConfigError
from models.paths import REPOSITORY, atomic_write, resolve
from settings.fields import Settings

logger = logging.getLogger("blip.settings")

Config = TypeVar("Config", bound=Settings)

_MISSPELLED = 0.9  # how alike (difflib) a key of another part and one of this part are when it is taken for a mistake


def load_config(
    kind: type[Config], path: str | Path | None, overrides: Iterable[str] = (), *, part: bool = False
) -> Config:
    """A `kind` from the YAML file at `path` (None: all defaults) with `key=value` overrides on top.

    With `part`, `kind` is a part of what the file configures: keys of the other parts are skipped, except one that
    looks like a misspelled key of this part.

    Raises ConfigError on an unknown key, a wrong type, a missing key or a broken rule, and as `find_config`.
    """
    kinds = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    if path is not None:
        file = find_config(path)
        values, lines = _read_yaml(file)
        places = {key: f"{file} line {line}" for key, line in lines.items()}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is no override: write key=value, for example max_epoch=3")
        empty = not text and kinds.get(key) is str
        values[key], places[key] = "" if empty else _parse_value(override, text), "command line"

    names = [field.name for field in dataclasses.fields(kind)]
    converted: dict[str, Any] = {}
    for key, value in values.items():
        place = places.get(str(key), str(path))
        if key not in names:
            nearest = difflib.get_close_matches(str(key), names, n=1, cutoff=_MISSPELLED if part else 0.0)
            if nearest:
                raise ConfigError(f"{place}: unknown key {key!r}; the nearest valid key is {nearest[0]!r}")
            continue  # a key of another part
        try:
            converted[key] = _convert(value, kinds[key])
        except TypeError:
            found = f"{value!r} ({_name(type(value))})"
            raise ConfigError(f"{place}: {key} is {found}, expected {_name(kinds[key])}") from None
    source = "the defaults" if path is None else str(path)
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in converted and _required(f)]
    if missing:
        raise ConfigError(f"{source}: missing {', '.join(missing)}")
    try:
        return kind(**converted)
    except ValueError as error:
        key = str(error).partition(" ")[0].rstrip(":")
        raise ConfigError(f"{places.get(key, source)}: {error}") from None


def find_config(path: str | Path) -> Path:
    """The config file that `path` means: that file, or where it is missing the one whose name differs in case alone.

    The README of 2022 says `./configs/Pretrain.yaml` of a file that is called pretrain.yaml. A path without any such
    file comes back as given.

    Raises ConfigError where several names differ in case alone.
    """
    file = resolve(path)
    if file.exists():
        return file
    for folder in (file.parent, REPOSITORY / file.parent):
        alike = sorted(folder.glob("*")) if folder.is_dir() else []
        alike = [other for other in alike if other.name.lower() == file.name.lower()]
        if len(alike) > 1:
            names = ", ".join(other.name for other in alike)
            raise ConfigError(f"{path}: no such config file, and several names differ from it in case alone: {names}")
        if alike:
            logger.info("%s: no such config file; reading %s", path, alike[0])
            return alike[0]
    return file


def save_config(config: Any, path: Path) -> None:
    """Write every value of a config, defaults included, as YAML that `load_config` reads back."""
    with atomic_write(path) as temporary:
        YAML(typ="safe", pure=True).dump(dataclasses.asdict(config), temporary)


_YAML_WORDS = {None: "null", "": "''"}


def describe(kind: type) -> str:
    """One line a key (name, type, default, meaning), for `--help`."""
    kinds = typing.get_type_hints(kind)
    lines = []
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            default = f" [{_YAML_WORDS.get(field.default, field.default)}]"
        elif field.default_factory is not dataclasses.MISSING:
            default = f" [{field.default_factory()}]"
        else:
            default = " (required)"
        lines.append(f"  {field.name}: {_name(kinds[field.name])}{default}\n      {field.metadata.get('help', '')}")
    return "\n".join(lines)


def _read_yaml(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The top-level values of a YAML file, and the line of each key."""
    try:
        text = file.read_text(encoding="utf-8")
        values = YAML(typ="safe", pure=True).load(text)
        root = YAML(typ="safe", pure=True).compose(io.StringIO(text))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such config file; the ones that come with this code are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{file} line {line}: not valid YAML: {error.problem}") from None
    except YAMLError as error:  # a character that YAML does not allow
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected `key: value` lines, found {_name(type(values))}")
    return values, {str(key.value): key.start_mark.line + 1 for key, _ in root.value}


def _parse_value(override: str, text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        raise ConfigError(f"command line: {override!r} is not valid YAML: {error.problem}") from None


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or TypeError. A whole number counts as a float; nothing else is converted."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            try:
                return _convert(value, part)
            except TypeError:
                continue
        raise TypeError
    if origin is Literal:
        if value in parts:
            return value
        raise TypeError
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise TypeError
        return origin(_convert(item, parts[0] if parts else Any) for item in value)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise TypeError
        key_kind, value_kind = parts
        return {_convert(k, key_kind): _convert(v, value_kind) for k, v in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind and not (kind is Path and isinstance(value, str)):
        raise TypeError
    return kind(value) if kind is Path else value


NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    Path: "a path",
    type(None): "null",
}


def _name(kind: Any) -> str:
    """The name of a type for people who edit YAML."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_name(part) for part in parts)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (list, tuple):
        return f"a list of {_name(parts[0])}"
    return NAMES.get(origin or kind, str(kind))
