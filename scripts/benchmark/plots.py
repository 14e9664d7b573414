"""The pictures of a run."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from benchmark.measure import Results
from benchmark.peers import BARE, SYSTEMS

matplotlib.use("agg")
from matplotlib import pyplot  # the backend must be chosen first

OURS, FLOOR, OTHERS = "#c0392b", "#7f8c8d", "#34699a"
CHARTS = {
    "throughput": ("Messages a second, 100 bytes", ["batch-1000.in", "batch-2000.out", "both"]),
    "one-by-one": ("One by one: messages a second", ["single.in", "single.out", "threads-64.in"]),
    "latency": (
        "Microseconds from enq to a waiting deq (bare call: there and back)",
        ["latency.deq-p50", "latency.deq-p99"],
    ),
    "memory": ("Bytes of server memory per queued 100-byte message", ["memory.bytes"]),
    "summary": (
        "Messages a second, 100 bytes",
        ["batch-1000.in", "batch-2000.out", "single.in", "single.out"],
    ),
}
TITLES = {
    "batch-1000.in": "in, batches of 1,000",
    "batch-2000.out": "out and acked, prefetch 2,000",
    "single.in": "in, one by one",
    "single.out": "out and acked, one by one",
}


def draw(results: Results, scale: str, directory: Path) -> None:
    """Write one picture for each chart that has figures."""
    for name, (title, metrics) in CHARTS.items():
        found = [metric for metric in metrics if results.rounds.get(metric)]
        if not found:
            continue
        if name == "summary" and found != metrics:
            continue
        columns = 2 if name == "summary" else len(found)
        rows = len(found) // columns
        size = (5.5 * columns, 4.2 if rows == 1 else 2.6 * rows)
        figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
        for axis, metric in zip(axes.flat, found, strict=True):
            _bars(axis, results, metric)
        figure.suptitle(title)
        figure.tight_layout()
        figure.savefig(directory / f"{scale}-{name}.png", dpi=90, metadata={"Software": None})
        pyplot.close(figure)


def _bars(axis: pyplot.Axes, results: Results, metric: str) -> None:
    """Draw the medians of one metric, with the spread over the rounds."""
    shown = dict(results.rounds[metric])
    if "deq-p" in metric:  # the bare call has no deq; its own time is the floor
        floor = results.rounds.get(metric.replace("deq-", "enq-"), {}).get("echo")
        shown = {"echo": floor, **shown} if floor else shown
    names = list(reversed(shown))
    values = [sorted(shown[name]) for name in names]
    medians = [each[len(each) // 2] for each in values]
    spread = [
        [m - each[0] for m, each in zip(medians, values, strict=True)],
        [each[-1] - m for m, each in zip(medians, values, strict=True)],
    ]
    colours = [
        OURS if name in ("stiqueue", "stiqueue-durable") else FLOOR if name in BARE else OTHERS for name in names
    ]
    axis.barh([SYSTEMS[name].label for name in names], medians, xerr=spread, color=colours, ecolor="#222222")
    axis.set_title(TITLES.get(metric, metric))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f} k" if value >= 10_000 else f"{value:,.0f}")
    axis.tick_params(labelsize=8)
