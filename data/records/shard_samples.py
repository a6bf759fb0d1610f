"""The samples in a WebDataset shard (a tar file), found by walking through it once; what is left out is counted."""

import codecs
import json
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO

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

Row = tuple[str, list[str], int, int]  # key, captions, offset and size of the picture
Members = dict[str, tarfile.TarInfo]  # the files of a sample by their suffix, in lower case


class _LeftOut(Exception):
    """A sample that cannot be used, and why."""


def samples(shard: str) -> Iterator[Row]:
    """Key, captions, and the place of the picture of each sample; those without one are left out, and counted."""
    with open_regular(shard) as file:
        try:
            yield from _samples(file, shard)
        except OSError as error:
            raise UserError(f"{shard}: cannot be read ({error.strerror or error})") from error


def _samples(file: BinaryIO, shard: str) -> Iterator[Row]:
    beginning = file.read(8)
    file.seek(0)
    for mark, program in COMPRESSED.items():
        if beginning.startswith(mark):
            logger.warning("%s is compressed; the shard is left out: unpack it (%s)", shard, program)
            return
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (only the opening may fail here)
    except _BROKEN as error:  # a download that broke off at once leaves an empty file
        logger.warning("%s: %s; the shard is left out", shard, error)
        return
    used, left_out = 0, Counter[str]()
    for key, members in _grouped(tar, shard).items():
        for name, parts in _parted(key, members):
            try:
                picture = _picture(parts)
                captions = _captions(file, parts)
            except _LeftOut as reason:
                left_out[str(reason)] += 1
                continue
            used += 1
            yield replace_lone_surrogates(name), captions, picture.offset_data, picture.size
    if left_out:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        number = left_out.total()
        logger.warning("%s: %d of %d samples are left out: %s", shard, number, used + number, reasons)


def _grouped(tar: tarfile.TarFile, shard: str) -> dict[str, Members]:
    """Key -> files of each sample: those whose names agree up to the first dot, as webdataset groups them.

    Of files with the same name the first is used. A file without a suffix, a hidden one (macOS's `._NAME` companions
    too), or one that a file manager left belongs to no sample.
    """
    with needs_extra("data", "reading shards"):
        from webdataset.tariterators import base_plus_ext

    groups: dict[str, Members] = {}
    repeated: list[str] = []
    for member in _whole_members(tar, shard):
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


def _captions(file: BinaryIO, members: Members) -> list[str]:
    """The sample's captions that hold a word: its .txt file, or `caption` (text or a list of it) of its .json file."""
    if not _any(members, _CAPTIONS):
        raise _LeftOut(f"without a caption (.txt or .json), only with {_listed(members)}")
    if "txt" in members:
        content = _content(file, members["txt"])
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
        if "\0" in text:
            raise _LeftOut("whose .txt is no text in UTF-8")
        if has_words(text):
            return [text]
    if "json" not in members:
        raise _LeftOut("whose caption is empty or holds no word")
    try:
        found = json.loads(_content(file, members["json"]))
    except (ValueError, RecursionError):
        raise _LeftOut("whose .json is not valid JSON") from None
    caption = found.get("caption") if isinstance(found, dict) else None
    texts = [text for text in (caption if isinstance(caption, list) else [caption]) if isinstance(text, str)]
    if not texts:
        raise _LeftOut("whose .json has no 'caption' that is text, or a list of it")
    captions = [replace_lone_surrogates(text) for text in texts if has_words(text)]
    if not captions:
        raise _LeftOut("whose caption is empty or holds no word")
    return captions


def _content(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    if member.size > _LONGEST_CAPTION:
        raise _LeftOut(f"whose caption has over {_LONGEST_CAPTION:,} bytes")
    file.seek(member.offset_data)
    return file.read(member.size)


def _whole_members(tar: tarfile.TarFile, shard: str) -> Iterator[tarfile.TarInfo]:
    """The files in a tar, up to where it is cut off or broken."""
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
        reason = str(error) or type(error).__name__
        logger.warning("%s: %s; only the samples before are used", shard, reason)


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
