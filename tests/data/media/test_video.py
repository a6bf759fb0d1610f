"""Clips are made on the spot: frame k is a flat color that tells k, so which frames were taken can be read off."""

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.media.image_file import BadImage
from data.media.video import read_frames, write_clip

STEP = 4  # gray levels between two frames; H.264 keeps flat colors within half of it


def numbered_frames(count: int) -> list[np.ndarray]:
    return [np.full((32, 48, 3), STEP * k + 8, np.uint8) for k in range(count)]


def numbers(frames: list[Image.Image]) -> list[int]:
    assert all((frame.mode, frame.size) == ("RGB", (48, 32)) for frame in frames)
    return [round((np.asarray(frame).mean() - 8) / STEP) for frame in frames]


def write_at(path: Path, instants_ms: list[int], gop: int = 250) -> None:
    """Numbered frames at the given milliseconds: a variable frame rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": "10", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for frame, instant in zip(numbered_frames(len(instants_ms)), instants_ms, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = instant, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "flv", "h264"])
@pytest.mark.parametrize("length", [8, 50, 61])
def test_frames_are_taken_evenly_from_any_container(tmp_path: Path, suffix: str, length: int) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_clip(path, numbered_frames(length), fps=10)
    assert numbers(read_frames(path, 8)) == [i * length // 8 for i in range(8)]


def test_one_frame_and_all_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", numbered_frames(12), fps=25)
    assert numbers(read_frames(tmp_path / "clip.mp4", 1)) == [0]
    assert numbers(read_frames(tmp_path / "clip.mp4", 12)) == list(range(12))


def test_a_short_clip_repeats_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", numbered_frames(3), fps=10)
    assert numbers(read_frames(tmp_path / "clip.mp4", 8)) == [0, 0, 0, 1, 1, 1, 2, 2]
    write_clip(tmp_path / "still.mp4", numbered_frames(1), fps=10)
    assert numbers(read_frames(tmp_path / "still.mp4", 3)) == [0, 0, 0]


def test_with_many_key_frames_only_their_stretches_are_decoded_and_the_frames_are_the_same(tmp_path: Path) -> None:
    every_100_ms = [100 * k for k in range(48)]
    for gop in (1, 5, 250):
        write_at(tmp_path / f"{gop}.mp4", every_100_ms, gop)
        assert numbers(read_frames(tmp_path / f"{gop}.mp4", 4)) == [0, 12, 24, 36]


def test_a_variable_frame_rate_is_sampled_by_time_not_by_count(tmp_path: Path) -> None:
    # 10 frames in the first second, then one a second: on screen at 0, 2, 4, 6, 8 s
    instants = [100 * k for k in range(10)] + [1000 * k for k in range(1, 10)]
    write_at(tmp_path / "clip.mkv", [*instants, 9999])
    assert numbers(read_frames(tmp_path / "clip.mkv", 5)) == [0, 11, 13, 15, 17]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "not a readable video"), (b"no video at all" * 99, "not a readable video")]
)
def test_what_is_no_clip_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "video7010.mp4"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=f"video7010.mp4: {reason}"):
        read_frames(path, 8)


def test_a_missing_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="video7.mp4: .*No such file"):
        read_frames(tmp_path / "video7.mp4", 8)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, reason in ((tmp_path / "pipe.mp4", "a named pipe"), (tmp_path, "a folder"), ("/dev/zero", "a device")):
        with pytest.raises(BadImage, match=f"{path}: {reason}, not a file"):
            read_frames(path, 8)


@pytest.mark.parametrize(
    "content",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"],
)
def test_a_playlist_that_names_other_files_is_no_clip(tmp_path: Path, content: str) -> None:
    write_clip(tmp_path / "other.ts", numbered_frames(8), fps=10)
    for name in ("clip.m3u8", "clip.mp4"):
        (tmp_path / name).write_text(content.format("other.ts"))
        with pytest.raises(BadImage, match=f"{name}: not a readable video"):
            read_frames(tmp_path / name, 2)


def test_a_title_that_is_no_utf_8_does_not_cost_the_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, numbered_frames(8), fps=10)
    data = path.read_bytes()
    at = data.index(b"Lavf")  # the name of the program that wrote the clip
    path.write_bytes(data[:at] + b"\xe9" + data[at + 1 :])
    assert numbers(read_frames(path, 4)) == [0, 2, 4, 6]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv", "ts", "h264"])
def test_changed_bytes_end_in_frames_or_a_reason(tmp_path: Path, suffix: str) -> None:
    path, rng = tmp_path / f"clip.{suffix}", np.random.default_rng(1)
    write_clip(path, numbered_frames(12), fps=10)
    whole = path.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(min(1200, len(data)))] = rng.integers(256)  # headers, which say what follows
        path.write_bytes(data)
        with contextlib.suppress(BadImage):
            assert len(read_frames(path, 4)) == 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
def test_a_truncated_clip_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_clip(path, numbered_frames(50), fps=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(BadImage, match=f"clip.{suffix}"):
        read_frames(path, 8)


def test_a_clip_whose_index_comes_first_is_refused_when_truncated(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.mp4", tmp_path / "streamed.mp4"
    write_clip(plain, numbered_frames(50), fps=10)
    with av.open(str(plain)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert numbers(read_frames(path, 8)) == [i * 50 // 8 for i in range(8)]
    path.write_bytes(path.read_bytes()[:-1200])
    with pytest.raises(BadImage, match="streamed.mp4: truncated"):
        read_frames(path, 8)


def test_damage_inside_a_clip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    write_clip(path, noise, fps=10)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4000
    data[start : start + 20_000] = bytes(20_000)
    path.write_bytes(data)
    with pytest.raises(BadImage, match="clip.mp4"):
        read_frames(path, 30)


def test_sound_without_pictures_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(BadImage, match="sound.wav: it holds no video stream"):
        read_frames(tmp_path / "sound.wav", 8)


def test_the_writer_repeats_itself_and_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, (Image.fromarray(frame) for frame in numbered_frames(9)), fps=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with pytest.raises(ValueError, match="at least one frame"):
        write_clip(tmp_path / "c.mp4", [], fps=10)
    with pytest.raises(ValueError, match="33x32; .* use even sizes"):
        write_clip(tmp_path / "c.mp4", [np.zeros((32, 33, 3), np.uint8)], fps=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
