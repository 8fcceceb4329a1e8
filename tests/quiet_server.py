"""An HTTP server of a test that says nothing on standard error."""

from __future__ import annotations

from http.server import ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """A client that goes away early is what some tests are about; its report would land in another test's output."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: what the server saw is asserted on, not printed."""
