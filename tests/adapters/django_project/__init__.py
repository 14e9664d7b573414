"""A project of Django for tests."""
