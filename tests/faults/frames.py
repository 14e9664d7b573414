"""Just enough HTTP/2 to tell, in a proxy, when a call begins and when its answer is complete, and to make a call."""

from __future__ import annotations

from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
DATA = 0x0
HEADERS = 0x1
RST_STREAM = 0x3
SETTINGS = 0x4
PING = 0x6
GOAWAY = 0x7
END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4


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


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """Return a frame of stream `number`."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload


def call_headers(path: str) -> bytes:
    """Return the header block of a gRPC call, in HPACK without compression."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
