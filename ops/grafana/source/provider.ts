/** One provider, chosen at the top: is it well, how are its calls, what does it tell us, what do we tell it. */
import { graph, stacked, stat, table } from './panels.ts';
import { counted, countedPerMinute, perMinute, perSecond, quantile } from './queries.ts';
import type { Screen } from './screen.ts';

const OF_IT = 'provider="$provider"';
/** Ends of calls, whatever the call. */
const WIRE = { '/lost$/': 'red', '/not_sent$/': 'purple' } as const;
const ofIt = (metric: string): string => `max(${metric}{${OF_IT}})`;

export const provider: Screen = {
  uid: 'otp-provider',
  title: 'OTP provider',
  description: 'One provider (a partition of the configuration): whether it is well, and what it does with our calls.',
  ofOneProvider: true,
  rows: [
    {
      title: 'Is it well',
      panels: [
        stat({
          title: 'Workers alive',
          means:
            'Worker processes that have said within the last six seconds that they live. With none, codes die at their deadline.',
          runbooks: ['workers-gone'],
          unit: 'short',
          decimals: 0,
          width: 3,
          colours: ['red', [1, 'green']],
          queries: [{ expr: ofIt('otp_workers'), legend: 'alive' }],
        }),
        stat({
          title: 'Waiting for a person',
          means: 'Verifications of this provider that no machine can settle.',
          runbooks: ['needs-review'],
          unit: 'short',
          decimals: 0,
          width: 4,
          colours: ['green', [1, 'red']],
          queries: [{ expr: ofIt('otp_needs_review'), legend: 'waiting' }],
        }),
        stat({
          title: 'Unresolved',
          means: 'Verifications whose money is pending or unknown.',
          runbooks: ['unresolved'],
          unit: 'short',
          decimals: 0,
          width: 3,
          queries: [{ expr: ofIt('otp_unresolved'), legend: 'unresolved' }],
        }),
        stat({
          title: 'Give-up time used',
          means:
            'By the oldest that is unresolved, of inquiry.giveUpAfterMs. At 100 % it is not asked about any more, and a person decides.',
          runbooks: ['unresolved'],
          unit: 'percentunit',
          decimals: 1,
          width: 4,
          colours: ['green', [0.5, 'orange'], [1, 'red']],
          queries: [
            {
              expr: `${ofIt('otp_unresolved_oldest_age_seconds')} / ${ofIt('otp_inquiry_give_up_seconds')}`,
              legend: 'of it',
            },
          ],
        }),
        stat({
          title: 'Overdue',
          means:
            'Since when something should have happened to the verification that is most overdue. More than a few seconds: nobody looks.',
          runbooks: ['workers-gone'],
          unit: 's',
          decimals: 0,
          width: 3,
          colours: ['green', [5, 'orange'], [30, 'red']],
          queries: [{ expr: ofIt('otp_overdue_seconds'), legend: 'overdue' }],
        }),
        stat({
          title: 'Breaker',
          means:
            '1: open, the provider fails, and nothing is submitted until a probe is answered. 0: closed, or one verification ' +
            'at a time is let through.',
          runbooks: ['breaker-open'],
          unit: 'short',
          decimals: 0,
          width: 3,
          colours: ['green', [1, 'red']],
          queries: [{ expr: ofIt('otp_breaker_open'), legend: 'open' }],
        }),
        stat({
          title: 'Clocks apart',
          means:
            'How far its clock and ours are apart, to about a second, where it is most. Signed requests are refused when it is ' +
            'too much. Empty when it has not answered for an hour.',
          runbooks: ['clock-skew'],
          unit: 's',
          decimals: 1,
          width: 4,
          colours: ['green', [30, 'orange'], [120, 'red']],
          nothing: 'no answer',
          queries: [{ expr: `max(abs(otp_provider_clock_skew_seconds{${OF_IT}}))`, legend: 'apart' }],
        }),
      ],
    },
    {
      title: 'Its calls',
      panels: [
        stacked({
          title: 'Calls by how they ended',
          means:
            'answered: with whatever. not_sent: provably did not leave, and is tried again. lost: nobody knows, so it is asked ' +
            'about and never sent again.',
          runbooks: ['provider-unavailable'],
          unit: 'reqps',
          width: 8,
          series: WIRE,
          queries: [
            {
              expr: perSecond('otp_provider_requests_total', 'call, wire', OF_IT),
              legend: '{{call}} {{wire}}',
            },
          ],
        }),
        graph({
          title: 'How long calls take',
          means: 'Until an answer or its loss; calls that were not sent are not in it. Empty while nothing is called.',
          runbooks: ['provider-unavailable', 'first-result-late'],
          unit: 's',
          width: 8,
          queries: [
            {
              expr: `${quantile(0.5, 'otp_provider_request_duration_seconds', 'call', OF_IT)} >= 0`,
              legend: '{{call}}, half',
            },
            {
              expr: `${quantile(0.95, 'otp_provider_request_duration_seconds', 'call', OF_IT)} >= 0`,
              legend: '{{call}}, 95 of 100',
            },
          ],
        }),
        graph({
          title: 'Submissions that failed',
          means:
            'Not taken, not answered, or answered with what proves nothing, of those of the last five minutes. Empty while ' +
            'nothing is submitted.',
          runbooks: ['provider-unavailable'],
          unit: 'percentunit',
          width: 8,
          colours: ['green', [0.144, 'red']],
          queries: [
            {
              expr: `otp:submissions:failed_rate5m{${OF_IT}} / (otp:submissions:rate5m{${OF_IT}} > 0)`,
              legend: 'failed',
            },
          ],
        }),
        graph({
          title: 'Rate used',
          means:
            'Of what the configuration allows. At 100 % of rateLimit customers wait; at 100 % of inquiryRateLimit unknown ' +
            'money stays unknown for longer. The second line is missing where the provider cannot be asked.',
          runbooks: ['rate-limit'],
          unit: 'percentunit',
          width: 8,
          colours: ['green', [0.9, 'red']],
          queries: [
            {
              expr: `${perSecond('otp_attempts_total', '', OF_IT)} / ${ofIt('otp_rate_limit_per_second')}`,
              legend: 'submissions',
            },
            {
              expr: `${perSecond('otp_provider_requests_total', '', `${OF_IT}, call="inquiry"`)} / ${ofIt('otp_inquiry_rate_limit_per_second')}`,
              legend: 'inquiries',
            },
          ],
        }),
        graph({
          title: 'Waiting before the first attempt',
          means:
            'From acceptance to the first attempt: our part of the time. It grows when rate or workers do not suffice. Empty while nothing comes in.',
          runbooks: ['codes-die', 'rate-limit'],
          unit: 's',
          width: 8,
          queries: [
            { expr: `${quantile(0.5, 'otp_queue_wait_seconds', '', OF_IT)} >= 0`, legend: 'half' },
            { expr: `${quantile(0.95, 'otp_queue_wait_seconds', '', OF_IT)} >= 0`, legend: '95 of 100' },
          ],
        }),
        graph({
          title: 'Life of the next code, used up waiting',
          means: 'Of the code that is next in line. At 100 % it dies unsubmitted; 0 when none waits.',
          runbooks: ['codes-die'],
          unit: 'percentunit',
          width: 8,
          colours: ['green', [0.5, 'red']],
          queries: [{ expr: ofIt('otp_queue_code_life_used_ratio'), legend: 'used' }],
        }),
      ],
    },
    {
      title: 'What it answers',
      panels: [
        stacked({
          title: 'Final words, a minute',
          means: 'What became of code and money. Empty until the first final word of this provider.',
          runbooks: ['codes-die', 'credentials'],
          unit: 'cpm',
          width: 8,
          queries: [
            {
              expr: countedPerMinute('otp_verifications_total', 'otp, transaction', OF_IT),
              legend: '{{otp}} / {{transaction}}',
            },
          ],
        }),
        table({
          title: 'Why, in this time',
          means: 'Reasons of the final words that have one. Empty when each went as it should.',
          runbooks: ['codes-die', 'credentials'],
          unit: 'short',
          decimals: 0,
          width: 8,
          columns: ['otp', 'transaction', 'reason'],
          valueIs: 'how many',
          nothing: 'none',
          queries: [
            {
              expr: `${counted('otp_verifications_total', 'otp, transaction, reason', `${OF_IT}, reason!="none"`)} > 0`,
              legend: '{{otp}} {{transaction}} {{reason}}',
            },
          ],
        }),
        stacked({
          title: 'Out of the ordinary, a minute',
          means:
            'Unexpected: answers that its documents do not know. Slowed: it asked for fewer calls. Unknown: submissions of ' +
            'which nobody knew what had become. Budget: a transaction had all its attempts, or somebody guesses codes. ' +
            'Unopened: sealed codes that a worker could not open.',
          runbooks: ['unexpected-answers', 'rate-limit', 'unresolved', 'guessing', 'seals-unopened'],
          unit: 'cpm',
          width: 8,
          queries: [
            { expr: perMinute('otp_unexpected_answers_total', '', OF_IT), legend: 'unexpected' },
            { expr: perMinute('otp_rate_limited_total', '', OF_IT), legend: 'slowed' },
            { expr: perMinute('otp_unknown_outcomes_total', '', OF_IT), legend: 'unknown' },
            { expr: perMinute('otp_attempt_budget_spent_total', '', OF_IT), legend: 'budget' },
            { expr: perMinute('otp_seals_unopened_total', '', OF_IT), legend: 'unopened' },
          ],
        }),
        stacked({
          title: 'Inquiries a second',
          means: 'How often it is asked what became of money. Empty where it cannot be asked.',
          runbooks: ['unresolved', 'rate-limit'],
          unit: 'reqps',
          width: 8,
          series: WIRE,
          queries: [
            { expr: perSecond('otp_provider_requests_total', 'wire', `${OF_IT}, call="inquiry"`), legend: '{{wire}}' },
          ],
        }),
        stacked({
          title: 'Callbacks, a minute',
          means:
            'By what became of them. refused: the proof is missing or wrong. unmatched: about no transaction of ours, a day ' +
            'after it came. unreadable: in a shape that nobody knows.',
          runbooks: ['callbacks'],
          unit: 'cpm',
          width: 8,
          series: { matched: 'green', duplicate: 'blue', unmatched: 'yellow', unreadable: 'orange', refused: 'red' },
          queries: [{ expr: perMinute('otp_callbacks_total', 'outcome', OF_IT), legend: '{{outcome}}' }],
        }),
        stacked({
          title: 'Tokens not had, a minute',
          means:
            'refused: our credentials are not taken. unavailable: no answer, or too many questions. Without a token nothing ' +
            'is submitted. Empty where the provider has no tokens.',
          runbooks: ['credentials'],
          unit: 'cpm',
          width: 8,
          nothing: 'no tokens here',
          queries: [
            { expr: perMinute('otp_token_failures_total', 'call, cause', OF_IT), legend: '{{call}} {{cause}}' },
          ],
        }),
      ],
    },
  ],
};
