#!/bin/sh
# Hands one code to otp-pipeline and waits for the outcome. A POSIX shell and curl 7.55 or later.
#
#   sh enqueue.sh ORDER TRANSACTION_REF CODE
#
# OTP_URL is where the intake listens, OTP_API_KEY the key of this client.
set -eu

order=$1 transaction_ref=$2 code=$3
intake="$OTP_URL/v1/verifications"
give_up_at=$(($(date +%s) + 60))
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT

# The answer to a request that may be repeated: nobody knows what became of one that was cut off.
# $1 is the URL, $2 what else curl is told; both on its standard input, because everybody sees a command line.
ask() {
  while :; do
    rm -f "$files/head"
    status=$(curl --silent --max-time 35 --config - <<END
url = "$1"
header = "Authorization: Bearer $OTP_API_KEY"
header = "Prefer: wait=20"
dump-header = "$files/head"
output = "$files/body"
write-out = "%{http_code}"
${2-}
END
    ) || status=000
    case $status in
      200 | 202) cat "$files/body"; return ;;
      000 | 409 | 429 | 5??) ;;
      *) echo "$status $(cat "$files/body")" >&2; return 1 ;;
    esac
    [ "$(date +%s)" -lt "$give_up_at" ] || { echo "no answer" >&2; return 1; }
    retry_after=$(sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9]*\).*/\1/p' "$files/head" 2>/dev/null) || true
    sleep "${retry_after:-1}"
  done
}

# A shell has no JSON: this reads a field of the answer, and nothing that was put in may have a quote in it.
field() { printf '%s' "$verification" | sed -n "s/^[^[]*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

body=$(printf '{"provider":"cepta","otp":"%s","params":{"transactionRef":"%s","paymentId":"PAY-%s","md":"merchant_data"},%s}' \
  "$code" "$transaction_ref" "$order" "\"metadata\":{\"order\":\"$order\"}")
# One key for each code that a customer typed: a repeat is the same verification, another code is another one.
verification=$(ask "$intake" "header = \"Idempotency-Key: $order-$transaction_ref-1\"
header = \"Content-Type: application/json\"
data = \"$(printf '%s' "$body" | sed 's/"/\\"/g')\"")

# Accepted is not paid: the provider is still asked for proof. The webhook will tell as well.
while [ "$(field final)" = false ] && [ "$(date +%s)" -lt "$give_up_at" ]; do
  verification=$(ask "$intake/$(field id)?after=$(field sequence)")
done
echo "$order $(field otp) $(field transaction) $(field nextStep)"
