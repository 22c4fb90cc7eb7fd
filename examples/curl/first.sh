curl -s "$OTP_URL/v1/verifications" \
  -H "Authorization: Bearer $SHOP_API_KEY" \
  -H 'Idempotency-Key: order-17-code-1' \
  -H 'Content-Type: application/json' \
  -H 'Prefer: wait=10' \
  -d '{ "provider": "cepta", "otp": "012345",
        "params": { "transactionRef": "TX12345ABC", "paymentId": "PAY12345XYZ", "md": "merchant_data" } }'
