"""The application that brings the command."""

from __future__ import annotations

from django.apps import AppConfig


class StiQueueConfig(AppConfig):
    """Names the application: the last part of its module's name would be "django"."""

    name = "stiqueue.adapters.django"
    label = "stiqueue"
    verbose_name = "StiQueue"
