"""The behavior of all clients, written once for threads and tasks."""
