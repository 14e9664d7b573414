"""The engine with a data file: a journal that writes changes to SQLite before they are confirmed."""
