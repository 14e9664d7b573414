"""Tests of the data file: what is in it, who holds it, and what becomes of it when something goes wrong."""
