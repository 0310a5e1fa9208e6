"""Many events become one look; one look per object at a time; failures wait ever longer."""

import asyncio

from llm_operator.cluster.work_queue import Key, WorkQueue

A, B = Key("ns", "a"), Key("ns", "b")


def a_queue() -> WorkQueue:
    return WorkQueue(lambda: 0.0, lambda: 0.999)


async def take(queue: WorkQueue) -> Key | None:
    """Return the next key, or None where there is none at once."""
    try:
        async with asyncio.timeout(0.02):
            return await queue.take()
    except TimeoutError:
        return None


async def test_many_events_become_one_look() -> None:
    queue = a_queue()
    for _ in range(100):
        queue.add(A)
    assert await take(queue) == A
    queue.done(A)
    assert await take(queue) is None


async def test_first_come_first_served() -> None:
    queue = a_queue()
    for key in (B, A, B):
        queue.add(key)
    assert [await take(queue), await take(queue)] == [B, A]


async def test_an_object_is_never_looked_at_twice_at_once() -> None:
    queue = a_queue()
    queue.add(A)
    assert await take(queue) == A
    queue.add(A)
    assert await take(queue) is None
    queue.done(A)
    assert await take(queue) == A, "what happened meanwhile is looked at"


async def test_failures_wait_ever_longer_and_success_forgets_them() -> None:
    queue = a_queue()
    pauses_s = []
    for _ in range(12):
        queue.add(A)
        await take(queue)
        pauses_s.append(queue.failed(A))
    assert [round(pause_s, 1) for pause_s in pauses_s[:4]] == [0.2, 0.4, 0.8, 1.6]
    assert max(pauses_s) <= 30
    queue.add(A)
    await take(queue)
    queue.done(A)
    queue.add(A)
    await take(queue)
    assert queue.failed(A) <= 0.2
    queue.forget(A)


async def test_a_failed_look_comes_again_by_itself() -> None:
    queue = WorkQueue(lambda: 0.0, lambda: 0.0)
    queue.add(A)
    await take(queue)
    queue.failed(A)
    async with asyncio.timeout(2):
        assert await queue.take() == A


async def test_an_event_during_a_failing_look_does_not_make_it_spin() -> None:
    queue = a_queue()
    queue.add(A)
    await take(queue)
    queue.add(A)
    queue.failed(A, at_least_s=5)
    assert await take(queue) is None
    queue.forget(A)


async def test_a_reminder_leaves_a_key_in_its_back_off_and_an_event_does_not() -> None:
    queue = a_queue()
    queue.add(A)
    await take(queue)
    queue.failed(A, at_least_s=60)
    queue.remind(A)
    assert await take(queue) is None
    queue.add(A)
    assert await take(queue) == A
    queue.done(A)
    queue.remind(A)
    assert await take(queue) == A


async def test_the_earliest_of_several_delays_wins() -> None:
    queue = a_queue()
    queue.add_after(A, 60)
    queue.add_after(A, 0.01)
    queue.add_after(A, 60)
    async with asyncio.timeout(2):
        assert await queue.take() == A


async def test_the_oldest_wait_counts_work_that_hangs() -> None:
    now_s = [0.0]
    queue = WorkQueue(lambda: now_s[0], lambda: 0.0)
    assert queue.oldest_wait_s() == 0
    queue.add(A)
    await take(queue)
    now_s[0] = 7.0
    assert queue.oldest_wait_s() == 7
    queue.done(A)
    assert queue.oldest_wait_s() == 0
