"""StiQueue as the broker of Celery, and of anything else on kombu.

import stiqueue.adapters.celery
app = Celery("shop", broker="stiqueue://127.0.0.1:1234")

Importing this module makes the schemes ``stiqueue://`` and, with TLS, ``stiqueues://`` known to kombu.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

from stiqueue.adapters.celery.transport import SSLTransport, Transport

__all__ = ["SSLTransport", "Transport"]

TRANSPORT_ALIASES.setdefault("stiqueue", "stiqueue.adapters.celery:Transport")
TRANSPORT_ALIASES.setdefault("stiqueues", "stiqueue.adapters.celery:SSLTransport")
