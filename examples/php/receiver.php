<?php
// Receives results as webhooks, each exactly once. PHP 7.4 or later.
//
//   INBOX=inbox php -S 127.0.0.1:8080 receiver.php
//
// OTP_WEBHOOK_SECRET is the secret of the configuration, whsec_...; every result becomes a file in INBOX.
declare(strict_types=1);

const TOLERANCE_S = 300;

/** Standard Webhooks: HMAC-SHA256 over id, timestamp and the body as it came. */
function isAuthentic(string $id, string $timestamp, string $signatures, string $body): bool
{
    if (!ctype_digit($timestamp) || abs(time() - (int) $timestamp) > TOLERANCE_S) {
        return false;
    }
    $key = base64_decode(substr(getenv('OTP_WEBHOOK_SECRET'), strlen('whsec_')), true);
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $signatures) as $given) {
        if (hash_equals($expected, $given)) {
            return true;
        }
    }
    return false;
}

/** The effect and the memory of it in one step; in a shop, one transaction of its database. False: it was there. */
function keep(string $id, string $body): bool
{
    $inbox = getenv('INBOX');
    @mkdir($inbox, 0777, true);
    $temporary = tempnam($inbox, 'result');
    file_put_contents($temporary, $body);
    $isNew = @link($temporary, "$inbox/$id.json");
    unlink($temporary);
    return $isNew;
}

$body = file_get_contents('php://input');
$id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
if (!isAuthentic($id, $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '', $body)) {
    http_response_code(401);
    return;
}
if (keep($id, $body)) {
    $result = json_decode($body, true, 512, JSON_THROW_ON_ERROR);
    error_log("{$result['subject']} {$result['type']} {$result['data']['otp']} {$result['data']['transaction']}");
}
// A repeat is answered like the first time: else it would come again.
http_response_code(204);
