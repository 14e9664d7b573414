"""A client with methods of its own, for the server of extend_server.py.

python examples/extend_client.py --port 1234
"""

from __future__ import annotations

import argparse
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from stiqueue import SQClient


class RevClient(SQClient):
    def rev(self) -> str:
        """Take the next message and return it reversed."""
        return self._ask("/examples.Rev/Rev", self.queue, StringValue)

    def waiting(self) -> int:
        """Return how many messages are ready."""
        return self._ask("/examples.Rev/Waiting", self.queue, Int64Value)

    def shout(self, text: str) -> str:
        """Return `text` in capitals."""
        return self._ask("/examples.Shout/Shout", text, StringValue)

    def _ask(self, method: str, text: str, answer: Any) -> Any:
        with grpc.insecure_channel(f"{self.host}:{self.port}") as channel:
            call = channel.unary_unary(method, StringValue.SerializeToString, answer.FromString)
            return call(StringValue(value=text), timeout=self.timeout).value


def main() -> None:
    parser = argparse.ArgumentParser(description="Two messages, read backwards.")
    parser.add_argument("--port", type=int, default=1234)
    with RevClient(port=parser.parse_args().port) as client:
        client.enq("ABC")
        client.enq("DEFG")
        print(client.waiting(), client.rev(), client.rev(), client.shout("done"))


if __name__ == "__main__":
    main()
