/** What comes in over HTTP, and what goes out to whoever asked. */
import { graph, stacked, stat } from './panels.ts';
import { increase, perMinute, perSecond, quantile } from './queries.ts';
import type { Screen } from './screen.ts';

const CODE_COLOURS = {
  '202': 'green',
  '200': 'blue',
  '401': 'orange',
  '429': 'yellow',
  '500': 'red',
  '503': 'purple',
} as const;

/** Of the statuses that there are, those that were answered in the chosen time. */
const ANSWERED = 'and on (code) (sum by (code) (increase(otp_intake_requests_total[$__range])) > 0)';

/** By the kind of their queue, which its name does not tell for sure. */
const ofKind = (value: string, kind: string): string =>
  `${value} * on (queue) group_left (kind) max by (queue, kind) (otp_queue_info{kind="${kind}"})`;

export const intake: Screen = {
  uid: 'otp-intake',
  title: 'OTP intake and webhooks',
  description: 'Whether callers are heard, and whether they hear of their results.',
  rows: [
    {
      title: 'Intake',
      panels: [
        stat({
          title: 'Accepted in this time',
          means:
            'Verifications that were taken (202). The same one again, with the same Idempotency-Key, counts again.',
          unit: 'short',
          decimals: 0,
          width: 4,
          queries: [{ expr: increase('otp_intake_requests_total', '', 'code="202"'), legend: 'accepted' }],
        }),
        stat({
          title: 'Failed',
          means:
            'Requests that were answered with 5xx, of all of the last five minutes. Above 1 % it pages. Empty while none come.',
          runbooks: ['intake-failing'],
          unit: 'percentunit',
          decimals: 1,
          width: 4,
          colours: ['green', [0.001, 'orange'], [0.01, 'red']],
          nothing: 'no requests',
          queries: [
            {
              expr: 'sum(rate(otp_intake_requests_total{code=~"5.."}[5m])) / (sum(rate(otp_intake_requests_total[5m])) > 0)',
              legend: 'failed',
            },
          ],
        }),
        stat({
          title: 'Unknown keys, 10 minutes',
          means:
            'Requests without an API key, or with one that nobody has: 401, but for callbacks without their proof. Above 20 somebody ' +
            'may be guessing.',
          runbooks: ['guessing'],
          unit: 'short',
          decimals: 0,
          width: 4,
          colours: ['green', [5, 'orange'], [20, 'red']],
          queries: [
            {
              expr: `${increase('otp_intake_requests_total', '', 'code="401"', '10m')} - (${increase('otp_callbacks_total', '', 'outcome="refused"', '10m')} or vector(0))`,
              legend: '401',
            },
          ],
        }),
        stat({
          title: 'Told to come later, in this time',
          means:
            '429, by the limit that was reached: rate (clients[].rateLimit), in_flight (clients[].maxInFlight), backlog (the code ' +
            'would be dead before its turn).',
          runbooks: ['codes-die'],
          unit: 'short',
          decimals: 0,
          width: 6,
          queries: [{ expr: increase('otp_intake_limited_total', 'limit'), legend: '{{limit}}' }],
        }),
        stat({
          title: 'Console logins, in this time',
          means:
            'throttled: too many wrong ones before it, so it was not looked at. Many that are not accepted: somebody guesses.',
          runbooks: ['guessing'],
          unit: 'short',
          decimals: 0,
          width: 6,
          queries: [{ expr: increase('otp_console_logins_total', 'outcome'), legend: '{{outcome}}' }],
        }),
        stacked({
          title: 'Requests by status',
          means: 'What callers were answered. Empty while none come.',
          runbooks: ['intake-failing', 'guessing'],
          unit: 'reqps',
          width: 8,
          series: CODE_COLOURS,
          queries: [{ expr: `${perSecond('otp_intake_requests_total', 'code')} ${ANSWERED}`, legend: '{{code}}' }],
        }),
        graph({
          title: 'How long the intake takes',
          means: 'With the time that a caller asked it to wait (Prefer: wait). Empty while no requests come.',
          runbooks: ['intake-failing', 'redis-down'],
          unit: 's',
          width: 8,
          queries: [
            { expr: `${quantile(0.5, 'otp_intake_duration_seconds')} >= 0`, legend: 'half' },
            { expr: `${quantile(0.99, 'otp_intake_duration_seconds')} >= 0`, legend: '99 of 100' },
          ],
        }),
        stacked({
          title: 'Told to come later, a minute',
          means: '429 by client and limit. Others are served meanwhile.',
          runbooks: ['codes-die'],
          unit: 'cpm',
          width: 8,
          queries: [{ expr: perMinute('otp_intake_limited_total', 'client, limit'), legend: '{{client}}: {{limit}}' }],
        }),
      ],
    },
    {
      title: 'Results',
      panels: [
        stacked({
          title: 'Published, a minute',
          means:
            'awaiting: the money is not known yet. settled: a final word. review: a person is asked. Repeats do not count.',
          runbooks: ['needs-review'],
          unit: 'cpm',
          width: 8,
          series: { settled: 'green', awaiting: 'blue', review: 'red' },
          queries: [{ expr: perMinute('otp_results_published_total', 'type'), legend: '{{type}}' }],
        }),
        graph({
          title: 'Not fetched yet',
          means:
            'Results that wait in the queues of their consumers. Customers have paid, and their shop does not know it.',
          runbooks: ['results-not-drained'],
          unit: 'short',
          decimals: 0,
          width: 8,
          queries: [
            { expr: ofKind('max by (queue) (otp_queue_jobs{state="waiting"})', 'results'), legend: '{{queue}}' },
          ],
        }),
        graph({
          title: 'Oldest that is not fetched',
          means: 'Pages after five minutes; 0 when none waits.',
          runbooks: ['results-not-drained'],
          unit: 's',
          width: 8,
          colours: ['green', [300, 'red']],
          queries: [
            { expr: ofKind('max by (queue) (otp_queue_oldest_job_age_seconds)', 'results'), legend: '{{queue}}' },
          ],
        }),
      ],
    },
    {
      title: 'Webhooks',
      panels: [
        stat({
          title: 'Switched off',
          means: 'Webhooks that answered 410, or that somebody paused. Empty without webhooks.',
          runbooks: ['webhooks'],
          unit: 'bool_yes_no',
          width: 12,
          colours: ['green', [1, 'red']],
          nothing: 'no webhooks',
          queries: [{ expr: ofKind('max by (queue) (otp_queue_paused)', 'webhook'), legend: '{{queue}}' }],
        }),
        stat({
          title: 'Given up or dead-lettered',
          means:
            'Results that no endpoint took for three days, and results whose handler kept failing. Both can be replayed.',
          runbooks: ['webhooks', 'results-dead-letters'],
          unit: 'short',
          decimals: 0,
          width: 12,
          colours: ['green', [1, 'red']],
          queries: [
            { expr: `sum(${ofKind('max by (queue) (otp_queue_jobs{state="failed"})', 'results')})`, legend: 'results' },
            {
              expr: `sum(${ofKind('max by (queue) (otp_queue_jobs{state="failed"})', 'webhook')}) or vector(0)`,
              legend: 'webhooks',
            },
          ],
        }),
        stacked({
          title: 'Deliveries, a minute',
          means:
            'delivered: a 2xx. failed: is tried again. given_up: the last try failed. gone: the endpoint answered 410 and is ' +
            'switched off. Empty without webhooks.',
          runbooks: ['webhooks'],
          unit: 'cpm',
          width: 12,
          nothing: 'no webhooks',
          queries: [
            {
              expr: perMinute('otp_webhook_deliveries_total', 'client, outcome'),
              legend: '{{client}}: {{outcome}}',
            },
          ],
        }),
        graph({
          title: 'Owed to webhooks',
          means: 'Results that wait for their turn or for their next try. Empty without webhooks.',
          runbooks: ['webhooks'],
          unit: 'short',
          decimals: 0,
          width: 12,
          nothing: 'no webhooks',
          queries: [
            {
              expr: ofKind(
                'sum by (queue) (max by (queue, state) (otp_queue_jobs{state=~"waiting|delayed|active"}))',
                'webhook',
              ),
              legend: '{{queue}}',
            },
          ],
        }),
      ],
    },
  ],
};
