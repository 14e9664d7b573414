"""How a client waits: blocking a thread, or suspending a task."""
