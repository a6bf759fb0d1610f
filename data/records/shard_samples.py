"""The samples in a WebDataset shard (a tar file), found by walking through it once; the unusable ones with reasons."""

import codecs
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

from data.records.formats import has_words, replace_lone_surrogates
from data.records.layouts import COMPRESSED
from files import open_regular
from settings import UserError, needs_extra

logger = logging.getLogger("blip.data")

_PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_CAPTIONS = ("txt", "json")
_STRAY = ("thumbs.db", "desktop.ini")  # what Windows leaves in folders
_LONGEST_CAPTION = 1 << 20  # bytes of a caption's file; a longer one is none
_LONGEST_END = 1 << 20  # bytes of zeros that programs write after the last file, and more than any does
_BROKEN = (tarfile.TarError, ValueError, ArithmeticError, LookupError, MemoryError, RecursionError)
# What `tarfile` raises for headers of garbage

Members = dict[str, tarfile.TarInfo]  # the files of a sample by their suffix, in lower case


class Row(NamedTuple):
    """One row of a shard's index: a sample, usable or not, or (without a key) what is wrong with the shard.

    Attributes:
        caption: those that hold a word; pre-training uses samples that have one.
        part, offset: where the picture lies. In a tar: 0, and its first byte; in a Parquet file: the row group, and the
            row in it. The offset is None without a picture.
        size: bytes of the picture in a tar.
        uid, prompt: the sample's own, if it has them.
        problem: why the sample cannot be trained on; a picture without a caption can still be captioned.
    """

    key: str | None = None
    caption: Sequence[str] = ()
    part: int = 0
    offset: int | None = None
    size: int | None = None
    uid: str | None = None
    prompt: str | None = None
    problem: str | None = None


class _LeftOut(Exception):
    """A sample that cannot be used, and why."""


def samples(shard: str) -> list[Row]:
    """All samples of a shard in the order of their first files: those to train on before the others.

    Problems of the shard as a whole, such as its end in the middle of a file, come last.
    """
    with open_regular(shard) as file:
        try:
            rows = list(_samples(file, shard))
        except OSError as error:
            raise UserError(f"{shard}: cannot be read ({error.strerror or error})") from error
    return sorted(rows, key=lambda row: row.problem is not None)


def _samples(file: BinaryIO, shard: str) -> Iterator[Row]:
    beginning = file.read(8)
    file.seek(0)
    for mark, program in COMPRESSED.items():
        if beginning.startswith(mark):
            yield _trouble(f"it is compressed; the shard is left out: unpack it ({program})")
            return
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (only the opening may fail here)
    except _BROKEN as error:  # a download that broke off at once leaves an empty file
        yield _trouble(f"{error}; the shard is left out")
        return
    troubles: list[str] = []
    for key, members in _grouped(tar, shard, troubles).items():
        for name, parts in _parted(key, members):
            yield _row(file, replace_lone_surrogates(name), parts)
    yield from map(_trouble, troubles)


def sample_files(file: BinaryIO, shard: str) -> Iterator[tuple[str, tarfile.TarInfo, Members]]:
    """The key, the picture and all files of each sample with a picture in an opened shard."""
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (only the opening may fail here)
    except _BROKEN:
        return
    for key, members in _grouped(tar, shard, []).items():
        for name, parts in _parted(key, members):
            with suppress(_LeftOut):
                yield replace_lone_surrogates(name), _picture(parts), parts


def _trouble(problem: str) -> Row:
    return Row(problem=problem)


def _row(file: BinaryIO, key: str, members: Members) -> Row:
    try:
        picture = _picture(members)
    except _LeftOut as reason:
        return Row(key, problem=str(reason))
    try:
        described, problem = _described(file, members), None
    except _LeftOut as reason:
        described, problem = {}, reason
    try:
        captions = _captions(file, members, described, problem)
        problem = None
    except _LeftOut as reason:
        captions, problem = [], reason
    return Row(
        key,
        captions,
        offset=picture.offset_data,
        size=picture.size,
        uid=text_of(described.get("uid")),
        prompt=text_of(described.get("prompt")),
        problem=None if problem is None else str(problem),
    )


def text_of(value: Any) -> str | None:
    """A field as text: bytes as hexadecimal digits, all else as JSON has it, to be named where it is used."""
    if value is None or isinstance(value, bytes):
        return value.hex() if value else None
    return replace_lone_surrogates(value if isinstance(value, str) else json.dumps(value, default=str))


def _grouped(tar: tarfile.TarFile, shard: str, troubles: list[str]) -> dict[str, Members]:
    """Key -> files of each sample: those whose names agree up to the first dot, as webdataset groups them.

    Of files with the same name the first is used. A file without a suffix, a hidden one (macOS's `._NAME` companions
    too), or one that a file manager left belongs to no sample. What is wrong with the shard is added to `troubles`.
    """
    with needs_extra("data", "reading shards"):
        from webdataset.tariterators import base_plus_ext

    groups: dict[str, Members] = {}
    repeated: list[str] = []
    for member in _whole_members(tar, shard, troubles):
        prefix, suffix = base_plus_ext(member.name)
        *folders, name = member.name.split("/")
        if prefix is None or suffix is None or name.startswith(".") or "__MACOSX" in folders or name.lower() in _STRAY:
            continue
        if groups.setdefault(prefix, {}).setdefault(suffix.lower(), member) is not member:
            repeated.append(member.name)
    if repeated:
        logger.warning(
            "%s: %d files have the name of an earlier one, which is used; the first is %s",
            shard,
            len(repeated),
            repeated[0],
        )
    return groups


