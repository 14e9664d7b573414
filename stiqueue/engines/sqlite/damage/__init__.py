"""Damaged data files: detecting the damage, and salvaging readable messages."""
