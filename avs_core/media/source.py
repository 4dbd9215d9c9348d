"""From a URI to an open container: the one place where ffmpeg meets bytes that nobody has checked."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from avs_core import storage
from avs_core.errors import AccessDenied, AvsError, CorruptMedia, MediaDenied, NotFound, TruncatedMedia, UnreadableMedia
from avs_core.media.extent import missing_bytes
from avs_core.media.memory import memory_left

if TYPE_CHECKING:
    AnyPacket = Packet[Stream]
else:
    AnyPacket = Packet  # generic for the type checker only

Beat = Callable[[], None]
"""Called at every packet, and whenever a store has answered: how the guard knows that decoding goes on."""

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,mxf,rm,nut,wav,mp3,aac,flac,ac3"
)
"""What may be opened. Playlists (HLS, DASH, concat) would make ffmpeg open other files, text would play as a film."""

CODED_MARGIN = 1 << 16
"""Pixels that the smallest pictures may be coded with beyond those that are shown."""

SQUEEZED = 8 << 20
"""With fewer bytes left than a picture or a large packet takes, a decoder's complaint says nothing of the file."""

PICTURE = 3
"""Bytes a pixel that a decoder takes for a picture and what it notes beside it (4:2:0, 8 bits)."""

READ_AHEAD = 1 << 20
"""Bytes that ffmpeg asks of a remote file at once: a request to an object store costs more than the bytes."""


def ignore_beat() -> None:
    """The beat of a caller that needs no guard."""


@contextmanager
def open_media(uri: str, beat: Beat = ignore_beat) -> Iterator[InputContainer]:
    """Open a local path, `file://` or `s3://` URI; closed at the end, since garbage collection leaks ffmpeg's memory.

    Raises MediaDenied, UnreadableMedia, TruncatedMedia, and StorageError where the store (not the file) is at fault.
    """
    path = storage.normalise(uri)
    try:
        with storage.open_read(path) as file:
            beat()
            missing = missing_bytes(file)
            beat()
            if not is_local(path):
                with _opened(uri, _Watched(file, beat)) as container:
                    _check_whole(missing, uri)
                    yield container
                return
        with _opened(uri, None, f"file:{path}") as container:
            _check_whole(missing, uri)
            yield container
    except (NotFound, AccessDenied) as error:
        raise MediaDenied(
            f"a listed file must be readable when its turn comes; {uri} is not: {error}; "
            f"check that it still exists and that the credentials allow reading it"
        ) from error


def _check_whole(missing: int, uri: str) -> None:
    if missing:
        raise TruncatedMedia(
            f"a file must be as long as its header says; {uri} lacks {missing} bytes or more: fetch it again"
        )


@contextmanager
def _opened(uri: str, file: "_Watched | None", path: str = "") -> Iterator[InputContainer]:
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    try:
        # Nothing here reads metadata, and a title in another encoding than UTF-8 is no fault.
        with av.open(
            file or path, "r", options=options, buffer_size=READ_AHEAD, metadata_errors="replace"
        ) as container:
            yield container
    except av.FFmpegError as error:
        pass_on_memory(error)
        if file and file.fault:
            raise file.fault from error
        raise UnreadableMedia(
            f"a video must be a container that ffmpeg can open; {uri} is not: {error.strerror or 'unknown error'}; "
            f"check that the upload is complete and that the file is a video"
        ) from error
    except AvsError:
        if file and file.fault:
            raise file.fault from None
        raise


def pass_on_memory(error: av.FFmpegError | None, pixels: int = 0) -> None:
    """Where an allocation failed ffmpeg says so, or calls the packet damaged: neither tells of the file.

    `error` is None for what is marked as damaged; `pixels` are those of a picture, if one was decoded. Raises
    MemoryError.
    """
    if isinstance(error, MemoryError) or memory_left() < max(SQUEEZED, PICTURE * pixels):
        raise MemoryError from error


def is_local(uri: str) -> bool:
    """Whether a URI names a file of this machine."""
    return not storage.normalise(uri).startswith("s3://")


def local_path(uri: str) -> str:
    """The path of a local URI."""
    return storage.normalise(uri)


def prepare(video: VideoStream, max_pixels: int) -> None:
    """One thread a file (many files run side by side), and ffmpeg's own guard against a size that grows later.

    ffmpeg counts the pixels that are coded, which are up to a block more on each side than those that are shown.
    """
    video.codec_context.thread_count = 1
    video.codec_context.options = {"max_pixels": str(2 * max_pixels + CODED_MARGIN)}


def packets(
    container: InputContainer, streams: tuple[VideoStream | AudioStream, ...], source: str, beat: Beat
) -> Iterator[AnyPacket]:
    """Packets of these streams (none: of all) to the end of the file; those that flush the decoders come last.

    Raises CorruptMedia.
    """
    try:
        for packet in container.demux(*streams):
            beat()
            yield packet
    except IndexError:
        return  # at the end PyAV also flushes streams that began midway, after those that it knows
    except av.FFmpegError as error:
        pass_on_memory(error)
        raise CorruptMedia(
            f"a file must be readable to its end; {source} stops being so: {error.strerror or 'unknown error'}: "
            f"fetch it again, or convert it"
        ) from error


class _Watched(io.RawIOBase):
    """A remote file that remembers the store's fault: ffmpeg only reports "input/output error"."""

    def __init__(self, file: io.BufferedReader, beat: Beat) -> None:
        super().__init__()
        self._file, self._beat = file, beat
        self.fault: AvsError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        try:
            found = self._file.read(size)
        except AvsError as error:
            self.fault = error
            raise
        self._beat()
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
