"""A process that uses one system as told: a job per line of its input, a result per line of its output, as JSON.

``python -m benchmark.driver KIND PORT``. Clients run in processes of their own, so that no two share an interpreter,
and the original StiQueue, whose package has the same name, can run in another environment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import traceback
from typing import Any

from benchmark.clients import connect
from benchmark.clients.base import Unsupported


def main() -> None:
    """Do jobs until the input ends."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    client = connect(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        answer: dict[str, Any] = {}
        began = time.perf_counter()
        try:
            method = getattr(client, job["do"], None)
            if method is None:
                raise Unsupported(job["do"])
            result = method(**job["with"])
            answer["seconds"] = time.perf_counter() - began
            answer["result"] = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result  # type: ignore[arg-type]
        except Unsupported:
            answer["unsupported"] = True
        except Exception:
            answer["failed"] = traceback.format_exc(limit=-3)
        print(json.dumps(answer), file=results, flush=True)
    client.close()


if __name__ == "__main__":
    main()
