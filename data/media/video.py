"""Video clips: frames taken evenly over a clip, and a writer of small clips.

    frames = read_frames("video7010.mp4", 8)          # eight pictures
    write_clip("clip.mp4", frames, fps=10)

Decoding is PyAV's (the extra `video`), whose wheels carry FFmpeg. Only what lies between a wanted frame and the key
frame before it is decoded; the times of all frames are known before, from the packets, so variable frame rates and
containers that do not state their number of frames come out right.
"""

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from data.media.image_file import BadImage
from files import atomic_write, open_regular
from settings import MissingFile, UnreadableFile, UserError, needs_extra

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream


def read_frames(path: str | os.PathLike[str], num_frames: int) -> list[Image.Image]:
    """`num_frames` RGB pictures: what is on the screen at the start of each of `num_frames` equal parts of the clip.

    At a constant rate those are frames `floor(i * length / num_frames)`. A clip of fewer frames repeats some.

    Raises:
        BadImage: the file is missing, no file, empty, no video, truncated, or damaged where a wanted frame lies.
        MissingPackage: PyAV is not installed.
    """
    with needs_extra("video", "reading clips"):
        from av.error import FFmpegError

    try:
        times, keyframes, end = _timetable(path)
        if times:
            wanted = _frames_on_screen(times, end, num_frames)
            pictures = dict(_decode_at(path, sorted(set(wanted)), keyframes))
        else:
            total = sum(1 for _ in _decode_all(path))
            wanted = [i * total // num_frames for i in range(num_frames)]
            pictures = {i: _picture(frame) for i, frame in enumerate(_decode_all(path)) if i in set(wanted)}
    except MissingFile as error:
        raise BadImage(path, "No such file or directory") from error
    except UnreadableFile as error:
        raise BadImage(path, error.reason) from error
    except UserError:
        raise
    except (FFmpegError, OSError) as error:
        raise BadImage(path, f"not a readable video ({error.strerror or error})") from error
    except Exception as error:  # on damaged clips, PyAV raises errors of any type
        raise BadImage(path, f"not a readable video ({type(error).__name__}: {error})") from error
    missing = [time for time in wanted if time not in pictures]
    if missing or not pictures:
        raise BadImage(path, f"damaged: {len(missing) or num_frames} of {num_frames} wanted frames do not decode")
    return [pictures[time] for time in wanted]


def write_clip(path: str | os.PathLike[str], frames: Iterable[np.ndarray | Image.Image], fps: int) -> None:
    """Write frames (uint8 [H, W, 3] or Pillow pictures, all of one even size) as an H.264 clip, whole or not at all.

    The container follows the suffix (.mp4, .mkv, .avi); one thread, so that the same frames give the same bytes.
    """
    with needs_extra("video", "writing clips"):
        import av

    pixels = (np.asarray(frame) for frame in frames)
    first = next(pixels, None)
    if first is None:
        raise ValueError(f"{path}: a clip needs at least one frame")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: frames are {width}x{height}; H.264 stores color by 2x2 pixels, use even sizes")
    with atomic_write(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in chain([first], pixels):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _timetable(path: str | os.PathLike[str]) -> tuple[list[int], list[int], Fraction]:
    """The times of all frames, the times of key frames, both sorted, and the end of the clip, in stream ticks.

    Reads the packets without decoding them. Returns no times where the container keeps none (raw streams).
    """
    import av

    times, keyframes, read_until = [], [], 0.0
    with _opened(path) as container:
        stream = _video(container, path)
        for packet in container.demux():
            if packet.is_corrupt:
                raise BadImage(path, f"truncated or damaged: packet at byte {packet.pos} is incomplete")
            if packet.size == 0:  # marks the end
                continue
            if packet.pts is not None:
                read_until = max(read_until, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is not stream or packet.is_discard:  # an edit list cuts frames away
                continue
            if packet.pts is None:
                return [], [], Fraction(0)
            times.append(packet.pts)
            if packet.is_keyframe:
                keyframes.append(packet.pts)
        stated = (container.duration or 0) / av.time_base
        begin = (container.start_time or 0) / av.time_base
    if not times:
        raise BadImage(path, "its video stream holds no frames")
    if read_until - begin < 0.75 * stated:  # not nearer to 1: FLV counts the decoder's delay in
        raise BadImage(path, f"truncated: {read_until - begin:.1f} of {stated:.1f} s are there")
    times.sort()
    return times, sorted(keyframes), times[-1] + _mean_gap(times)  # what files state for the last frame is often a tick


def _mean_gap(times: list[int]) -> Fraction:
    return Fraction(times[-1] - times[0], max(len(times) - 1, 1))


def _frames_on_screen(times: list[int], end: Fraction, num_frames: int) -> list[int]:
    """The times of the frames that are on the screen at `num_frames` evenly spaced moments of the clip.

    Containers round times to ticks (Matroska to milliseconds): a frame that rounding put just after the wanted moment
    still counts, but a tick can be as long as a frame (AVI).
    """
    start, tolerance = times[0], min(Fraction(1), _mean_gap(times) / 10)
    wanted = (start + i * (end - start) / num_frames for i in range(num_frames))
    return [times[bisect_right(times, moment + tolerance) - 1] for moment in wanted]


def _decode_at(
    path: str | os.PathLike[str], wanted: list[int], keyframes: list[int]
) -> Iterator[tuple[int, Image.Image]]:
    """(time, picture) of the intact frames at the sorted times `wanted`; decodes only the packets that they need.

    Skips packets rather than seeking: not every container seeks exactly, and reading is cheap beside decoding.
    """

    def keyframe_of(time: int) -> int | None:
        before = bisect_right(keyframes, time)
        return keyframes[before - 1] if before else None

    remaining = deque(wanted)
    with _opened(path) as container:
        stream = _video(container, path)
        resume_at = keyframe_of(remaining[0])  # None: feed everything
        fed_keyframe = None
        for packet in container.demux(stream):
            if resume_at is not None and packet.size and packet.pts != resume_at:
                continue
            resume_at = None
            if packet.is_keyframe and packet.pts is not None:
                fed_keyframe = packet.pts
            for frame in packet.decode():
                while remaining and frame.pts is not None and frame.pts >= remaining[0]:
                    time = remaining.popleft()
                    if frame.pts == time and not frame.is_corrupt:
                        yield time, _picture(frame)
            if not remaining:
                return
            key = keyframe_of(remaining[0])
            if key is not None and (fed_keyframe is None or key > fed_keyframe):
                stream.codec_context.flush_buffers()
                resume_at = key


def _decode_all(path: str | os.PathLike[str]) -> "Iterator[av.VideoFrame]":
    with _opened(path) as container:
        yield from container.decode(_video(container, path))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> "Iterator[InputContainer]":
    """A clip opened by FFmpeg, which reads this file and no other: playlists name files and addresses to fetch."""
    import av

    with (
        open_regular(path) as file,
        av.open(file, metadata_errors="replace", options={"protocol_whitelist": "none"}) as container,
    ):
        yield container


def _video(container: "InputContainer", path: str | os.PathLike[str]) -> "VideoStream":
    if not container.streams.video:
        raise BadImage(path, "it holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise BadImage(path, "its video is of a codec that FFmpeg does not know")
    stream.codec_context.thread_count = 1  # loader workers are the parallelism
    return stream


def _picture(frame: "av.VideoFrame") -> Image.Image:
    """The frame as an upright RGB picture: phones store the camera's rotation beside the frames."""
    image = frame.to_image()
    rotation = frame.rotation
    return image.rotate(rotation, expand=True) if rotation else image
