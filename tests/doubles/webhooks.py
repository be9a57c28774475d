"""A receiver of webhooks that believes only what the library standardwebhooks verifies.

    python webhooks.py PORT SECRET
"""

import http.server
import json
import sys

import standardwebhooks

PORT, SECRET = sys.argv[1:]
webhook = standardwebhooks.Webhook(SECRET)
verified, refused = [], []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {"verified": verified, "refused": refused})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            verified.append({"id": headers["webhook-id"], "body": webhook.verify(body, headers)})
            self.answer(200, {})
        except Exception as error:
            refused.append(repr(error))
            self.answer(401, {})

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler).serve_forever()
