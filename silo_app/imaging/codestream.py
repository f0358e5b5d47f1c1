"""What a compressed image says of its own size, read before a decoder allocates memory for it.

A JPEG, JPEG-LS or JPEG 2000 stream of a few bytes may declare gigapixels (ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2,
15444-1 A.5.1).
"""

from pydicom.encaps import get_frame

from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["check_codestream", "codestream_size"]

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOF0-15 without tables; SOF55
_START_OF_JPEG, _END_OF_JPEG = b"\xff\xd8", b"\xff\xd9"
_TRAILER = 64
"""Bytes in which the end marker is looked for; writers pad to an even length, or more."""
_FIRST_MARKER = 0xC0
"""0x00 is a stuffed byte of a scan, and 0x02 to 0xBF are reserved (B.1.1.3)."""
_STANDALONE = frozenset(range(0xD0, 0xD9)) | {0x01}


def check_codestream(pixel_data: bytes, rows: int, columns: int) -> None:
    """Raise `ImageUnsupported` if the one frame is missing or declares another size than the dataset."""
    try:
        frame = get_frame(pixel_data, 0, number_of_frames=1)
    except Exception as error:  # noqa: BLE001  (a parser of hostile bytes)
        raise refusal(RefusalReason.TRUNCATED, f"the frame cannot be found ({type(error).__name__})") from None
    if not frame:
        raise refusal(RefusalReason.NO_PIXELS, "the frame is empty")
    if frame[:2] == _START_OF_JPEG and _END_OF_JPEG not in frame[-_TRAILER:]:
        # A decoder would make up the rest, or (CharLS) look for it for ever.
        raise refusal(RefusalReason.TRUNCATED, "the compressed image does not end with its end marker")
    if frame[:2] == _START_OF_JPEG and not _segments_follow(frame):
        raise refusal(RefusalReason.DECODE_FAILED, "the compressed image's headers contradict themselves")
    size = codestream_size(frame)
    if size is not None and size != (rows, columns):
        raise refusal(
            RefusalReason.BAD_GEOMETRY,
            f"the compressed image has {size[0]} x {size[1]} pixels where the header says {rows} x {columns}",
        )


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) of a JPEG family stream, or None for another kind (RLE) or one without a header."""
    if frame[:2] == _START_OF_JPEG:
        return _jpeg_size(frame)
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # JPEG 2000: SOC, SIZ; a JP2 box may come before
    if start < 0 or len(frame) < start + 24:
        return None
    x, y, x0, y0 = (int.from_bytes(frame[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return y - y0, x - x0


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker in _FRAME_HEADERS:
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
        if marker == 0xDA:  # the scan: no frame header came before it
            return None
        at += 1 if marker == 0xFF else 2 if marker in _STANDALONE else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _segments_follow(frame: bytes) -> bool:
    """Return whether each segment up to the scan ends where the next marker is, and holds what it must.

    GDCM's codec goes on at the wrong byte instead, and ends the process when it notices.
    """
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker < _FIRST_MARKER:
            return False
        end = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xC4 and not _tables_fill(frame[at + 4 : end]):
            return False
        if marker in _FRAME_HEADERS and not _is_gray(frame[at + 4 : end]):
            return False
        if marker == 0xDA:
            return end < len(frame)
        at = end
    return False


def _tables_fill(tables: bytes) -> bool:
    """Return whether Huffman tables (ISO/IEC 10918-1 B.2.4.2) take exactly the room that their segment has."""
    at = 0
    while at + 17 <= len(tables):
        at += 17 + sum(tables[at + 1 : at + 17])
    return at == len(tables)


def _is_gray(header: bytes) -> bool:
    """Return whether a frame header (B.2.2) is of 2 to 16 bits and one component."""
    return len(header) == 9 and 2 <= header[0] <= 16 and header[5] == 1
