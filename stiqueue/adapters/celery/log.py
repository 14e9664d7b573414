"""Where the adapter for Celery logs."""

from __future__ import annotations

import logging

logger = logging.getLogger("stiqueue.celery")
