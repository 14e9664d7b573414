"""A client process: ``python -m tests.faults.worker ROLE --name NAME --target HOST:PORT --directory DIR ...``."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from . import churning, consuming, flooding, idling, producing, storming
from .control import Control
from .recorder import Recorder


def parse_arguments() -> argparse.Namespace:
    """Return the options of this process."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", required=True, help="names the client in its history")
    common.add_argument("--target", required=True, help="the server's or a proxy's host:port")
    common.add_argument("--directory", type=Path, required=True, help="where histories are recorded")
    common.add_argument("--queue", default="default")
    common.add_argument("--seed", default="0")
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    producing.add_options(roles.add_parser("produce", parents=[common], help="send numbered messages"))
    consuming.add_options(roles.add_parser("consume", parents=[common], help="consume from the bare stub"))
    consuming.add_options(roles.add_parser("client", parents=[common], help="consume with SQClient"))
    storming.add_options(roles.add_parser("storm", parents=[common], help="cancel streams at random moments"))
    storming.add_options(roles.add_parser("crowd", parents=[common], help="many waiting streams"))
    storming.add_options(roles.add_parser("churn", parents=[common], help="come, take a few, and leave in any way"))
    storming.add_options(roles.add_parser("idle", parents=[common], help="many connections with one stream each"))
    flooding.add_options(roles.add_parser("flood", parents=[common], help="flood with frames of HTTP/2"))
    return parser.parse_args()


def main() -> None:
    """Play one role until it is done, or until stdin says stop or ends."""
    options, control = parse_arguments(), Control()
    with Recorder(options.directory, options.name) as recorder:
        if options.role == "produce":
            producing.produce(options, control, recorder)
        elif options.role == "consume":
            consuming.Consumer(options, control, recorder).run()
        elif options.role == "client":
            consuming.consume_with_client(options, control, recorder)
        elif options.role == "flood":
            flooding.flood(options, control)
        elif options.role == "storm":
            asyncio.run(storming.Crowd(options, control, recorder).storm())
        elif options.role == "churn":
            asyncio.run(churning.Churn(options, control, recorder).run())
        elif options.role == "idle":
            idling.Idlers(options, control, recorder).run()
        else:
            asyncio.run(storming.Crowd(options, control, recorder).wait())


if __name__ == "__main__":
    main()
