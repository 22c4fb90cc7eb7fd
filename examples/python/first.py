import json, os, urllib.request

verification = {
    "provider": "cepta",
    "otp": "012345",  # a string: a number would lose the 0
    "params": {"transactionRef": "TX24680GHI", "paymentId": "PAY24680RST", "md": "merchant_data"},
}
request = urllib.request.Request(
    os.environ["OTP_URL"] + "/v1/verifications",
    json.dumps(verification).encode(),
    {
        "Authorization": "Bearer " + os.environ["SHOP_API_KEY"],
        "Idempotency-Key": "order-19-code-1",
        "Content-Type": "application/json",
        "Prefer": "wait=10",
    },
)
with urllib.request.urlopen(request, timeout=15) as answer:
    print(answer.read().decode())
