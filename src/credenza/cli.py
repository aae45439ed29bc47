"""The command line: which commands there are. Each is loaded when it is called."""

import signal
import sys

from cyclopts import App

from credenza import __version__
from credenza.settings import SettingsError

app = App(
    name="credenza",
    help="A self-hosted JSON document service. Settings come from the environment.",
    version=__version__,
)
app.command("credenza.commands.serve:serve", name="serve")
app.command("credenza.commands.serve:one_of_many", name="one-of-many", show=False)
app.command("credenza.commands.migrate:migrate", name="migrate")
app.command("credenza.commands.seed:seed", name="seed")
app.command("credenza.commands.transfer:import_", name="import")
app.command("credenza.commands.transfer:export", name="export")


def main() -> None:
    """Run the command that the arguments name."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except SettingsError as error:
        sys.exit("\n".join(f"credenza: {line}" for line in str(error).splitlines()))
