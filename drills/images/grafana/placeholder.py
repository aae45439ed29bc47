"""In the place of Grafana, where its image cannot be had: answers its health check alone."""

import http.server


class Health(http.server.BaseHTTPRequestHandler):
    """Answers `/api/health`; anything else says what this is."""

    def do_GET(self) -> None:
        """Answer one request."""
        healthy = self.path == "/api/health"
        self.send_response(200 if healthy else 501)
        self.end_headers()
        said = b'{"database": "ok"}' if healthy else b"This is a stand-in, not Grafana.\n"
        self.wfile.write(said)


http.server.ThreadingHTTPServer(("", 3000), Health).serve_forever()
