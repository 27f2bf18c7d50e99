"""Workers that answer line by line, with real child processes."""

import itertools
import os
import sys
import threading

import psutil
import pytest

from loraloop.ocr.pool import LostError, Pool, Worker

CHILD = """
import os, resource, signal, sys
for line in sys.stdin:
    word = line.strip()
    if word == "hang":
        signal.pause()
    if word == "work":
        resource.setrlimit(resource.RLIMIT_CPU, (1, resource.RLIM_INFINITY))
        while True:
            pass
    if word == "die":
        sys.stderr.write("noise first\\nno such library")
        sys.stderr.flush()
        os._exit(3)
    known = {"pid": str(os.getpid()), "limit": os.environ.get("OMP_THREAD_LIMIT", "")}
    print(known.get(word, word.upper()), flush=True)
"""
COMMAND = [sys.executable, "-c", CHILD]


def ask(pool, word, seconds=30.0):
    try:
        return pool.ask(word, seconds).strip()
    except LostError as error:
        return f"lost: {error}"


def test_answers_come_in_the_order_of_the_questions():
    """Two workers answer out of step and the results still come in the order of the items."""
    pool = Pool(COMMAND, {}, 2)
    words = [f"w{i}" for i in range(40)]
    assert list(pool.map(lambda word: ask(pool, word), words)) == [word.upper() for word in words]


def test_workers_that_stay_answer_the_next_map_too():
    """One item at a time is answered by the same process, until the pool is closed."""
    pool = Pool(COMMAND, {}, 2, stay=True)
    [[first], [second]] = [list(pool.map(lambda word: ask(pool, word), ["pid"])) for _ in range(2)]
    assert first == second
    pool.close()
    assert not psutil.pid_exists(int(first))


def test_a_hung_worker_is_replaced_and_only_its_item_is_lost():
    """An item that hangs is reported with its time limit; the items around it are answered."""
    pool = Pool(COMMAND, {}, 1)
    # The child's start counts too, so the first answer is awaited without a tight limit.
    limits = {"hang": 0.5}
    answers = list(pool.map(lambda word: ask(pool, word, limits.get(word, 30.0)), ["a", "hang", "b"]))
    assert answers == ["A", "lost: took longer than 0.5 s", "B"]


def test_a_dead_worker_is_replaced_and_says_why_it_died():
    """An item whose worker dies carries the exit status and the last line of its errors; the others are answered."""
    pool = Pool(COMMAND, {}, 1)
    answers = list(pool.map(lambda word: ask(pool, word), ["a", "die", "b"]))
    assert answers == ["A", "lost: the worker died (exit status 3): no such library", "B"]


@pytest.mark.parametrize(("word", "seconds", "late"), [("hang", 0.5, True), ("work", 30.0, True), ("die", 30.0, False)])
def test_a_lost_worker_says_whether_it_was_late(word, seconds, late):
    """A worker ended by the clock, or by the system for its processor time, was late; one that died was not."""
    worker = Worker(COMMAND, {})
    with pytest.raises(LostError) as lost:
        worker.ask(word, seconds)
    assert lost.value.late is late


def test_a_question_asked_alone_waits_until_the_others_are_answered():
    """While one worker answers alone no other is at work, and two such questions do not wait for each other."""
    pool = Pool(COMMAND, {}, 2)
    at_work: list[str] = []

    def answer(word):
        alone = word.startswith("alone")
        if not alone:
            return ask(pool, word)
        read = pool.ask_alone(word, 30.0).strip()
        at_work.append(read)
        return read

    words = ["a", "alone1", "b", "alone2", "c"]
    assert list(pool.map(answer, words)) == [word.upper() for word in words]
    assert sorted(at_work) == ["ALONE1", "ALONE2"]


def test_items_are_taken_as_they_are_needed():
    """An endless stream of items can be read: only a few per worker are taken ahead."""
    taken = itertools.count()
    pool = Pool(COMMAND, {}, 2)
    results = pool.map(lambda number: number, taken)
    assert list(itertools.islice(results, 50)) == list(range(50))
    results.close()
    assert next(taken) <= 50 + 4 * 2 + 1


def test_closing_early_ends_the_workers():
    """No child outlives an iterator that is closed before its end."""
    pool = Pool(COMMAND, {}, 1)
    results = pool.map(lambda word: ask(pool, word), ["pid"] * 20)
    pid = int(next(results))
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_environment_reaches_the_child_alone():
    """A variable for the workers is set in the child and not in this process, where torch would obey it."""
    worker = Worker(COMMAND, {"OMP_THREAD_LIMIT": "1"})
    try:
        assert worker.ask("limit", 30.0).strip() == "1"
        assert "OMP_THREAD_LIMIT" not in os.environ
    finally:
        worker.close()


def test_a_worker_may_be_ended_by_several_threads():
    """The thread that lost a child and the one that ends the pool may both end it, at once."""
    faults: list[Exception] = []

    def close(worker: Worker) -> None:
        try:
            worker.close()
        except Exception as error:
            faults.append(error)

    for _ in range(20):
        worker = Worker([sys.executable, "-c", "input()"], {})
        worker._running()
        threads = [threading.Thread(target=close, args=[worker]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert faults == []
