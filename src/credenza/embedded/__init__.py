"""The PostgreSQL that ships in a wheel: one home folder, one holder, one server process.

Must not know what is stored in it or who asks. `Home` is the folder and its lock, `start()` makes
the server of that folder run, `Server` is the running process.
"""

from credenza.embedded.home import EmbeddedError, Home, HomeInUse
from credenza.embedded.keeper import running
from credenza.embedded.server import Server, start

__all__ = ["EmbeddedError", "Home", "HomeInUse", "Server", "running", "start"]
