"""Google's token endpoint: exchanges an assertion that PyJWT verifies against the service account's public
key for an access token, refuses every other with invalid_grant, and tells every exchange so far.

    python google_token.py PORT PUBLIC_KEY_FILE KEY_ID CLIENT_EMAIL
"""

import http.server
import json
import pathlib
import sys
import urllib.parse

import jwt

PORT, KEY_FILE, KEY_ID, EMAIL = sys.argv[1:]
KEY = pathlib.Path(KEY_FILE).read_text()
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
exchanges = []


def refusal(form):
    """Why a request gets no token; nothing where it does."""
    try:
        if form["grant_type"] != GRANT or set(form) != {"grant_type", "assertion"}:
            return "not this grant"
        if jwt.get_unverified_header(form["assertion"]).get("kid") != KEY_ID:
            return "another key"
        required = ["iss", "scope", "aud", "iat", "exp"]
        claims = jwt.decode(form["assertion"], KEY, algorithms=["RS256"], issuer=EMAIL,
                            audience="https://oauth2.googleapis.com/token", options={"require": required})
        if SCOPE not in claims["scope"].split() or claims["exp"] - claims["iat"] > 3600:
            return "not this scope, or for too long"
    except (KeyError, jwt.PyJWTError) as error:
        return repr(error)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, exchanges)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        why = refusal(dict(urllib.parse.parse_qsl(body)))
        if self.headers["Content-Type"] != "application/x-www-form-urlencoded":
            why = "not a form"
        exchanges.append(why)
        if why:
            self.answer(400, {"error": "invalid_grant", "error_description": why})
        else:
            token = f"ya29.token-{len(exchanges)}"
            self.answer(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler).serve_forever()
