"""The console: its parts, its addresses, and its pages in a real browser."""
