"""The one part of a multipart/related answer (RFC 2387), taken out of its bytes as it is."""

from email.message import Message

__all__ = ["only_part"]


def only_part(content: bytes, content_type: str) -> bytes:
    """Return the first part; the whole content if the answer is not in parts.

    Raises `ValueError` if the part does not end where its boundary says.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_maintype() != "multipart":
        return content
    mark = b"--" + str(header.get_param("boundary") or "").encode()
    start = content.find(b"\r\n\r\n", content.find(mark))
    end = content.find(b"\r\n" + mark, start + 4)
    if len(mark) == 2 or start < 0 or end < 0:
        raise ValueError("the answer ends before its last boundary")
    return content[start + 4 : end]
