"""Reads the frames of a film, and writes a film with other frames and the same sound, subtitles and titles.

FFmpeg may open only one local file of the listed formats, so a playlist of addresses is refused.

Sources: ISO/IEC 14496-12:2015, 8.3.2 (the matrix that turns a film); ITU-T H.273, tables 2 to 4 (colour code
points); 3GPP TS 26.245, 5.17 (text samples in MP4).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from PIL import Image

from photochrom.errors import PhotochromError, UsageError

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".ogv"),
    *(".3gp", ".3g2", ".mpg", ".mpeg", ".m2v", ".vob", ".mts", ".m2ts", ".dv"),
)
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # the formats that we write
OPENING = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,asf,flv,ogg,mpeg,mpegts,mpegvideo,dv",
}
# The codecs of sound that a format can hold and players can play. Others become AAC. Matroska holds all.
SOUND = {
    "mp4": ("aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus", "flac"),
    "mov": (
        "aac",
        "mp3",
        "mp3float",
        "ac3",
        "eac3",
        "alac",
        "pcm_s16le",
        "pcm_s16be",
        "pcm_s24le",
        "pcm_s24be",
    ),
}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
TEXTS = ("subrip", "srt", "text", "webvtt", "ass", "ssa")  # subtitles that we convert for MP4
OWN_TAGS = re.compile(
    r"major_brand|minor_version|compatible_brands|encoder|handler_name|vendor_id|duration|_?statistics.*",
    re.I,
)
HD = (1280, 720)  # players assume BT.709 from this width or height on
BT709, BT601, LIMITED = 1, 6, 1  # numbers of H.273
EARLY = 0.98  # a film with less than this share of its declared frames or time ends early


@dataclass(frozen=True)
class Look:
    """The facts about a film that one pass through its file finds."""

    size: tuple[int, int]  # width and height of its frames after the turn, even
    turn: Image.Transpose | None
    aspect: Fraction  # width of a pixel over its height, after the turn
    frames: int
    early: bool  # whether it ends before its declared end


def opened(source: Path) -> AbstractContextManager[Any]:
    """Open a film with PyAV. Raises UsageError without the package av, PhotochromError without the file."""
    try:
        import av
    except ImportError:
        raise UsageError("videos need another package: pip install 'photochrom[video]'") from None
    if not source.is_file():
        raise PhotochromError(f"there is no video {source}")
    film: AbstractContextManager[Any] = av.open(f"file:{source}", options=OPENING, metadata_errors="replace")
    return film


def look(source: Path, max_pixels: int) -> Look:
    """Go through a film once, decoding only its first frame.

    Raises PhotochromError if it has no picture, or if its first has more than max_pixels.
    """
    with opened(source) as film:
        import av

        stream = pictures_of(film)
        if stream is None:
            raise PhotochromError(f"{source} has no pictures in it")
        first, count, last, cut_short = None, 0, 0.0, False
        try:
            for packet in film.demux():
                if packet.pts is not None:
                    last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is stream:
                    count += bool(packet.size)
                    first = first or next(frames_of(packet), None)
        except av.FFmpegError:  # the file was cut short
            cut_short = True
        if first is None:
            raise PhotochromError(f"{source} has no picture that can be read: it is damaged or cut short")
        if first.width * first.height > max_pixels:
            size = f"{first.width}x{first.height}, more than {max_pixels:,} pixels"
            raise PhotochromError(f"{source} has pictures of {size}: allow them with --max-megapixels")
        seconds = last - (film.start_time or 0) / 1e6
        early = cut_short or count < EARLY * stream.frames or seconds < EARLY * (film.duration or 0) / 1e6 - 1
        turn, aspect = turn_of(first), Fraction(stream.sample_aspect_ratio or 1)
    width, height = first.width, first.height
    if turn in SIDEWAYS:
        width, height, aspect = height, width, 1 / aspect
    return Look((width // 2 * 2, height // 2 * 2), turn, aspect, count, early)


def pictures_of(film: Any) -> Any:
    """The first video stream that is not a cover picture, or None."""
    from av.stream import Disposition

    return next((s for s in film.streams.video if not s.disposition & Disposition.attached_pic), None)


def frames_of(packet: Any) -> Iterator[Any]:
    """Decode the frames of a packet. A damaged packet has none."""
    import av

    try:
        yield from packet.decode()
    except av.FFmpegError:
        return


SIDEWAYS = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)
TURNS = {  # by the signs of a, b, c, d in the matrix, which shows the pixel (x,y) at (ax + cy, bx + dy)
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


def turn_of(frame: Any) -> Image.Transpose | None:
    """The turn that a frame's display matrix asks for, or None."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack("<5i", bytes(matrix)[:20])
    return TURNS.get(tuple((value > 0) - (value < 0) for value in (a, b, c, d)))


