"""Patience: who waits too long is told so, nobody else notices."""

import asyncio

import pytest

from credenza.patience import LOOKS, Patience

SECONDS = 0.16


async def waiting(patience: Patience, seconds: float) -> float:
    """Wait for so long within the limit; return how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with patience:
        await asyncio.sleep(seconds)
    return loop.time() - began


async def test_who_waits_too_long_is_told() -> None:
    """A TimeoutError ends the wait, after the limit; the task goes on and may wait again."""
    patience = Patience(SECONDS)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await waiting(patience, 60.0)
    assert SECONDS <= asyncio.get_running_loop().time() - began < 30.0
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # it is a task
    with pytest.raises(TimeoutError):
        await waiting(patience, 60.0)
    await waiting(patience, 0.0)


async def test_others_do_not_notice() -> None:
    """Of many who wait at once, only those who wait too long fail, each after its own limit."""
    patience = Patience(SECONDS)
    tasks = []
    for number in range(30):
        late = number % 3 == 0
        tasks.append(asyncio.create_task(waiting(patience, 60.0 if late else SECONDS / 4)))
        await asyncio.sleep(SECONDS / 30)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, TimeoutError) for outcome in outcomes] == [True, False, False] * 10


async def test_a_cancellation_from_outside_stays_one() -> None:
    """Who is cancelled meanwhile is cancelled, also where its time was over as well."""
    patience = Patience(SECONDS)
    task = asyncio.create_task(waiting(patience, 60.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_comes_after_a_pause_is_told_as_well() -> None:
    """What looks ends where nobody waits, and begins again with who waits next."""
    patience = Patience(SECONDS)
    await waiting(patience, 0.0)
    await asyncio.sleep(3 * SECONDS / LOOKS)
    with pytest.raises(TimeoutError):
        await waiting(patience, 60.0)
