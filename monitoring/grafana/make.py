"""Write `dashboards/` from `boards/`, or check that each file is current."""  # noqa: INP001 - a script

import argparse
import sys
from pathlib import Path
from typing import Final

from boards import documents, overview, pods, postgresql, redis, request
from boards.board import written

HERE: Final = Path(__file__).parent / "dashboards"
MADE: Final = {
    "overview": overview.BOARD,
    "documents": documents.BOARD,
    "postgresql": postgresql.BOARD,
    "redis": redis.BOARD,
    "pods": pods.BOARD,
    "request": request.BOARD,
}


def main() -> int:
    """Write the files, or name those that are not current; the status is 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, name what differs")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the files are")
    arguments = parser.parse_args()
    made = {arguments.folder / f"{name}.json": written(board) for name, board in MADE.items()}
    old = {path for path, text in made.items() if not path.exists() or path.read_text() != text}
    old |= set(arguments.folder.glob("*.json")) - made.keys()
    if arguments.check:
        for path in sorted(old):
            sys.stderr.write(
                f"{path} is not what monitoring/grafana/boards says: run `make docs`\n"
            )
        return min(len(old), 1)
    for path, text in made.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
