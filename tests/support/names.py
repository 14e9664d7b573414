"""A DNS server of one name, to let that name point elsewhere while clients use it."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType

NO_ERROR, NO_SUCH_NAME = 0, 3
A, IN = 1, 1
HEADER = struct.Struct(">HHHHHH")
ANSWER_FLAGS = 0x8580
"""An answer, from who is in charge of the name; with recursion, as asked."""
TO_THE_NAME_ASKED = 0xC000 | HEADER.size


class Names:
    """Answers every question on a port of 127.0.0.1 with one IPv4 address, or says that there is no such name."""

    def __init__(self, address: str | None = None) -> None:
        """Begin with this address; None: no such name."""
        self.address = address
        """What is answered from now on."""
        self.questions = 0
        """How often an IPv4 address was asked for."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="names", daemon=True)

    def target(self, name: str, port: int) -> str:
        """Return what tells gRPC to ask here for `name`."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/{name}:{port}"

    def __enter__(self) -> Names:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            asked, sender = self._socket.recvfrom(512)
            if not asked:
                return
            self._socket.sendto(self._answer(asked), sender)

    def _answer(self, asked: bytes) -> bytes:
        number, *_ = HEADER.unpack_from(asked)
        end = asked.index(0, HEADER.size) + 5  # of the name, its type and its class
        question = asked[HEADER.size : end]
        address = self.address
        if address is None:
            return HEADER.pack(number, ANSWER_FLAGS | NO_SUCH_NAME, 1, 0, 0, 0) + question
        kind = int.from_bytes(question[-4:-2], "big")
        if kind != A:
            return HEADER.pack(number, ANSWER_FLAGS | NO_ERROR, 1, 0, 0, 0) + question
        self.questions += 1
        record = struct.pack(">HHHIH", TO_THE_NAME_ASKED, A, IN, 0, 4) + socket.inet_aton(address)
        return HEADER.pack(number, ANSWER_FLAGS | NO_ERROR, 1, 1, 0, 0) + question + record
