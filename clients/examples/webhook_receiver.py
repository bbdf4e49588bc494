"""Receives webhooks of Parley and prints each event once. Usage: webhook_receiver.py PORT SECRET [PREVIOUS_SECRET]

It refuses a delivery without a valid signature, and one that was signed more than five minutes ago. A delivery may come
again, whole or in parts, so events are recognised by their ids. A real application stores the ids with what it does.
"""

import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

SIGNATURE_SECONDS_MAX = 300
"""Maximum age of a signature, and the maximum difference of two clocks."""
BODY_BYTES_MAX = 16 * 1024 * 1024
"""Maximum size of a delivery: at most 100 events."""
SEEN_MAX = 100_000
"""Number of remembered ids."""


def verify(header: str, body: bytes, secrets: list[str], now: float) -> bool:
    """Checks a header `Parley-Signature`: `t=<Unix seconds>,v1=<hex>`, with one v1 for each secret of the sender."""
    parts = [part.split("=", 1) for part in header.split(",") if "=" in part]
    times = [value for name, value in parts if name == "t"]
    if len(times) != 1 or not times[0].isascii() or not times[0].isdigit() or len(times[0]) > 12:
        return False
    if abs(now - int(times[0])) > SIGNATURE_SECONDS_MAX:
        return False
    signed = f"{times[0]}.".encode() + body
    expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    given = [value for name, value in parts if name == "v1" and value.isascii()]
    return any(hmac.compare_digest(one, other) for one in expected for other in given)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 once the events are taken, 401 without a valid signature, 400 and 413 for other bodies."""

    secrets: list[str] = []
    seen: dict[str, None] = {}
    lock = Lock()

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            return self.answer(413)
        body = self.rfile.read(int(length))
        if not verify(self.headers.get("parley-signature", ""), body, self.secrets, time.time()):
            return self.answer(401)
        try:
            events = [(event["id"], event) for event in json.loads(body)["events"]]
        except (ValueError, KeyError, TypeError):
            return self.answer(400)
        with self.lock:
            for name, event in events:
                if name not in self.seen:
                    self.seen[name] = None
                    print(json.dumps(event, ensure_ascii=False), flush=True)
            while len(self.seen) > SEEN_MAX:
                del self.seen[next(iter(self.seen))]
        self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints nothing: events are the only output."""


def main() -> None:
    Receiver.secrets = sys.argv[2:]
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