def _parted(key: str, members: Members) -> Iterator[tuple[str, Members]]:
    """The samples in a group of files: itself, or several whose keys have dots (photo.0.jpg, photo.0.txt, ...).

    A part of the group that has a picture and a caption of its own is a sample of its own. What is left is one sample
    (0.jpg, 0.seg.png, 0.txt), whose picture and caption may have names (0.input.jpg, 0.output.txt).
    """
    parts: dict[str, Members] = {}
    for suffix, member in members.items():
        stem, _, last = suffix.rpartition(".")
        parts.setdefault(stem, {}).setdefault(last, member)
    whole = [stem for stem, part in parts.items() if stem and _any(part, _PICTURES) and _any(part, _CAPTIONS)]
    for stem in whole:
        yield f"{key}.{stem}", parts.pop(stem)
    pictures = [stem for stem, part in parts.items() if _any(part, _PICTURES)]
    if "" in parts and (_any(parts[""], _PICTURES) or len(pictures) != 1):
        yield key, {suffix: member for suffix, member in members.items() if suffix.rpartition(".")[0] in parts}
    elif len(pictures) == 1:
        yield key, {last: member for part in reversed(parts.values()) for last, member in part.items()}
    else:
        yield from ((f"{key}.{stem}", part) for stem, part in parts.items())


def _any(members: Members, suffixes: Sequence[str]) -> bool:
    return any(suffix in members for suffix in suffixes)


def _picture(members: Members) -> tarfile.TarInfo:
    for suffix in _PICTURES:
        if suffix in members:
            return members[suffix]
    raise _LeftOut(f"without a picture (.{', .'.join(_PICTURES)}), only with {_listed(members)}")


def _listed(members: Members) -> str:
    return ", ".join(f".{suffix}" for suffix in sorted(members)[:4])


def _described(file: BinaryIO, members: Members) -> dict[str, Any]:
    """The object in the sample's .json; without one, no fields."""
    if "json" not in members:
        return {}
    try:
        found = json.loads(_content(file, members["json"]))
    except (ValueError, RecursionError):
        raise _LeftOut("whose .json is not valid JSON") from None
    return found if isinstance(found, dict) else {}


def _captions(
    file: BinaryIO, members: Members, described: dict[str, Any], problem: _LeftOut | None = None
) -> list[str]:
    """The sample's captions that hold a word: a list in its .json, else its .txt, else the `caption` of its .json.

    The list comes first because a .txt beside it holds one caption, for programs that know no more.
    """
    caption = described.get("caption")
    texts = [text for text in (caption if isinstance(caption, list) else [caption]) if isinstance(text, str)]
    captions = [replace_lone_surrogates(text) for text in texts if has_words(text)]
    if isinstance(caption, list) and captions:
        return captions
    text = decoded_text(_content(file, members["txt"])) if "txt" in members else ""
    if text and has_words(text):
        return [text]
    if captions:
        return captions
    if problem is not None:
        raise problem
    if not _any(members, _CAPTIONS):
        raise _LeftOut(f"without a caption (.txt or .json), only with {_listed(members)}")
    if text is None:
        raise _LeftOut("whose .txt is no text in UTF-8")
    if "json" in members and not texts:
        raise _LeftOut("whose .json has no 'caption' that is text, or a list of it")
    raise _LeftOut("whose caption is empty or holds no word")


def decoded_text(content: bytes) -> str | None:
    """The text of a .txt, in UTF-8 or UTF-16; None where it is none."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    return None if "\0" in text else text


def _content(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    if member.size > _LONGEST_CAPTION:
        raise _LeftOut(f"whose caption has over {_LONGEST_CAPTION:,} bytes")
    file.seek(member.offset_data)
    return file.read(member.size)


def _whole_members(tar: tarfile.TarFile, shard: str, troubles: list[str]) -> Iterator[tarfile.TarInfo]:
    """The files in a tar, up to where it is cut off or broken, which is added to `troubles`."""
    end = os.path.getsize(shard)
    try:
        for member in tar:
            if member.size < 0:
                raise tarfile.ReadError(f"broken at byte {member.offset}: a file of {member.size} bytes")
            if member.offset_data + member.size > end:
                raise tarfile.ReadError("unexpected end of data")
            if member.isfile() and not member.issparse():
                yield member
        _check_end(shard, tar.offset)
    except _BROKEN as error:
        troubles.append(f"{str(error) or type(error).__name__}; only the samples before are used")


def _check_end(shard: str, offset: int) -> None:
    """Raise ReadError unless the end of the tar is marked at `offset`, where `tarfile` stopped.

    `tarfile` takes any broken header for the end. The mark is a block of zeros, and a few more may follow; very many
    mean that the file was allocated at its full size and not filled.
    """
    end = os.path.getsize(shard)
    with open_regular(shard) as file:
        file.seek(offset)
        rest = file.read(_LONGEST_END)
    if len(rest) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"unexpected end of data at byte {offset}")
    if rest.strip(b"\0") or end - offset > _LONGEST_END:
        raise tarfile.ReadError(f"broken at byte {offset} of {end}")
