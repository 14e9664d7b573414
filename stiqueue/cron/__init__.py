"""Recurring jobs without a leader: `Schedule` enqueues the runs of a schedule, on any number of machines at once.

| module | |
|---|---|
| `times` | when a job runs: a cron expression, or a fixed interval |
| `entry` | one job, and which of its runs are due |
| `reading` | a table or a file of jobs, with every mistake named |
| `marks` | which runs were enqueued before, kept in a queue |
| `schedule` | the runner, a client like any other |
| `metrics` | the runner's figures for Prometheus |

Needs the extra ``cron``.
"""

from stiqueue.cron.entry import Entry as Entry
from stiqueue.cron.reading import BadSchedule as BadSchedule
from stiqueue.cron.schedule import Schedule as Schedule
