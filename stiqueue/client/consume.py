"""Dequeueing in a loop: `consume`, for every client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from stiqueue.arguments import check_flag
from stiqueue.client.feed import Feed
from stiqueue.client.holding import Holding
from stiqueue.client.session import CLOSE_SECONDS, M, Session
from stiqueue.errors import Closed, StiQueueError


class Loop(Feed, Generic[M]):
    """One `consume`: its messages, each acked when the next one is asked for. For one thread or task."""

    def __init__(
        self, session: Session[M], prefetch: int, timeout: float | None, queue: str | None, resume: bool = True
    ) -> None:
        """Describe the loop; nothing is opened before its first message is asked for."""
        check_flag("resume", resume)
        self._queue = session.options.queue_of(queue)
        # With `auto_ack` the loop works on one message at a time; without, users may work on all of them.
        concurrency = 1 if session.options.auto_ack else prefetch
        asked = session.options.subscription(self._queue, prefetch, timeout, concurrency=concurrency)
        super().__init__(session, asked, resume)
        self._is_retiring = False
        """Whether no more messages are handed out."""
        self.leases: Holding[M] | None = None
        """The leases of the current stream, once it has delivered messages."""
        self.holds: Callable[[str], bool] = lambda lease_id: False
        """Returns whether a lease of the last messages may still be held."""

    async def messages(self) -> Iterator[M] | None:
        """Wait for the next messages; iterating over them acks each when the next one is asked for."""
        if self.leases is not None:
            await self.leases.give_back()
        batch = await self.next()
        stream = self.stream
        if batch is None or stream is None:
            return None
        leases = self.leases
        if leases is None or leases.stream is not stream:
            leases = self.leases = Holding(self.session, stream, self._queue)
            self.session.acks(stream, leases.flush)
        if self._is_retiring:  # what follows goes back
            leases.retire()
        leases.ahead.extend(batch)
        self.holds = stream.holding()
        return leases.each(self.holds)

    async def quit(self) -> None:
        """End the loop and give back its messages, those that were not handed out as untouched."""
        stream, leases = self.stream, self.leases
        try:
            if stream is not None and leases is not None and not self.is_finished and stream in self.session.streams:
                await leases.quit()
        finally:
            await self.leave()

    async def leave(self) -> None:
        """End the current stream once its acks are answered; unsettled messages go back."""
        leases, self.leases = self.leases, None
        try:
            if leases is not None:
                await leases.flush()
                leases.forget()
        finally:
            await super().leave()

    async def finish(self, held: Sequence[str]) -> None:
        """Take no more messages; `messages` returns None once the leases `held` are settled."""
        self.is_finished = True
        leases, options = self.leases, self.session.options
        if held and leases is not None:
            try:
                if len(await leases.finish(held, min(options.timeout, CLOSE_SECONDS))) < len(held):
                    return
            except StiQueueError as error:
                options.logger.warning("%d messages are delivered again: %s", len(held), error)
        self.interrupt()

    async def retire(self) -> None:
        """Take no more messages and give back those sent ahead, from any thread.

        `messages` returns None once the messages that were handed out are settled.
        """
        self._is_retiring = True
        self.resumes = False
        stream, leases = self.stream, self.leases
        handed_out = [] if leases is None else leases.retire()
        seconds = min(self.session.options.timeout, CLOSE_SECONDS)
        try:
            if leases is not None:
                if handed_out and len(await leases.finish(handed_out, seconds)) < len(handed_out):
                    await leases.give_back_ahead(finishes=False)
                    return
                await leases.quit()
        except Closed:
            raise
        except StiQueueError as error:
            self.session.options.logger.debug("the end of the stream gives back what was sent ahead: %s", error)
        self.is_finished = True
        if stream is not None:
            stream.cancel()

    def interrupt(self) -> None:
        """End the current stream, from any thread: unsettled messages go back, and the loop subscribes anew."""
        stream = self.stream
        if stream is not None:
            stream.cancel()
