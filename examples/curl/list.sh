#!/bin/sh
# What this client has ever put in for one transaction, oldest first: sh list.sh TRANSACTION_REF
set -eu
printf 'header = "Authorization: Bearer %s"\n' "$OTP_API_KEY" |
  curl --silent --show-error --fail --config - --get "$OTP_URL/v1/verifications" \
    --data-urlencode provider=cepta --data-urlencode "reference=$1"
