"""Reading a config: a dataclass filled from YAML and `key=value` overrides; an error names the file and line.

The YAML is 1.2, where `1e-5` is a number and `no` is a text. A dataclass checks its values in `__post_init__`, by
`ValueError`s whose message begins with the key; the file and line of that key are added here.

The YAML library is loaded where YAML is read or written: whoever passes values needs none, such as the benchmarks.
"""

import dataclasses
import difflib
import io
import logging
import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from models.errors import ConfigError, MissingFile
from models.paths import REPOSITORY, atomic_write, open_regular, resolve
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
        except _Unusable as error:
            raise ConfigError(f"{place}: {key} {error}") from None
        except TypeError:
            found = f"{_shortened(value)} ({_name(type(value))})"
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
    if os.path.exists(file):  # pathlib's raises for a name that is too long
        return file
    for folder in (file.parent, REPOSITORY / file.parent):
        alike = sorted(folder.glob("*")) if os.path.isdir(folder) else []
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
    from ruamel.yaml import YAML

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
        with open_regular(file) as opened:
            text = opened.read(_LARGEST + 1).decode("utf-8-sig")
    except MissingFile:
        raise ConfigError(f"{file}: no such config file; the ones that come with this code are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({getattr(error, 'reason', error)})") from None
    values, root = _load_yaml(text, str(file))
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected `key: value` lines, found {_name(type(values))}")
    return values, {str(key.value): key.start_mark.line + 1 for key, _ in root.value}


_LARGEST = 1 << 20  # bytes of a config file
_MOST_NODES, _DEEPEST = (
    100_000,
    30,
)  # values in a config, what is referred to by `*name` counted each time; their nesting


def _load_yaml(text: str, place: str, *, with_line: bool = True) -> tuple[Any, Any]:
    """The value of a YAML text, and its tree of nodes, which know their lines. Raises ConfigError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    def where(mark: Any) -> str:
        return f"{place} line {mark.line + 1}" if mark and with_line else place

    if len(text) > _LARGEST:
        raise ConfigError(f"{place}: more than {_LARGEST:,} characters; is this the config?")
    root = None
    try:
        root = YAML(typ="safe", pure=True).compose(io.StringIO(text))
        if root is not None:
            _check_size(root, place)
        return YAML(typ="safe", pure=True).load(text), root
    except MarkedYAMLError as error:
        raise ConfigError(f"{where(error.problem_mark)}: not valid YAML: {error.problem}") from None
    except YAMLError as error:  # a character that YAML does not allow
        raise ConfigError(f"{place}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{place}: values are nested too deeply") from None
    except ConfigError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # of `!!int x`, a 31st of June
        raise ConfigError(f"{where(_unreadable(root))}: a value cannot be read ({error})") from None


def _check_size(root: Any, place: str) -> None:
    """Raise ConfigError for a tree that references blow up, or that holds itself."""
    count, rest = 0, [(root, 0)]
    while rest:
        node, depth = rest.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST_NODES:
            raise ConfigError(f"{place}: values are nested too deeply, or there are more than {_MOST_NODES:,} of them")
        if isinstance(node.value, list):
            for item in node.value:
                rest += [(part, depth + 1) for part in (item if isinstance(item, tuple) else (item,))]


def _unreadable(root: Any) -> Any:
    """Where the first top-level value begins that cannot be made of its text."""
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import MappingNode

    for _, node in root.value if isinstance(root, MappingNode) else ():
        try:
            YAML(typ="safe", pure=True).constructor.construct_document(node)
        except Exception:
            return node.start_mark
    return None


def _parse_value(override: str, text: str) -> Any:
    return _load_yaml(text, f"command line: {override!r}", with_line=False)[0]


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


class _Unusable(Exception):
    """A value of the right type that no part of this code could work with; the message follows the key."""


_LARGEST_NUMBER = 2**63 - 1


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_usable(value: Any) -> None:
    """Raise _Unusable for numbers that are infinite or of more than 64 bits, and for texts that no path can hold."""
    if isinstance(value, float) and not math.isfinite(value):  # no key means it: null is how a limit is left out
        raise _Unusable(f"is {value}, which is no number to work with")
    if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise _Unusable(f"is larger than {_LARGEST_NUMBER:,}, the largest whole number here")
    if isinstance(value, str) and "\0" in value:
        raise _Unusable(f"= {_shortened(value)} holds a NUL character")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Unusable(f"= {_shortened(value)} is not Unicode: rename the file, if it is one") from None


def _convert(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or TypeError. A whole number counts as a float; nothing else is converted."""
    _check_usable(value)
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
