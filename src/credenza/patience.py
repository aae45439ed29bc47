"""A limit on waiting that costs nearly nothing where nobody waits long.

`asyncio.timeout` sets and cancels a timer each time, which takes longer than checking a document.
Here one timer looks now and then for who waits too long. Must not know what is waited for.
"""

import asyncio
from types import TracebackType
from typing import Any, Final

LOOKS: Final = 16
"""How often it is looked within the limit, which is overstepped by a part of it at the most."""


LATE: Final = float("-inf")
"""The end of who has waited too long and is told so."""


class Patience:
    """Lets a task wait for so many seconds, then raises TimeoutError there.

    `with patience: await …`, not within each other in one task.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        """Begin to wait."""
        loop = asyncio.get_running_loop()
        self._ends[_current_task()] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self.seconds / LOOKS, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Wait no more."""
        task = _current_task()
        is_late = self._ends.pop(task) == LATE
        if is_late and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _look(self) -> None:
        """Cancel who waits too long; who came first stands first."""
        loop, self._timer = asyncio.get_running_loop(), None
        for task, end in list(self._ends.items()):
            if end > loop.time():
                break
            if end != LATE:
                self._ends[task] = LATE
                task.cancel()
        if self._ends:
            self._timer = loop.call_later(self.seconds / LOOKS, self._look)


def _current_task() -> asyncio.Task[Any]:
    """Return the task that runs; RuntimeError where none does."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("only a task can wait")
    return task
