import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { EventBus } from '../../src/events.ts';
import { type ObservedPartition, observe } from '../../src/metrics/observe.ts';
import { createMetrics } from '../../src/metrics/registry.ts';
import { newVerificationId } from '../../src/producers/job.ts';

const id = newVerificationId('cepta');
const partition = 'cepta';

function setup(partitions: readonly ObservedPartition[] = []) {
  const registry = new Registry();
  const events = new EventBus();
  const stop = observe(events, createMetrics(registry, { ofTheProcess: false }), { partitions });
  return {
    events,
    stop,
    /** The sample lines that say anything but zero, without a histogram's buckets. */
    lines: async () =>
      (await registry.metrics())
        .split('\n')
        .filter((line) => line !== '' && !line.startsWith('#') && !line.includes('_bucket') && !line.endsWith(' 0')),
    text: () => registry.metrics(),
  };
}

const traced = { id, traceparent: null };
const published = { ...traced, partition, queue: 'otp-results', sinceDecidedMs: 3 };
const moved = {
  ...traced,
  attempt: 1,
  partition,
  operation: 'verify',
  state: 'settled',
  final: true,
  otp: 'accepted',
  transaction: 'succeeded',
  reason: null,
  needsReview: false,
  because: 'answered',
} as const;

describe('events become metrics', () => {
  it('says exactly what a scripted verification did', async () => {
    const { events, lines } = setup();
    events.emit('intake:answered', { status: 202, durationMs: 4 });
    events.emit('verification:accepted', { ...traced, partition, operation: 'verify' });
    events.emit('attempt:begun', { ...traced, partition, operation: 'verify', attempt: 1, queueWaitMs: 12 });
    events.emit('call:ended', {
      of: traced,
      partition,
      call: 'verify',
      wire: 'not_sent',
      durationMs: 1,
      detail: 'ECONNREFUSED',
    });
    events.emit('attempt:begun', { ...traced, partition, operation: 'verify', attempt: 2, queueWaitMs: 900 });
    events.emit('call:ended', {
      of: traced,
      partition,
      call: 'verify',
      wire: 'lost',
      durationMs: 250,
      detail: 'ECONNRESET',
    });
    events.emit('verification:moved', { ...moved, state: 'awaiting', final: false, otp: 'unknown', because: 'lost' });
    events.emit('result:published', {
      ...published,
      type: 'otp.verification.awaiting',
      sequence: 1,
      sinceAcceptedMs: 1_250,
    });
    events.emit('call:ended', {
      of: traced,
      partition,
      call: 'inquiry',
      wire: 'answered',
      durationMs: 500,
      detail: '200',
    });
    events.emit('verification:moved', moved);
    events.emit('result:published', {
      ...published,
      type: 'otp.verification.settled',
      sequence: 2,
      sinceAcceptedMs: null,
    });
    events.emit('answer:unexpected', { id, partition, call: 'verify', providerCode: 'E_0815' });
    events.emit('partition:slowed', { partition, queue: 'otp-cepta', forMs: 1_000 });
    events.emit('resend:prevented', { id, partition, because: 'awaiting' });
    events.emit('resend:prevented', { id, partition, because: 'owner_dead' });
    expect(await lines()).toEqual([
      'otp_verifications_total{provider="cepta",operation="verify",otp="accepted",transaction="succeeded",reason="none"} 1',
      'otp_verification_duration_seconds_sum{provider="cepta"} 1.25',
      'otp_verification_duration_seconds_count{provider="cepta"} 1',
      'otp_unknown_outcomes_total{provider="cepta",because="lost"} 1',
      'otp_attempts_total{provider="cepta"} 2',
      'otp_queue_wait_seconds_sum{provider="cepta"} 0.012',
      'otp_queue_wait_seconds_count{provider="cepta"} 1',
      'otp_provider_request_duration_seconds_sum{provider="cepta",call="verify"} 0.25',
      'otp_provider_request_duration_seconds_count{provider="cepta",call="verify"} 1',
      'otp_provider_request_duration_seconds_sum{provider="cepta",call="inquiry"} 0.5',
      'otp_provider_request_duration_seconds_count{provider="cepta",call="inquiry"} 1',
      'otp_provider_requests_total{provider="cepta",call="verify",wire="not_sent"} 1',
      'otp_provider_requests_total{provider="cepta",call="verify",wire="lost"} 1',
      'otp_provider_requests_total{provider="cepta",call="inquiry",wire="answered"} 1',
      'otp_rate_limited_total{provider="cepta"} 1',
      'otp_resends_prevented_total{provider="cepta"} 2',
      'otp_unexpected_answers_total{provider="cepta"} 1',
      'otp_results_published_total{type="awaiting"} 1',
      'otp_results_published_total{type="settled"} 1',
      'otp_intake_requests_total{code="202"} 1',
      'otp_intake_duration_seconds_sum 0.004',
      'otp_intake_duration_seconds_count 1',
    ]);
  });

  it('counts a submission after the deadline', async () => {
    const { events, lines } = setup();
    events.emit('send:late', { id, partition });
    expect(await lines()).toEqual(['otp_sends_after_deadline_total{provider="cepta"} 1']);
  });

  it('counts what became unknown by its own doing, and not what an inquiry leaves so', async () => {
    const { events, lines } = setup();
    const unknown = { ...moved, state: 'awaiting', final: false, otp: 'unknown', transaction: 'unknown' } as const;
    for (const because of ['answered', 'lost', 'owner_dead', 'rolled_back', 'inquired', 'called_back']) {
      events.emit('verification:moved', { ...unknown, because });
    }
    expect(await lines()).toEqual(
      ['answered', 'lost', 'owner_dead', 'rolled_back'].map(
        (because) => `otp_unknown_outcomes_total{provider="cepta",because="${because}"} 1`,
      ),
    );
  });

  it('counts what nobody should ever see, and what machinery had to mend', async () => {
    const { events, lines } = setup();
    events.emit('proof:contradicted', { id, partition, was: 'failed', now: 'succeeded' });
    events.emit('journal:recovered', { partition, bounded: false, missing: 1, suspected: 2 });
    events.emit('job:recreated', { id, queue: 'otp-cepta-inquiry' });
    events.emit('token:failed', { partition, call: 'b2bToken', cause: 'refused', code: 'TOKEN_401' });
    expect(await lines()).toEqual([
      'otp_token_failures_total{provider="cepta",call="b2bToken",cause="refused"} 1',
      'otp_jobs_recreated_total{queue="otp-cepta-inquiry"} 1',
      'otp_proofs_contradicted_total{provider="cepta"} 1',
      'otp_journal_recoveries_total{provider="cepta",bounded="false"} 1',
    ]);
  });

  it('has the series of a partition from the start, at zero', async () => {
    const { text, lines } = setup([
      {
        ...{ name: 'lipa-later', operations: ['verify', 'send'], effect: 'none', inquires: false },
        ...{ tokenCalls: ['token'], queues: ['otp-lipa-later'] },
      },
    ]);
    const said = await text();
    expect(await lines()).toEqual([]);
    expect(said).toContain('otp_sends_after_deadline_total{provider="lipa-later"} 0');
    expect(said).toContain('otp_provider_requests_total{provider="lipa-later",call="send",wire="lost"} 0');
    expect(said).toContain('otp_queue_wait_seconds_count{provider="lipa-later"} 0');
    expect(said).toContain(
      'otp_verifications_total{provider="lipa-later",operation="send",otp="not_submitted",transaction="none",reason="misconfigured"} 0',
    );
    expect(said).toContain('otp_token_failures_total{provider="lipa-later",call="token",cause="refused"} 0');
    expect(said).toContain('otp_unknown_outcomes_total{provider="lipa-later",because="lost"} 0');
    expect(said).toContain('otp_jobs_recreated_total{queue="otp-lipa-later"} 0');
    expect(said).toContain('otp_intake_requests_total{code="503"} 0');
    expect(said).toContain('otp_results_published_total{type="review"} 0');
    expect(said).not.toContain('call="inquiry"');
  });

  it('keeps the sets of labels closed and lets no id through', async () => {
    const { events, text } = setup();
    events.emit('verification:moved', { ...moved, otp: 'CANARY', transaction: id });
    events.emit('result:published', { ...published, type: id, sequence: 1, sinceAcceptedMs: null });
    events.emit('intake:answered', { status: 1e9, durationMs: 1 });
    events.emit('call:ended', { of: traced, partition, call: 'verify', wire: 'answered', durationMs: 1, detail: id });
    events.emit('answer:unexpected', { id, partition, call: 'verify', providerCode: 'CANARY' });
    events.emit('proof:contradicted', { id, partition, was: 'CANARY', now: 'CANARY' });
    events.emit('job:malformed', { queue: 'otp-cepta', jobId: 'CANARY', fault: 'CANARY' });
    events.emit('intake:limited', { client: 'CANARY', limit: 'rate' });
    events.emit('console:login', { outcome: 'refused', address: 'CANARY', user: 'CANARY' });
    const said = await text();
    expect(said).not.toContain('CANARY');
    expect(said).not.toContain(id);
    expect(said).toContain('otp="other",transaction="other"');
    expect(said).toContain('otp_intake_requests_total{code="other"} 1');
    expect(said).toContain('otp_intake_limited_total{client="other",limit="rate"} 1');
    expect(said).toContain('otp_console_logins_total{outcome="refused"} 1');
  });

  it('stops when it is told to', async () => {
    const { events, stop, lines } = setup();
    stop();
    events.emit('verification:moved', moved);
    expect(await lines()).toEqual([]);
  });
});
