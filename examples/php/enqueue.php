<?php
// Hands one code to otp-pipeline and waits for the outcome. PHP 7.4 or later with the curl extension.
//
//   php enqueue.php ORDER TRANSACTION_REF CODE
//
// OTP_URL is where the intake listens, OTP_API_KEY the key of this client.
declare(strict_types=1);

/** The answer to a request that may be repeated: nobody knows what became of one that was cut off. */
function ask(string $path, array $headers, ?string $body, float $giveUpAt): array
{
    $headers = array_merge(['Authorization: Bearer ' . getenv('OTP_API_KEY'), 'Prefer: wait=20'], $headers);
    for (;;) {
        $retryAfter = 1;
        $curl = curl_init(getenv('OTP_URL') . '/v1/verifications' . $path);
        curl_setopt_array($curl, [
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => 35,
            CURLOPT_HTTPHEADER => $headers,
            CURLOPT_HEADERFUNCTION => function ($_, string $line) use (&$retryAfter): int {
                if (stripos($line, 'Retry-After:') === 0) {
                    $retryAfter = (int) trim(substr($line, 12));
                }
                return strlen($line);
            },
        ] + ($body === null ? [] : [CURLOPT_POST => true, CURLOPT_POSTFIELDS => $body]));
        $answer = curl_exec($curl);
        $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        if ($status === 200 || $status === 202) {
            return json_decode($answer, true, 512, JSON_THROW_ON_ERROR);
        }
        $mayBeRepeated = $status === 0 || $status === 409 || $status === 429 || $status >= 500;
        if (!$mayBeRepeated || microtime(true) > $giveUpAt) {
            fwrite(STDERR, $status === 0 ? 'no answer: ' . curl_error($curl) : "$status $answer");
            exit(1);
        }
        sleep($retryAfter);
    }
}

[, $order, $transactionRef, $code] = $argv;
$body = json_encode([
    'provider' => 'cepta',
    'otp' => $code, // a string: a code may begin with 0
    'params' => ['transactionRef' => $transactionRef, 'paymentId' => "PAY-$order", 'md' => 'merchant_data'],
    'metadata' => ['order' => $order],
], JSON_THROW_ON_ERROR);
// One key for each code that a customer typed: a repeat is the same verification, another code is another one.
$headers = ["Idempotency-Key: $order-$transactionRef-1", 'Content-Type: application/json'];
$giveUpAt = microtime(true) + 60;
$verification = ask('', $headers, $body, $giveUpAt);

// Accepted is not paid: the provider is still asked for proof. The webhook will tell as well.
while (!$verification['final'] && microtime(true) < $giveUpAt) {
    $verification = ask("/{$verification['id']}?after={$verification['sequence']}", [], null, $giveUpAt);
}

echo "$order {$verification['otp']} {$verification['transaction']} {$verification['nextStep']}\n";
