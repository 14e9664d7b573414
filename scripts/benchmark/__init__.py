"""StiQueue and its peers, measured side by side on this machine: run by ``scripts/bench``."""
