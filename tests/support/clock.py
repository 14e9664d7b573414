"""A clock for an engine, moved by hand; the one that is shipped for the tests of users."""

from __future__ import annotations

from stiqueue.testing import FakeClock as FakeClock
