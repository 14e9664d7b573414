"""Just enough HTTP/2 to tell, in a proxy, when a call begins and ends, and to say what no library would."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def call_headers(method: str, more: Mapping[str, str] | None = None) -> bytes:
    """Return the header block of a call, in HPACK without compression."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/stiqueue.v1.QueueService/{method}",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **(more or {}),
    }
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields.items())


def _text(text: str) -> bytes:
    """Return a string of HPACK: its length in 7 bits, or 127 and the rest in groups of 7, then its bytes."""
    rest = len(text) - 127
    if rest < 0:
        return bytes([len(text)]) + text.encode()
    length = bytearray([127])
    while rest >= 128:
        length.append(rest % 128 | 128)
        rest //= 128
    return bytes([*length, rest]) + text.encode()


OPENING = PREFACE + frame(SETTINGS)
"""How each client begins."""


class FrameScanner:
    """Finds the frames in one direction of a connection, fed with its bytes from the beginning."""

    def __init__(self, from_client: bool) -> None:
        """Skip the client's preface when `from_client`."""
        self._skip = len(PREFACE) if from_client else 0
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Yield type, flags and stream number of each frame whose header ends in `data`."""
        data = self._pending + data
        at = 0
        while True:
            skipped = min(self._skip, len(data) - at)
            at += skipped
            self._skip -= skipped
            if self._skip or len(data) - at < HEADER_BYTES:
                break
            self._skip = int.from_bytes(data[at : at + 3], "big")
            yield data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFF_FFFF
            at += HEADER_BYTES
        self._pending = data[at:]
