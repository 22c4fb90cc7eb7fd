"""Receives results as webhooks, each exactly once. Python 3.8 or later, standard library only.

python3 receiver.py PORT INBOX
OTP_WEBHOOK_SECRET is the secret of the configuration, whsec_...; every result becomes a file in INBOX.
"""
import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, INBOX = int(sys.argv[1]), sys.argv[2]
KEY = base64.b64decode(os.environ["OTP_WEBHOOK_SECRET"].split("whsec_", 1)[1])
TOLERANCE_S = 300


def is_authentic(headers, body):
    """Standard Webhooks: HMAC-SHA256 over id, timestamp and the body as it came."""
    webhook_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)


def keep(webhook_id, body):
    """The effect and the memory of it in one step; in a shop, one transaction of its database. False: it was there."""
    name = os.path.join(INBOX, webhook_id + ".json")
    temporary = f"{name}.{os.getpid()}.{time.monotonic_ns()}"
    with open(temporary, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, name)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        authentic = is_authentic(self.headers, body)
        if authentic and keep(self.headers["webhook-id"], body):
            result = json.loads(body)
            print(result["subject"], result["type"], result["data"]["otp"], result["data"]["transaction"], flush=True)
        # A repeat is answered like the first time: else it would come again.
        self.send_response(204 if authentic else 401)
        self.end_headers()

    def log_message(self, *args):
        pass


os.makedirs(INBOX, exist_ok=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()
