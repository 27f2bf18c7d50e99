"""The scheduler: the one thread that runs the model."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from loraloop.errors import BusyError, LoraloopError, ModelError
from loraloop.records import Chunk
from loraloop.serve.engine.batch import LoraBatch
from loraloop.serve.engine.constraint import held
from loraloop.serve.engine.prefix_cache import PrefixCache
from loraloop.serve.engine.sampling import choose

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from loraloop.serve.engine.generation import Generation

log = logging.getLogger(__name__)
T = TypeVar("T")
LATE = "the server is busy: no place came free before the request's deadline; ask again later"
CLOSED = "the server is shutting down; ask again later"


class Scheduler:
    """Runs the batch, token after token, and whatever else needs the model between two tokens.

    Between two tokens it does this, in this order: run calls (the validation of an adapter), remove answers that were
    cancelled or are late, read the prompts of the first in the queue together for the free places, and generate the
    next token of every row. No answer waits for another one's end: all wait for one pass over the joining prompts, or
    one validation.

    Args:
        model: In evaluation mode; no other thread may run it until :meth:`close` has returned.
        max_batch: Answers generated together.
        ends: Tokens that end an answer.
        prefixes: Keeps what was read for answers that have ended.
    """

    def __init__(self, model: PreTrainedModel, max_batch: int, ends: frozenset[int], prefixes: PrefixCache) -> None:
        self.batch = LoraBatch(model, prefixes)
        self._max_batch, self._ends = max_batch, ends
        self._queue: deque[Generation] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._ready: list[tuple[Generation, Chunk | Exception]] = []
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to generate."""
        self._thread.start()

    def close(self) -> None:
        """End every answer with a BusyError, and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        else:
            self._end_all(BusyError(CLOSED))

    def waiting(self) -> int:
        """Number of answers that have no place yet."""
        return len(self._queue)

    def enter(self, answer: Generation) -> None:
        """Queue an answer.

        Raises:
            BusyError: The server is shutting down.
        """
        with self._changed:
            if self._closing:
                raise BusyError(CLOSED)
            self._queue.append(answer)
            self._changed.notify()

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the model's thread between two tokens and return what it returns; before the start, at once.

        Raises:
            BusyError: The server is shutting down.
        """
        import torch

        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise BusyError(CLOSED)
            if not self._thread.is_alive():
                with torch.inference_mode():
                    return work()
            self._calls.append((work, future))
            self._changed.notify()
        return future.result()

    def _run(self) -> None:
        import torch

        with torch.inference_mode():
            while self._wait():
                try:
                    self._boundary()
                except Exception as error:  # whatever it was, the next request finds a thread that works
                    log.exception("the model's thread goes on after an error")
                    self._end_all(ModelError(f"generation failed: {error}"))
                self._hand_over()
        self._end_all(BusyError(CLOSED))

    def _boundary(self) -> None:
        self._calls_between()
        self._remove_ended()
        self._admit()
        self._step()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._calls or self._queue or self.batch.rows)
            return not self._closing

    def _calls_between(self) -> None:
        while self._calls:
            work, future = self._calls.popleft()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    def _remove_ended(self) -> None:
        """Remove the answers that were cancelled or are late."""
        with self._changed:
            gone = [answer for answer in self._queue if answer.cancelled or answer.late]
            for answer in gone:
                self._queue.remove(answer)
        self._ready.extend((answer, BusyError(LATE)) for answer in gone)
        cancelled = [row for row in self.batch.rows if row.cancelled]
        late = [row for row in self.batch.rows if row.late]
        self._ready.extend((row, row.end("length")) for row in late)
        self.batch.drop([*cancelled, *late])

    def _admit(self) -> None:
        with self._changed:
            free = self._max_batch - len(self.batch.rows)
            joining = [self._queue.popleft() for _ in range(min(free, len(self._queue)))]
        if joining:
            self._advance(joining, lambda: self.batch.join(joining))

    def _step(self) -> None:
        if self.batch.rows:
            self._advance(list(self.batch.rows), self.batch.step)

    def _advance(self, rows: Sequence[Generation], forward: Callable[[], Tensor]) -> None:
        try:
            logits = forward()
            tokens = choose(held(logits, [row.constraint for row in rows]), [row.sampler for row in rows])
            new = zip(rows, tokens, logits, strict=True)
            chunks = [row.take(token, scores, self._ends) for row, token, scores in new]
        except Exception as error:
            self._end_with_error(rows, error)
            return
        said = [(row, chunk) for row, chunk in zip(rows, chunks, strict=True) if chunk]
        self._ready.extend(said)
        self.batch.drop([row for row, chunk in said if isinstance(chunk, Exception) or chunk.finish])

    def _end_with_error(self, rows: Sequence[Generation], error: Exception) -> None:
        """End ``rows`` with an error; a batch in which a step failed is unusable, so its other rows end too."""
        log.exception("%d answers failed", len(rows))
        failure = error if isinstance(error, LoraloopError) else ModelError(f"generation failed: {error}")
        self._ready.extend((row, failure) for row in rows)
        if any(row in self.batch.rows for row in rows):
            self._ready.extend((row, failure) for row in self.batch.rows if row not in rows)
            self.batch.clear()

    def _hand_over(self) -> None:
        """Give each event loop its chunks in one call, since waking a loop costs more than a chunk."""
        ready, self._ready = self._ready, []
        for loop in {answer.loop for answer, _ in ready}:
            mine = [(answer.chunks, chunk) for answer, chunk in ready if answer.loop is loop]
            try:
                loop.call_soon_threadsafe(_put, mine)
            except RuntimeError:  # the loop was closed, and its answers with it
                for answer, _ in ready:
                    answer.cancelled = answer.cancelled or answer.loop is loop

    def _end_all(self, error: Exception) -> None:
        with self._changed:
            queued, calls = list(self._queue), list(self._calls)
            self._queue.clear()
            self._calls.clear()
        self._ready.extend((answer, error) for answer in [*self.batch.rows, *queued])
        self._hand_over()
        self.batch.clear()
        for _, future in calls:
            future.set_exception(error)


def _put(chunks: Sequence[tuple[Any, Chunk | Exception]]) -> None:
    for queue, chunk in chunks:
        queue.put_nowait(chunk)
