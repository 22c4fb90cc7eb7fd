/** Everything that verifications stand on: queues, workers, Redis, processes. */
import { graph, stat } from './panels.ts';
import { perMinute } from './queries.ts';
import { type Screen, toProvider } from './screen.ts';

const jobs = (state: string): string => `sum by (queue) (max by (queue, state) (otp_queue_jobs{state=~"${state}"}))`;

export const queues: Screen = {
  uid: 'otp-queues',
  title: 'OTP queues and Redis',
  description: 'Whether work is waiting for somebody, whether somebody is there to do it, and whether Redis keeps it.',
  rows: [
    {
      title: 'Queues',
      panels: [
        graph({
          title: 'Waiting',
          means:
            'Jobs that nobody has taken yet. In a queue of results or of a webhook they wait for whoever reads them.',
          runbooks: ['codes-die', 'workers-gone', 'results-not-drained'],
          unit: 'short',
          decimals: 0,
          width: 8,
          queries: [{ expr: jobs('waiting|prioritized'), legend: '{{queue}}' }],
        }),
        graph({
          title: 'Oldest waiting',
          means:
            'Age of the job at the head of each queue; 0 when none waits. Results that wait for five minutes page.',
          runbooks: ['codes-die', 'results-not-drained'],
          unit: 's',
          width: 8,
          queries: [{ expr: 'max by (queue) (otp_queue_oldest_job_age_seconds)', legend: '{{queue}}' }],
        }),
        graph({
          title: 'Life of the next code, used up waiting',
          means: 'Of the code that is next in line for each provider. At 100 % it dies unsubmitted; 0 when none waits.',
          runbooks: ['codes-die'],
          unit: 'percentunit',
          width: 8,
          colours: ['green', [0.5, 'red']],
          leadsTo: toProvider,
          queries: [{ expr: 'max by (provider) (otp_queue_code_life_used_ratio)', legend: '{{provider}}' }],
        }),
        graph({
          title: 'At work',
          means: 'Jobs that somebody carries out at this moment.',
          runbooks: ['workers-gone'],
          unit: 'short',
          decimals: 0,
          width: 8,
          queries: [{ expr: jobs('active'), legend: '{{queue}}' }],
        }),
        graph({
          title: 'For later',
          means:
            'Jobs with a time of their own: inquiries that are due later, codes that are tried again, webhooks that did not answer.',
          runbooks: ['unresolved', 'webhooks'],
          unit: 'short',
          decimals: 0,
          width: 8,
          queries: [{ expr: jobs('delayed'), legend: '{{queue}}' }],
        }),
        graph({
          title: 'Set aside',
          means:
            "Jobs that nobody could use: somebody else's, damaged, callbacks about nothing of ours, results whose handler gave " +
            'up, webhooks that were not taken for three days.',
          runbooks: ['jobs-set-aside', 'results-dead-letters', 'webhooks'],
          unit: 'short',
          decimals: 0,
          width: 8,
          colours: ['green', [1, 'red']],
          queries: [{ expr: jobs('failed'), legend: '{{queue}}' }],
        }),
      ],
    },
    {
      title: 'Who does the work',
      panels: [
        stat({
          title: 'Workers alive',
          means: 'Of each provider. With none its codes die at their deadline.',
          runbooks: ['workers-gone'],
          unit: 'short',
          decimals: 0,
          width: 8,
          colours: ['red', [1, 'green']],
          queries: [{ expr: 'max by (provider) (otp_workers)', legend: '{{provider}}' }],
        }),
        stat({
          title: 'Overdue, at most',
          means: 'Since when something should have happened to a verification. More than a few seconds: nobody looks.',
          runbooks: ['workers-gone'],
          unit: 's',
          decimals: 0,
          width: 4,
          colours: ['green', [5, 'orange'], [30, 'red']],
          queries: [{ expr: 'max(otp_overdue_seconds)', legend: 'overdue' }],
        }),
        stat({
          title: 'Queues paused',
          means:
            'Somebody paused them, or the endpoint of a webhook answered 410. Of a paused verification queue every code dies.',
          runbooks: ['queue-paused', 'webhooks'],
          unit: 'short',
          decimals: 0,
          width: 4,
          colours: ['green', [1, 'red']],
          queries: [{ expr: 'sum(max by (queue) (otp_queue_paused))', legend: 'paused' }],
        }),
        stat({
          title: 'Processes',
          means:
            'up: answer when they are scraped. silent: do not. incomplete: answer without what Redis did not say in time.',
          runbooks: ['target-down', 'redis-down'],
          unit: 'short',
          decimals: 0,
          width: 8,
          queries: [
            { expr: 'sum(up{job="otp"})', legend: 'up' },
            { expr: 'count(up{job="otp"}) - sum(up{job="otp"})', legend: 'silent' },
            { expr: 'sum(otp_scrape_incomplete)', legend: 'incomplete' },
          ],
        }),
        graph({
          title: 'Jobs put back, a minute',
          means:
            'They were gone from their queue, and the sweeper put them back. None was lost; something removes them.',
          runbooks: ['jobs-vanish'],
          unit: 'cpm',
          width: 8,
          queries: [{ expr: perMinute('otp_jobs_recreated_total', 'queue'), legend: '{{queue}}' }],
        }),
        graph({
          title: 'Event loop, 99 of 100 turns',
          means:
            'How late a process gets to what it should do. Above a tenth of a second it has too much to do: add processes.',
          runbooks: ['first-result-late'],
          unit: 's',
          width: 8,
          colours: ['green', [0.1, 'red']],
          queries: [{ expr: 'nodejs_eventloop_lag_p99_seconds{job="otp"}', legend: '{{instance}}' }],
        }),
        graph({
          title: 'CPU',
          means: 'Cores that each process uses. One process cannot use much more than one.',
          runbooks: ['first-result-late'],
          unit: 'percentunit',
          width: 8,
          queries: [{ expr: 'rate(process_cpu_seconds_total{job="otp"}[$__rate_interval])', legend: '{{instance}}' }],
        }),
      ],
    },
    {
      title: 'Redis',
      panels: [
        stat({
          title: 'Redis is reachable',
          means:
            'Redis told every process within a second how it is. The other values of this row are missing where it did not.',
          runbooks: ['redis-down'],
          unit: 'bool_yes_no',
          width: 4,
          colours: ['red', [1, 'green']],
          queries: [{ expr: 'min(otp_redis_up)', legend: 'reachable' }],
        }),
        stat({
          title: 'Keeps what it is told',
          means:
            'Master: a replica refuses every write. Evicts nothing: else it may forget that a code was sent. Append-only file: ' +
            'on, and its last write succeeded. Snapshot: the last one succeeded.',
          runbooks: ['redis-replicas', 'redis-eviction', 'redis-persistence'],
          unit: 'bool_yes_no',
          width: 10,
          colours: ['red', [1, 'green']],
          queries: [
            { expr: 'min(otp_redis_master)', legend: 'master' },
            { expr: 'min(otp_redis_noeviction)', legend: 'evicts nothing' },
            { expr: 'min(otp_redis_append_only)', legend: 'append-only' },
            { expr: 'min(otp_redis_last_append_ok)', legend: 'last append' },
            { expr: 'min(otp_redis_last_save_ok)', legend: 'last snapshot' },
          ],
        }),
        stat({
          title: 'Memory, of its limit',
          means: 'At 100 % no code is accepted any more. Empty where Redis has no limit.',
          runbooks: ['redis-memory'],
          unit: 'percentunit',
          decimals: 0,
          width: 4,
          colours: ['green', [0.8, 'orange'], [0.9, 'red']],
          nothing: 'no limit',
          queries: [
            { expr: 'max(otp_redis_memory_used_bytes) / (max(otp_redis_memory_limit_bytes) > 0)', legend: 'used' },
          ],
        }),
        stat({
          title: 'Replicas',
          means:
            'Connected ones, those that journal.waitReplicas asks for, those that codes wait for now, and how often too few were in time. Fewer than wanted: a failover may lose writes.',
          runbooks: ['redis-replicas'],
          unit: 'short',
          decimals: 0,
          width: 6,
          queries: [
            { expr: 'max(otp_redis_replicas)', legend: 'connected' },
            { expr: 'max(otp_redis_replicas_wanted)', legend: 'wanted' },
            { expr: 'min(otp_replicas_awaited)', legend: 'waited for' },
            { expr: 'sum(increase(otp_replicas_missed_total[5m]))', legend: 'too late, 5 min' },
          ],
        }),
        graph({
          title: 'Memory',
          means:
            'What Redis uses, and where it refuses every write (maxmemory). The second line is missing where it has no limit.',
          runbooks: ['redis-memory'],
          unit: 'bytes',
          width: 12,
          queries: [
            { expr: 'max(otp_redis_memory_used_bytes)', legend: 'used' },
            { expr: 'max(otp_redis_memory_limit_bytes) > 0', legend: 'limit' },
          ],
        }),
        graph({
          title: 'Journal made whole, a minute',
          means:
            'Redis was another server than before: a restart, a failover, a restored dump. bounded true: what could be lost is known; ' +
            'false: it is not, and what was not final waits for a person.',
          runbooks: ['journal-rolled-back'],
          unit: 'cpm',
          width: 12,
          queries: [
            {
              expr: perMinute('otp_journal_recoveries_total', 'provider, bounded'),
              legend: '{{provider}}, bounded {{bounded}}',
            },
          ],
        }),
      ],
    },
  ],
};
