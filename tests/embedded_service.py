"""A service that holds an embedded home, run as a process: `embedded_service.py <home> <uid>`.

Each line of its input is a statement, each line of its output a JSON object: what it says about its
progress, its server's pid and URL, a statement's rows, or the error that ended it.
"""

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg

from credenza.embedded import EmbeddedError, Home, start

URL = "http://127.0.0.1:8000"


def become(uid: int) -> None:
    """Give up root after all is loaded: Python's own folder may be closed to the user."""
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)


def say(**answer: object) -> None:
    """Write one answer."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


async def hold(path: Path) -> None:
    """Serve until there is no more input."""
    try:
        home = Home(path)
        home.announce(URL)
        server = await start(home, lambda line: say(progress=line))
    except EmbeddedError as error:
        say(error=type(error).__name__, message=str(error))
        return
    say(pid=server.pid, url=server.url)
    await follow(server.url)
    await server.stop()
    home.release()


async def follow(url: str) -> None:
    """Run the statements of the input side by side."""
    tasks = []
    with ThreadPoolExecutor() as reader:
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(reader, sys.stdin.readline):
            tasks.append(loop.create_task(answer(url, line)))
    for task in tasks:
        task.cancel()


async def answer(url: str, sql: str) -> None:
    """Run a statement in a connection of its own and say the first column of its rows."""
    connection = await asyncpg.connect(url)
    say(rows=[row[0] for row in await connection.fetch(sql)])
    await connection.close()


if __name__ == "__main__":
    become(int(sys.argv[2]))
    asyncio.run(hold(Path(sys.argv[1])))
