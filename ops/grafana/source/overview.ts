/** Is money at risk, and are customers served? The page to keep open. */
import { bars, graph, stacked, stat, table } from './panels.ts';
import { counted, countedPerMinute, perMinute, perSecond, quantile } from './queries.ts';
import { type Screen, toProvider } from './screen.ts';

/** Of one code; grey where nothing was sent. */
const OTP = { accepted: 'green', rejected: 'yellow', not_submitted: 'blue', unknown: 'red' } as const;

export const overview: Screen = {
  uid: 'otp-overview',
  title: 'OTP overview',
  description: 'Is money at risk, are customers served, and if not: by which provider.',
  rows: [
    {
      title: 'Money at risk',
      panels: [
        stat({
          title: 'Waiting for a person',
          means:
            'Verifications of which no machine can say whether the money moved. Each is one customer who hears nothing.',
          runbooks: ['needs-review'],
          unit: 'short',
          decimals: 0,
          width: 4,
          colours: ['green', [1, 'red']],
          queries: [{ expr: 'sum(max by (provider) (otp_needs_review))', legend: 'waiting' }],
        }),
        stat({
          title: 'Longest wait for a person',
          means: 'Since when the oldest of them has waited; 0 when none does. Red after four hours, which pages.',
          runbooks: ['needs-review'],
          unit: 's',
          decimals: 0,
          width: 4,
          colours: ['green', [300, 'orange'], [14_400, 'red']],
          queries: [{ expr: 'max(otp_needs_review_oldest_age_seconds)', legend: 'oldest' }],
        }),
        stat({
          title: 'Unresolved',
          means:
            'Verifications whose money is pending or unknown, those that wait for a person included. Some are the course of ' +
            'things: providers answer later. What counts is their age.',
          runbooks: ['unresolved'],
          unit: 'short',
          decimals: 0,
          width: 4,
          queries: [{ expr: 'sum(max by (provider) (otp_unresolved))', legend: 'unresolved' }],
        }),
        stat({
          title: 'Oldest unresolved',
          means:
            'For how long the oldest of them has been unresolved; 0 when there is none. Red after a day, the default of giving up.',
          runbooks: ['unresolved'],
          unit: 's',
          decimals: 0,
          width: 4,
          colours: ['green', [5_020, 'orange'], [86_400, 'red']],
          queries: [{ expr: 'max(otp_unresolved_oldest_age_seconds)', legend: 'oldest' }],
        }),
        stat({
          title: 'Must be 0',
          means:
            'As counted since the processes began. Contradicted: a proof came after a final word and says otherwise. Late: a ' +
            'code left after its deadline. Without right: a submission that the journal did not allow. Rolled back: ' +
            'Redis lost writes, and nobody can say how many.',
          runbooks: ['proof-contradicted', 'submitted-wrongly', 'journal-rolled-back'],
          unit: 'short',
          decimals: 0,
          width: 8,
          colours: ['green', [1, 'red']],
          queries: [
            { expr: 'sum(otp_proofs_contradicted_total)', legend: 'contradicted' },
            { expr: 'sum(otp_sends_after_deadline_total)', legend: 'late' },
            {
              expr: [
                'sum(clamp_min(',
                '  sum by (instance, provider) (otp_provider_requests_total{call=~"verify|send"})',
                '  - sum by (instance, provider) (otp_attempts_total), 0))',
              ].join('\n'),
              legend: 'without right',
            },
            { expr: 'sum(otp_journal_recoveries_total{bounded="false"})', legend: 'rolled back' },
          ],
        }),
        table({
          title: 'Alerts that fire',
          means:
            'By their rules in ops/prometheus/rules. Empty while none fires. docs/alerts.md says which page belongs to each.',
          unit: 'short',
          decimals: 0,
          width: 8,
          columns: ['severity', 'alertname'],
          valueIs: 'how many',
          nothing: 'none',
          queries: [{ expr: 'count by (severity, alertname) (ALERTS{alertstate="firing"})', legend: '{{alertname}}' }],
        }),
        stacked({
          title: 'Unresolved by provider',
          means:
            'How much money is unknown, and whether it becomes less. It grows while a provider does not answer inquiries.',
          runbooks: ['unresolved'],
          unit: 'short',
          decimals: 0,
          width: 8,
          leadsTo: toProvider,
          queries: [{ expr: 'max by (provider) (otp_unresolved)', legend: '{{provider}}' }],
        }),
        stacked({
          title: 'New unknown outcomes, a minute',
          means:
            'Money at risk, as it arises. answered: with something that proves nothing. lost: no answer came. owner_dead: ' +
            'the worker died in the midst of it. rolled_back: Redis lost its last writes.',
          runbooks: ['provider-unavailable', 'jobs-vanish'],
          unit: 'cpm',
          width: 8,
          queries: [{ expr: perMinute('otp_unknown_outcomes_total', 'because'), legend: '{{because}}' }],
        }),
      ],
    },
    {
      title: 'What becomes of the codes',
      panels: [
        graph({
          title: 'Verifications a second',
          means:
            'Submissions: rights to submit that the journal gave. First results: what customers were told first. Settled: ' +
            'final words. Submissions without results mean that results are late; neither means that nothing comes in.',
          runbooks: ['first-result-late', 'workers-gone'],
          unit: 'ops',
          width: 8,
          queries: [
            { expr: perSecond('otp_attempts_total'), legend: 'submissions' },
            { expr: perSecond('otp_verification_duration_seconds_count'), legend: 'first results' },
            { expr: perSecond('otp_results_published_total', '', 'type="settled"'), legend: 'settled' },
          ],
        }),
        stacked({
          title: 'Final words about codes, a minute',
          means:
            "accepted and rejected are a provider's word; not_submitted: the code never left; unknown: only the money could " +
            'be proved, never the code. Empty until the first final word.',
          runbooks: ['codes-die'],
          unit: 'cpm',
          width: 8,
          series: OTP,
          queries: [{ expr: countedPerMinute('otp_verifications_total', 'otp'), legend: '{{otp}}' }],
        }),
        table({
          title: 'Final words in this time',
          means: 'What became of code and money, and why. Empty when nothing ended.',
          unit: 'short',
          decimals: 0,
          width: 8,
          columns: ['provider', 'otp', 'transaction', 'reason'],
          valueIs: 'how many',
          nothing: 'none',
          queries: [
            {
              expr: `${counted('otp_verifications_total', 'provider, otp, transaction, reason')} > 0`,
              legend: '{{provider}} {{otp}} {{transaction}} {{reason}}',
            },
          ],
        }),
      ],
    },
    {
      title: 'What is promised',
      panels: [
        graph({
          title: 'Until the first result',
          means:
            'From acceptance to the first word, over all providers. 99 of 100 within 30 seconds is promised. Empty while nothing is published.',
          runbooks: ['first-result-late'],
          unit: 's',
          width: 8,
          colours: ['green', [30, 'red']],
          queries: [
            { expr: quantile(0.5, 'otp_verification_duration_seconds'), legend: 'half' },
            { expr: quantile(0.95, 'otp_verification_duration_seconds'), legend: '95 of 100' },
            { expr: quantile(0.99, 'otp_verification_duration_seconds'), legend: '99 of 100' },
          ],
        }),
        graph({
          title: 'Submissions that failed',
          means:
            'Not taken, not answered, or answered with what proves nothing, of all submissions of the last five minutes. ' +
            'Above 14.4 % for an hour the allowance of a month is gone in two days. Empty while nothing is submitted.',
          runbooks: ['provider-unavailable'],
          unit: 'percentunit',
          width: 8,
          colours: ['green', [0.144, 'red']],
          leadsTo: toProvider,
          queries: [{ expr: 'otp:submissions:failed_rate5m / (otp:submissions:rate5m > 0)', legend: '{{provider}}' }],
        }),
        bars({
          title: 'Allowance used, at the pace of three days',
          means:
            'One of a hundred first results may be late, and one of a hundred submissions may fail. At 100 % the allowance lasts just as ' +
            'long as it should; above, customers are promised more than they get. Empty without traffic for three days.',
          runbooks: ['first-result-late', 'provider-unavailable'],
          unit: 'percentunit',
          decimals: 0,
          width: 8,
          max: 2,
          colours: ['green', [0.5, 'orange'], [1, 'red']],
          leadsTo: toProvider,
          queries: [
            {
              expr: 'otp:first_results:late_rate3d / (otp:first_results:rate3d > 0) / 0.01',
              legend: '{{provider}}: late',
            },
            {
              expr: 'otp:submissions:failed_rate3d / (otp:submissions:rate3d > 0) / 0.01',
              legend: '{{provider}}: failed',
            },
          ],
        }),
      ],
    },
  ],
};
