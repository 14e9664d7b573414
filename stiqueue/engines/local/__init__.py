"""The engine of one process: queues under one lock, leases, and consumers that wait."""
