"""Damaged shards and clips."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.hostile.harness import Arguments, Case
from tests.hostile.home import good
from tests.hostile.mutations import BYTE_CHANGES, Change, tar_header_changed, tar_of
from tests.hostile.picture_cases import formats


def cases() -> Iterator[Case]:
    yield from _shards()
    yield from _clips()


def _shards() -> Iterator[Case]:
    picture = next(content for name, content in formats() if name == "plain.jpg")
    members = [
        (f"{number:03}.{suffix}", content)
        for number in range(6)
        for suffix, content in (("jpg", picture), ("txt", b"a red circle"), ("json", b'{"caption": "a red circle"}'))
    ]
    whole = tar_of(members)
    for what, change in (BYTE_CHANGES | {"a header": tar_header_changed}).items():
        for number in range(30 if what == "a header" else 8):
            yield _shard("pretrain", f"{what} {number}", whole, change)
            if number % 3 == 0:
                yield _shard("data.check", f"{what} {number}", whole, change)
    texts = (
        b"",
        b" ",
        b"\0",
        b"\xff",
        b"x" * 3_000_000,
        b"[" * 50_000,
        b"null",
        b"\xef\xbb\xbfa",
        "\ud800".encode("utf-8", "surrogatepass"),
        b"!!!",
    )
    for number, text in enumerate(texts):
        for suffix in ("txt", "json"):
            content = tar_of([("a.jpg", picture), (f"a.{suffix}", text), *members[:2]])
            yield _shard("pretrain", f"a .{suffix} of {text[:8]!r}, {number}", content, _same)
    records = (
        "[]",
        "{}",
        '{"caption": null}',
        '{"caption": 5}',
        '{"caption": []}',
        '{"caption": ["a", 5]}',
        '{"caption": {}}',
        '"a"',
        '{"caption": "\\ud800"}',
    )
    for record in records:
        content = tar_of([("a.jpg", picture), ("a.json", record.encode()), *members[:2]])
        yield _shard("pretrain", f"a .json of {record}", content, _same)
    names = (
        "",
        "/",
        "..",
        "../../a.jpg",
        "a" * 300 + ".jpg",
        "\udcff.jpg",
        "a\nb.jpg",
        "\x1b[31m.jpg",
        ".jpg",
        "a.",
        "a..jpg",
        "a/b/c.jpg",
        "A.JPG",
        "a.tar.jpg",
    )
    for name in names:
        yield _shard(
            "pretrain", f"a member called {name[:30]}", tar_of([(name, picture), ("b.txt", b"a"), *members[:3]]), _same
        )
    for what, content in {
        "nothing": b"",
        "zeros": bytes(10240),
        "garbage": bytes(range(256)) * 40,
        "a picture": picture,
        "text": b"not found\n" * 100,
        "only the end": whole[-1024:],
        "two tars": whole + whole,
        "no end": whole[: len(whole) // 512 * 512 - 10240],
        "members twice": tar_of([*members, *members]),
        "bad pictures": tar_of(
            [(name, content[:99] if name.endswith("jpg") else content) for name, content in members]
        ),
        "empty pictures": tar_of([(name, b"" if name.endswith("jpg") else content) for name, content in members]),
        "no texts": tar_of(members[::3]),
        "no pictures": tar_of([member for member in members if not member[0].endswith("jpg")]),
    }.items():
        for entry in ("pretrain", "data.check"):
            yield _shard(entry, what, content, _same)


def _same(content: bytes, _: np.random.Generator) -> bytes:
    return content


def _shard(entry: str, name: str, whole: bytes, change: Change) -> Case:
    def make(folder: Path, rng: np.random.Generator) -> Arguments:
        (folder / "shard.tar").write_bytes(change(whole, rng))
        if entry == "pretrain":
            return good(
                entry, folder, "train_file=[]", f"shards=['{folder}/shard.tar']", "batch_size=1", "max_bad_images=1"
            )
        text = [line for line in Path("pretrain.yaml").read_text().splitlines() if not line.startswith("train_file")]
        (folder / "c.yaml").write_text("\n".join([*text, f"shards: ['{folder}/shard.tar']"]))
        return [str(folder / "c.yaml"), "--task=pretrain", "--out", str(folder / "out")]

    return Case(entry, "shard", name, make, named=("shard",))


def _clips() -> Iterator[Case]:
    whole = Path("output/demo/world/videos/video0.mp4").read_bytes()
    for what, change in BYTE_CHANGES.items():
        for number in range(5):
            yield _clip("eval_retrieval_video", f"{what} {number}", whole, change)
        yield _clip("data.check", what, whole, change)
    for what, content in (
        ("nothing", b""),
        ("a text", b"no clip"),
        ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(99)),
        ("a playlist", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"),
        ("a list of ffmpeg", b"ffconcat version 1.0\nfile /etc/passwd\n"),
        ("only a beginning", whole[:40]),
    ):
        yield _clip("eval_retrieval_video", what, content, _same)


def _clip(entry: str, name: str, whole: bytes, change: Change) -> Case:
    def make(folder: Path, rng: np.random.Generator) -> Arguments:
        shutil.copytree("output/demo/world/videos", folder / "videos")
        (folder / "videos" / "video0.mp4").write_bytes(change(whole, rng))
        if entry != "data.check":
            return good(entry, folder, f"video_root={folder}/videos")
        text = [line for line in Path("video.yaml").read_text().splitlines() if not line.startswith("video_root")]
        (folder / "c.yaml").write_text("\n".join([*text, f"video_root: {folder}/videos"]))
        return [str(folder / "c.yaml"), "--task=msrvtt", "--out", str(folder / "out")]

    return Case(entry, "clip", name, make, named=("video0",))