def luma_of(frame: Any, seen: Look) -> Image.Image:
    """A frame's luma (mode L), upright, at the film's size."""
    hd = frame.width >= HD[0] or frame.height >= HD[1]
    unsaid = frame.colorspace not in (1, 4, 5, 6, 7)  # the matrices that FFmpeg's scaler knows
    luma = frame.to_image(src_colorspace="ITU709" if unsaid and hd else None).convert("L")
    if seen.turn is not None:
        luma = luma.transpose(seen.turn)
    width, height = seen.size
    if (luma.width // 2 * 2, luma.height // 2 * 2) != seen.size:  # the size changes in the middle of the film
        return luma.resize(seen.size)
    return luma.crop((0, 0, width, height))


def rewrite(
    source: Path,
    seen: Look,
    file: IO[bytes],
    format: str,
    colored: Callable[[Iterator[Image.Image]], Iterator[Image.Image]],
) -> tuple[str, ...]:
    """Write a film with new pictures, in H.264, and its other streams. Returns notes about streams left out.

    colored: turns the luma of all frames into as many pictures (mode RGB), in the same order.
    """
    import av

    notes: list[str] = []
    with opened(source) as given, av.open(file, "w", format=format) as made:
        made.metadata.update(_titles(given.metadata))
        pictures = pictures_of(given)
        pictures.thread_type = "AUTO"
        film = _encoder(made, pictures, seen)
        tracks: dict[Any, Track] = {}
        for stream in (*given.streams.audio, *given.streams.subtitles):
            if (track := track_for(stream, made, format, notes)) is not None:
                tracks[stream] = track
        if hasattr(made, "set_chapters") and given.chapters():
            made.set_chapters(given.chapters())
        times: list[int] = []

        def lumas() -> Iterator[Image.Image]:
            step = max(1, round(1 / (pictures.average_rate or 25) / pictures.time_base))
            last = None
            for packet in _packets(given, [pictures, *tracks]):
                if packet.stream in tracks:
                    tracks[packet.stream](packet)
                    continue
                for frame in frames_of(packet):
                    pts = frame.pts
                    if pts is None or (last is not None and pts <= last):  # a missing or wrong time
                        pts = 0 if last is None else last + step
                    times.append(last := pts)
                    yield luma_of(frame, seen)

        matrix = BT709 if seen.size[0] >= HD[0] or seen.size[1] >= HD[1] else BT601
        for picture in colored(lumas()):
            frame = av.VideoFrame.from_image(picture).reformat(
                format="yuv420p",
                dst_colorspace="ITU709" if matrix == BT709 else "ITU601",
                dst_color_range="MPEG",
            )
            frame.pts, frame.time_base = times.pop(0), pictures.time_base
            frame.colorspace, frame.color_range = matrix, LIMITED
            made.mux(film.encode(frame))
        made.mux(film.encode())
        for track in tracks.values():
            track(None)
    return tuple(notes)


def _titles(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a film or stream that describe its content, not its storage."""
    kept = {key: value for key, value in tags.items() if not OWN_TAGS.match(key)}
    if kept.get("creation_time", "1970") < "1970":  # FFmpeg would store a day in the future
        kept["date"] = kept.pop("creation_time")
    return kept


def _packets(given: Any, streams: list[Any]) -> Iterator[Any]:
    """The packets of a film, up to where it is cut short."""
    import av

    try:
        yield from given.demux(*streams)
    except av.FFmpegError:  # `look` has already found that it ends early
        return


def _encoder(made: Any, pictures: Any, seen: Look) -> Any:
    options = {"crf": "18", "preset": "veryfast"}
    film = made.add_stream("libx264", rate=pictures.average_rate or 25, options=options)
    film.width, film.height, film.pix_fmt, film.time_base = *seen.size, "yuv420p", pictures.time_base
    context = film.codec_context
    context.time_base = pictures.time_base
    context.sample_aspect_ratio = seen.aspect
    context.color_primaries = context.color_trc = BT709  # primaries as in sRGB, transfer close enough
    context.colorspace = BT709 if seen.size[0] >= HD[0] or seen.size[1] >= HD[1] else BT601
    context.color_range = LIMITED
    return film


Track = Callable[[Any], None]  # writes one packet of sound or subtitles; None ends the stream


def track_for(stream: Any, made: Any, format: str, notes: list[str]) -> Track | None:
    """Add a stream of sound or subtitles to the new film. Returns None, with a note, if it cannot hold it."""
    kind = "sound" if stream.type == "audio" else "subtitles"
    name = stream.codec_context.name if stream.codec_context else "unknown"
    language = f" ({stream.metadata['language']})" if stream.metadata.get("language", "und") != "und" else ""
    if stream.codec_context is None:
        notes.append(f"its {kind}{language} cannot be read and are left out")
        return None
    if format == "matroska" or name in (SOUND[format] if kind == "sound" else ("mov_text",)):
        new = made.add_stream_from_template(stream)
        new.metadata.update(_titles(stream.metadata))
        return _copied(new, made, kind, notes)
    if kind == "sound":
        new = _aac(stream, made)
        notes.append(f"its sound{language} ({name}) is stored as AAC, which {format.upper()} can hold")
        track = _encoded(new, made)
    elif name in TEXTS and hasattr(made, "add_mux_stream"):  # older versions of PyAV lack it
        new = made.add_mux_stream("mov_text")
        new.time_base = Fraction(1, 1000)
        track = _as_text(stream, new, made)
    else:
        notes.append(
            f"its subtitles{language} ({name}) are left out: {format.upper()} cannot hold them, but .mkv can"
        )
        return None
    new.metadata.update(_titles(stream.metadata))
    return track


def _copied(new: Any, made: Any, kind: str, notes: list[str]) -> Track:
    import av

    def copy(packet: Any) -> None:
        if packet is None or not packet.size:
            return
        packet.stream = new
        try:
            made.mux(packet)
        except av.FFmpegError:  # such as a time before the last
            note = f"part of its {kind} is damaged and left out"
            if note not in notes:
                notes.append(note)

    return copy


def _aac(stream: Any, made: Any) -> Any:
    wanted = stream.codec_context.sample_rate or 48_000
    rate = next((rate for rate in AAC_RATES if rate >= wanted), AAC_RATES[-1])
    channels = stream.codec_context.channels
    layout = stream.codec_context.layout.name
    if channels not in (1, 2) and layout not in ("3.0", "4.0", "5.0", "5.1", "7.1"):
        layout = "stereo"
    elif channels in (1, 2):  # old cameras use other names
        layout = "mono" if channels == 1 else "stereo"
    return made.add_stream("aac", rate=rate, layout=layout)


def _encoded(new: Any, made: Any) -> Track:
    import av

    def encode(packet: Any) -> None:
        for frame in frames_of(packet) if packet is not None else (None,):
            try:
                made.mux(new.encode(frame))
            except av.FFmpegError:  # a damaged frame
                continue

    return encode


def _as_text(stream: Any, new: Any, made: Any) -> Track:
    """Convert subtitles to MP4's plain text: two bytes for the length, then the text."""
    import av

    def convert(packet: Any) -> None:
        if packet is None or not packet.size or packet.pts is None:
            return
        text = bytes(packet).decode("utf-8", "replace").strip("\0\r\n ")
        if stream.codec_context.name in ("ass", "ssa"):  # the text follows eight fields; {} holds styles
            text = re.sub(r"\{[^}]*\}", "", text.split(",", 8)[-1]).replace("\\N", "\n")
        text = re.sub(r"</?[a-z][^>]{0,40}>", "", text)
        content = text.encode()[:65_535]
        line = av.Packet(struct.pack(">H", len(content)) + content)
        line.stream, line.time_base = new, Fraction(1, 1000)
        line.pts = line.dts = round(packet.pts * packet.time_base * 1000)
        line.duration = round((packet.duration or 0) * packet.time_base * 1000) or 3000
        made.mux(line)

    return convert
