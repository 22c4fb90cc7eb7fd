"""Hands one code to otp-pipeline and waits for the outcome. Python 3.8 or later, standard library only.

python3 enqueue.py ORDER TRANSACTION_REF CODE
OTP_URL is where the intake listens, OTP_API_KEY the key of this client.
"""
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request

URL = os.environ["OTP_URL"] + "/v1/verifications"
HEADERS = {"Authorization": "Bearer " + os.environ["OTP_API_KEY"], "Prefer": "wait=20"}


def ask(request, give_up_at):
    """The answer to a request that may be repeated: nobody knows what became of one that was cut off."""
    while True:
        try:
            with urllib.request.urlopen(request, timeout=35) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            may_be_repeated = error.code in (409, 429) or error.code >= 500
            if not may_be_repeated or time.time() > give_up_at:
                sys.exit(f"{error.code} {error.read().decode()}")
            time.sleep(int(error.headers.get("Retry-After", "1")))
        except (OSError, http.client.HTTPException) as error:
            if time.time() > give_up_at:
                sys.exit(f"no answer: {error}")
            time.sleep(1)


order, transaction_ref, code = sys.argv[1:4]
body = {
    "provider": "cepta",
    "otp": code,
    "params": {"transactionRef": transaction_ref, "paymentId": "PAY-" + order, "md": "merchant_data"},
    "metadata": {"order": order},
}
# One key for each code that a customer typed: a repeat is the same verification, another code is another one.
headers = {**HEADERS, "Idempotency-Key": f"{order}-{transaction_ref}-1", "Content-Type": "application/json"}
give_up_at = time.time() + 60
verification = ask(urllib.request.Request(URL, json.dumps(body).encode(), headers, method="POST"), give_up_at)

# Accepted is not paid: the provider is still asked for proof. The webhook will tell as well.
while not verification["final"] and time.time() < give_up_at:
    news = f"{URL}/{verification['id']}?after={verification['sequence']}"
    verification = ask(urllib.request.Request(news, headers=HEADERS), give_up_at)

print(order, verification["otp"], verification["transaction"], verification["nextStep"])
