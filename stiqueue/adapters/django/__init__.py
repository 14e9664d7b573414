"""StiQueue as the backend of Django's tasks, and `manage.py stiqueue_worker`, which runs them.

INSTALLED_APPS = [..., "stiqueue.adapters.django"]
TASKS = {"default": {"BACKEND": "stiqueue.adapters.django.StiQueueBackend"}}

With `django.tasks` of Django 6, or the package django-tasks on an older Django.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stiqueue.adapters.django.backend import StiQueueBackend

__all__ = ["StiQueueBackend"]


def __getattr__(name: str) -> Any:
    """Import the backend when it is asked for: Django imports this package before its settings can be read."""
    if name == "StiQueueBackend":
        from stiqueue.adapters.django.backend import StiQueueBackend

        return StiQueueBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
