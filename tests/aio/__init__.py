"""What only a client of asyncio can do wrong: cancellation, event loops, and sharing them fairly."""
