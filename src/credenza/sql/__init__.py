"""The only SQL: named statements in `queries.sql`, the schema's history in `migrations/`.

Must not know who runs a statement. `load()` gives each statement by its name.
"""

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


def load() -> dict[str, str]:
    """Return the text of each statement of `queries.sql` by its name, without comments."""
    text = files(__package__).joinpath("queries.sql").read_text()
    parts = _NAME.split(text)[1:]
    return {
        name: _COMMENT.sub("", body).strip().rstrip(";")
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def head() -> str:
    """Return the newest revision among the migrations; revisions are numbers that sort as text."""
    versions = files(__package__).joinpath("migrations", "versions")
    return max(path.name[:4] for path in versions.iterdir() if path.name[:4].isdigit())
