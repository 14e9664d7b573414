"""The worker on a pool of threads."""
