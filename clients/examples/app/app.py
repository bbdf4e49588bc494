"""The backend of an application with a chat. Usage: app.py add NAME < PASSWORD, or app.py serve

It signs users in, answers in their rooms, and bans users who advertise. README.md has the settings.
"""

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import environ
from threading import Lock
from typing import Any

import jwt

BODY_BYTES_MAX = {"/login": 4096, "/webhooks": 1024 * 1024}  # A delivery has about 512 KiB.
TOKEN_SECONDS, SIGNATURE_SECONDS_MAX = 3600, 300
REPEAT_SECONDS = 2 * 86_400  # Parley repeats an event for a day.
NAME = re.compile("[a-z0-9][a-z0-9._-]{0,47}")  # Names are nicknames, so no two differ in case alone.
RULES, FORBIDDEN = "Be kind. Advertisements end your account.", "buy now"
deliveries = Lock()


def database() -> sqlite3.Connection:
    """Opens the users and the ids of handled events. Each statement is a transaction of its own."""
    opened = sqlite3.connect(environ["APP_DATABASE"], isolation_level=None)
    opened.execute("create table if not exists users (name primary key, salt, hash, banned default false)")
    opened.execute("create table if not exists handled (id primary key, time)")
    return opened


def hash_of(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def add_user(name: str, password: str) -> None:
    if not NAME.fullmatch(name):
        sys.exit("a name has 1 to 48 of the characters a-z 0-9 . _ - and begins with a letter or digit")
    user = (name, salt := secrets.token_bytes(16), hash_of(password, salt))
    with closing(database()) as db:
        if not db.execute("insert or ignore into users (name, salt, hash) values (?, ?, ?)", user).rowcount:
            sys.exit(f"there is a user {name} already")


def login(body: bytes) -> tuple[int, dict[str, Any]]:
    """Checks a name and a password, and returns a token that opens the chat."""
    name, password = (str(json.loads(body)[field]) for field in ("name", "password"))
    with closing(database()) as db:
        found = db.execute("select salt, hash, banned from users where name = ?", (name,)).fetchone()
    salt, expected, is_banned = found or (b"", b"", False)
    # The hash is computed for unknown names too, so the time of the answer does not tell them apart.
    if not hmac.compare_digest(hash_of(password, salt), expected):
        return 401, {"error": "name or password is wrong"}
    if is_banned:
        return 403, {"error": "this account is banned"}
    now, rooms = int(time.time()), [{"match": "#app-*", "may": ["join", "send", "history"]}]
    claims = {"iss": environ["TOKEN_ISSUER"], "aud": "parley", "iat": now, "exp": now + TOKEN_SECONDS}
    claims |= {"sub": f"user:{name}", "nick": name, "rooms": rooms}
    return 200, {"token": jwt.encode(claims, environ["TOKEN_SECRET"], algorithm="HS256")}


def is_signed(header: str, body: bytes) -> bool:
    """Checks a header `Parley-Signature`: `t=<Unix seconds>,v1=<hex>`, with a v1 for each secret of the sender."""
    parts = [part.partition("=")[::2] for part in header.split(",")]
    seconds = next((value for name, value in parts if name == "t"), "")
    if not seconds.isdecimal() or len(seconds) > 12 or abs(time.time() - int(seconds)) > SIGNATURE_SECONDS_MAX:
        return False
    tag = hmac.digest(environ["WEBHOOK_SECRET"].encode(), f"{seconds}.".encode() + body, "sha256").hex().encode()
    return any(hmac.compare_digest(tag, value.encode()) for name, value in parts if name == "v1")


def receive(header: str, body: bytes) -> int:
    """Handles each event of a delivery once, and returns the HTTP status. After a failure the delivery comes again."""
    if not is_signed(header, body):
        return 401
    with deliveries, closing(database()) as db:
        db.execute("delete from handled where time < ?", (time.time() - REPEAT_SECONDS,))
        for event in json.loads(body)["events"]:
            if not db.execute("select 1 from handled where id = ?", (event["id"],)).fetchone():
                handle(event, db)
                db.execute("insert into handled values (?, ?)", (event["id"], time.time()))
    return 204


def handle(event: dict[str, Any], db: sqlite3.Connection) -> None:
    """Answers questions about the rules, and bans users who advertise. The keys make a second attempt harmless."""
    if event["type"] != "message" or event.get("from_api") or not isinstance(event["body"], str):
        return  # Messages of the application are events too.
    if event["body"] == "!rules":
        call("/v1/messages", {"to": event["room"], "from": "house", "body": RULES, "key": f"rules-{event['id']}"})
    elif FORBIDDEN in event["body"].lower() and "user" in event:
        db.execute("update users set banned = true where 'user:' || name = ?", (event["user"],))
        call("/v1/bans", {"user": event["user"], "reason": "advertising", "key": f"ban-{event['id']}"})


def call(path: str, fields: dict[str, Any]) -> None:
    """Calls the server API. Raises `OSError` if the call has to be repeated."""
    headers = {"Authorization": f"Bearer {environ['API_KEY']}"}
    request = urllib.request.Request(environ["API_URL"] + path, json.dumps(fields).encode(), headers)
    try:
        urllib.request.urlopen(request, timeout=3).close()
    except urllib.error.HTTPError as refusal:
        print(f"{path}: {refusal.read().decode()}", file=sys.stderr)
        if refusal.code == 429 or refusal.code >= 500:  # Any other refusal would be the same again.
            raise


class App(BaseHTTPRequestHandler):
    """`POST /login` is for users, `POST /webhooks` for Parley."""

    timeout = 10

    def do_POST(self) -> None:
        limit, length = BODY_BYTES_MAX.get(self.path, 0), self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 9 or int(length) > limit:
            return self.answer(413 if limit else 404)
        body = self.rfile.read(int(length))
        try:
            if self.path == "/login":
                self.answer(*login(body))
            else:
                self.answer(receive(self.headers.get("Parley-Signature", ""), body))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.answer(400, {"error": repr(error)})
        except (OSError, sqlite3.Error) as error:
            self.answer(503, {"error": repr(error)})

    def answer(self, status: int, fields: dict[str, Any] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(fields).encode() if fields else b"")


if __name__ == "__main__":
    if sys.argv[1] == "add":
        add_user(sys.argv[2], sys.stdin.readline().rstrip("\n"))
    else:
        server = ThreadingHTTPServer(("127.0.0.1", int(environ["APP_PORT"])), App)
        print(json.dumps({"port": server.server_port}), flush=True)
        server.serve_forever()
