"""Its settings."""

from __future__ import annotations

import os

SECRET_KEY = "tests"
USE_TZ = True
INSTALLED_APPS = ["stiqueue.adapters.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": os.environ.get("CACHE", ""),
    }
}
PORT = int(os.environ.get("PORT", "0")) or 1234
TASKS = {
    "default": {
        "BACKEND": "stiqueue.adapters.django.StiQueueBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"port": PORT, "results": "default", "prefix": "shop."},
    },
    "committed": {
        "BACKEND": "stiqueue.adapters.django.StiQueueBackend",
        "OPTIONS": {"port": PORT, "on_commit": True},
    },
}
