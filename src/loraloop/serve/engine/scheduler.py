"""The one thread that owns the model."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from loraloop.errors import BusyError, LoraloopError, ModelError
from loraloop.records import Chunk
from loraloop.serve.engine.batch import Batch
from loraloop.serve.engine.sampling import choose

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from loraloop.serve.engine.answer import Answer

log = logging.getLogger(__name__)
T = TypeVar("T")
LATE = "the server is busy: no place came free before the request's deadline; ask again later"
CLOSED = "the server is shutting down; ask again later"


class Scheduler:
    """Runs the batch, token after token, and whatever else needs the model between two tokens.

    At each boundary between tokens, in this order: calls (an adapter's examination), answers that were left or are late
    go, the first of the queue take the free places and are read together, every row gets its next token. Nobody waits
    for anybody's answer to end; what all wait for is one pass over the prompts that join, or one examination.

    Args:
        model: In evaluation mode; no other thread may run it until :meth:`close` has returned.
        max_batch: Answers generated together.
        ends: Tokens that end an answer.
    """

    def __init__(self, model: PreTrainedModel, max_batch: int, ends: frozenset[int]) -> None:
        self.batch = Batch(model)
        self._max_batch, self._ends = max_batch, ends
        self._queue: deque[Answer] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._ready: list[tuple[Answer, Chunk | Exception]] = []
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
        """How many answers have no place yet."""
        return len(self._queue)

    def enter(self, answer: Answer) -> None:
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
                    log.exception("the model's thread starts afresh")
                    self._end_all(ModelError(f"generation failed: {error}"))
                self._hand_over()
        self._end_all(BusyError(CLOSED))

    def _boundary(self) -> None:
        self._calls_between()
        self._sweep()
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

    def _sweep(self) -> None:
        """Let go whoever was left or is late."""
        with self._changed:
            gone = [answer for answer in self._queue if answer.left or answer.late]
            for answer in gone:
                self._queue.remove(answer)
        self._ready.extend((answer, BusyError(LATE)) for answer in gone)
        left = [row for row in self.batch.rows if row.left]
        late = [row for row in self.batch.rows if row.late]
        self._ready.extend((row, row.end("length")) for row in late)
        self.batch.drop([*left, *late])

    def _admit(self) -> None:
        with self._changed:
            free = self._max_batch - len(self.batch.rows)
            joining = [self._queue.popleft() for _ in range(min(free, len(self._queue)))]
        if joining:
            self._advance(joining, lambda: self.batch.join(joining))

    def _step(self) -> None:
        if self.batch.rows:
            self._advance(list(self.batch.rows), self.batch.step)

    def _advance(self, rows: Sequence[Answer], think: Callable[[], Tensor]) -> None:
        try:
            logits = think()
            tokens = choose(logits, [row.sampler for row in rows])
            new = zip(rows, tokens, logits, strict=True)
            pieces = [row.take(token, scores, self._ends) for row, token, scores in new]
        except Exception as error:
            self._fail(rows, error)
            return
        self._ready.extend((row, piece) for row, piece in zip(rows, pieces, strict=True) if piece)
        self.batch.drop([row for row, piece in zip(rows, pieces, strict=True) if piece and piece.finish])

    def _fail(self, rows: Sequence[Answer], error: Exception) -> None:
        """End ``rows`` with an error; a batch in which a step failed is not whole any more and goes with them."""
        log.exception("%d answers failed", len(rows))
        told = error if isinstance(error, LoraloopError) else ModelError(f"generation failed: {error}")
        self._ready.extend((row, told) for row in rows)
        if any(row in self.batch.rows for row in rows):
            self._ready.extend((row, told) for row in self.batch.rows if row not in rows)
            self.batch.clear()

    def _hand_over(self) -> None:
        """Give each event loop its pieces in one call: waking a loop costs more than a piece."""
        ready, self._ready = self._ready, []
        for loop in {answer.loop for answer, _ in ready}:
            mine = [(answer.pieces, piece) for answer, piece in ready if answer.loop is loop]
            try:
                loop.call_soon_threadsafe(_put, mine)
            except RuntimeError:  # the loop was closed, and its answers with it
                for answer, _ in ready:
                    answer.left = answer.left or answer.loop is loop

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


def _put(pieces: Sequence[tuple[Any, Chunk | Exception]]) -> None:
    for queue, piece in pieces:
        queue.put_nowait(piece)
