"""The command line: which commands there are. Each is loaded when it is called."""

import ast
import signal
import sys
from pathlib import Path
from typing import Final

from cyclopts import App

from credenza import __version__
from credenza.settings import SettingsError

COMMANDS: Final = {
    "serve": "serve:serve",
    "migrate": "migrate:migrate",
    "seed": "seed:seed",
    "import": "transfer:import_",
    "export": "transfer:export",
}
"""Where each command is below `commands`."""

app = App(
    name="credenza",
    help="A self-hosted JSON document service. Settings come from the environment.",
    version=__version__,
)


def _said(place: str) -> str | None:
    """Return a command's docstring, whose first line `--help` lists, without loading it."""
    module, _, name = place.partition(":")
    tree = ast.parse(Path(__file__).with_name("commands").joinpath(f"{module}.py").read_bytes())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return next(ast.get_docstring(node) for node in functions if node.name == name)


for _name, _place in COMMANDS.items():
    app.command(f"credenza.commands.{_place}", name=_name, help=_said(_place))
app.command("credenza.commands.serve:one_of_many", name="one-of-many", show=False)


def main() -> None:
    """Run the command that the arguments name."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except SettingsError as error:
        sys.exit("\n".join(f"credenza: {line}" for line in str(error).splitlines()))
