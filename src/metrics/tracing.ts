/**
 * The way of one verification as an OpenTelemetry trace, over every process that it passes through. It is made of events
 * alone: what waits, attempts, calls and publishes knows nothing of it. Loaded only where the configuration names an
 * endpoint. Names and attributes follow OpenTelemetry's semantic conventions for messaging and HTTP, and `otp.*`.
 *
 * The processes agree without talking: the intake stores its span in the record as a W3C `traceparent`, and whatever
 * came without one (the library, without a trace of its own) belongs to the trace whose id is the verification's.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  type Attributes,
  type Context,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  type IdGenerator,
  ParentBasedSampler,
  RandomIdGenerator,
  SamplingDecision,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import type { EventBus, Events, Traced } from '../events.ts';
import type { Secret } from '../secret.ts';
import { withinOr } from '../time-limit.ts';

export interface TracingSettings {
  /** Where a collector takes OTLP over HTTP, with its path: `http://127.0.0.1:4318/v1/traces`. */
  readonly endpoint: string;
  readonly headers: Readonly<Record<string, Secret<string>>>;
  readonly serviceName: string;
  /** Of the traces that begin here, 0 to 1; whoever calls with a trace has decided for it. */
  readonly sampleRatio: number;
}

/** A collector that does not answer holds up the end of a process for so long. */
const CLOSE_LIMIT_MS = 2_000;
/** Attempts whose end this process has not seen; more than any worker has in hand. */
const MOST_OPEN_SPANS = 10_000;

interface SpanOptions {
  readonly kind: SpanKind;
  readonly attributes: Attributes;
  readonly parent: Context;
  /** It ends now and has taken so long. */
  readonly durationMs: number;
  /** Where other processes know it already. */
  readonly ids?: Ids;
  /** An error code; null when all went well. */
  readonly error?: string | null;
}

type Ids = Pick<SpanContext, 'traceId' | 'spanId'>;

export class Tracing {
  readonly #provider: TracerProvider;
  readonly #tracer: Tracer;
  readonly #ids = new GivenIds();
  readonly #sampler: TraceIdRatioBasedSampler;
  readonly #attempts = new Map<string, Span>();

  constructor({ endpoint, headers, serviceName, sampleRatio }: TracingSettings, version: string) {
    this.#sampler = new TraceIdRatioBasedSampler(sampleRatio);
    const revealed = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.reveal()]));
    this.#provider = new TracerProvider({
      resource: resourceFromAttributes({ 'service.name': serviceName, 'service.version': version }),
      idGenerator: this.#ids,
      sampler: new ParentBasedSampler({ root: this.#sampler }),
      spanProcessors: [
        new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url: endpoint, headers: revealed }) }),
      ],
    });
    this.#tracer = this.#provider.getTracer('otp-pipeline', version);
  }

  /** The context in which a request is accepted, to be stored with it: a child of the caller's, or a trace of its own. */
  enter(received: string | null): string {
    const caller = received === null ? null : contextOf(received);
    const traceId = caller?.traceId ?? randomBytes(16).toString('hex');
    const flags = caller?.traceFlags ?? this.#flagsFor(traceId);
    return `00-${traceId}-${randomBytes(8).toString('hex')}-${flags.toString(16).padStart(2, '0')}`;
  }

  listen(events: EventBus): void {
    events.on('intake:accepted', (accepted) => this.#accepted(accepted));
    events.on('attempt:begun', (begun) => this.#begun(begun));
    events.on('call:ended', (call) => this.#called(call));
    events.on('verification:moved', (moved) => this.#moved(moved));
    events.on('result:published', (published) => this.#published(published));
    events.on('webhook:ended', (delivery) => this.#delivered(delivery));
  }

  /** What is on its way to the collector gets there, or is given up. */
  async close(): Promise<void> {
    for (const span of this.#attempts.values()) span.end();
    await withinOr(CLOSE_LIMIT_MS, this.#provider.shutdown(), undefined);
  }

  #accepted({ id, partition, traceparent, received, durationMs }: Events['intake:accepted']): void {
    if (traceparent === null) return;
    const queue = queueOf(partition);
    this.#span(`send ${queue}`, {
      kind: SpanKind.PRODUCER,
      parent: received === null ? ROOT_CONTEXT : remote(contextOf(received)),
      ids: contextOf(traceparent),
      durationMs,
      attributes: { ...ofMessage('send', queue, id), ...ofVerification(id, partition) },
    });
  }

  #begun({ id, traceparent, partition, operation, attempt, queueWaitMs }: Events['attempt:begun']): void {
    const queue = queueOf(partition);
    const parent = this.#parentOf({ id, traceparent });
    const attributes = { ...ofVerification(id, partition), 'otp.operation': operation, 'otp.attempt': attempt };
    if (attempt === 1) {
      // Nobody else made the beginning of a trace that is named after its verification.
      const begins = traceparent === null ? { parent: ROOT_CONTEXT, ids: ownContext(id, TraceFlags.NONE) } : { parent };
      this.#span(`wait ${queue}`, { ...begins, kind: SpanKind.INTERNAL, durationMs: queueWaitMs, attributes });
    }
    const span = this.#tracer.startSpan(
      `process ${queue}`,
      { kind: SpanKind.CONSUMER, attributes: { ...ofMessage('process', queue, id), ...attributes } },
      parent,
    );
    this.#attempts.get(id)?.end();
    this.#attempts.set(id, span);
    if (this.#attempts.size > MOST_OPEN_SPANS) {
      const [oldest] = this.#attempts.keys();
      if (oldest !== undefined) this.#endAttempt(oldest);
    }
  }

  #called({ of, partition, call, wire, durationMs, detail }: Events['call:ended']): void {
    if (of === null) return;
    const attempt = call === 'inquiry' ? undefined : this.#attempts.get(of.id);
    const status = wire === 'answered' ? { 'http.response.status_code': Number(detail) } : {};
    this.#span(`${call} ${partition}`, {
      kind: SpanKind.CLIENT,
      parent: attempt ? trace.setSpan(ROOT_CONTEXT, attempt) : this.#parentOf(of),
      durationMs,
      attributes: { ...ofVerification(of.id, partition), 'otp.call': call, 'otp.wire': wire, ...status },
      error: wire === 'answered' ? null : detail,
    });
  }

  #moved({ id, state, otp, transaction, reason }: Events['verification:moved']): void {
    const outcome = { 'otp.state': state, 'otp.otp': otp, 'otp.transaction': transaction, 'otp.reason': reason };
    const said = Object.entries(outcome).filter(([, word]) => word !== null);
    this.#attempts.get(id)?.setAttributes(Object.fromEntries(said) as Attributes);
    this.#endAttempt(id);
  }

  #published(published: Events['result:published']): void {
    const { id, partition, queue, type, sequence, sinceDecidedMs } = published;
    this.#span(`send ${queue}`, {
      kind: SpanKind.PRODUCER,
      parent: this.#parentOf(published),
      durationMs: sinceDecidedMs,
      attributes: {
        ...ofMessage('send', queue, `${id}.${sequence}`),
        ...ofVerification(id, partition),
        'otp.result.type': type,
      },
    });
  }

  #delivered(delivery: Events['webhook:ended']): void {
    const { client, resultId, attempt, outcome, durationMs, detail } = delivery;
    const status = Number(detail);
    this.#span('POST webhook', {
      kind: SpanKind.CLIENT,
      parent: this.#parentOf(delivery),
      durationMs,
      attributes: {
        ...{ 'otp.verification.id': delivery.id, 'otp.client': client, 'otp.result.id': resultId },
        ...{ 'otp.attempt': attempt, 'otp.webhook.outcome': outcome, 'http.request.method': 'POST' },
        ...(Number.isInteger(status) ? { 'http.response.status_code': status } : {}),
      },
      error: outcome === 'delivered' ? null : detail,
    });
  }

  #span(name: string, { kind, attributes, parent, durationMs, ids, error = null }: SpanOptions): void {
    const endTime = Date.now();
    const options = { kind, attributes, startTime: endTime - durationMs };
    const span = this.#ids.during(ids, () => this.#tracer.startSpan(name, options, parent));
    if (error !== null) span.setAttribute('error.type', error).setStatus({ code: SpanStatusCode.ERROR });
    span.end(endTime);
  }

  #endAttempt(id: string): void {
    this.#attempts.get(id)?.end();
    this.#attempts.delete(id);
  }

  #parentOf({ id, traceparent }: Traced): Context {
    if (traceparent !== null) return remote(contextOf(traceparent));
    const { traceId } = ownContext(id, TraceFlags.NONE);
    return remote(ownContext(id, this.#flagsFor(traceId)));
  }

  /** The same in every process that has the same ratio. */
  #flagsFor(traceId: string): TraceFlags {
    const { decision } = this.#sampler.shouldSample(ROOT_CONTEXT, traceId);
    return decision === SamplingDecision.RECORD_AND_SAMPLED ? TraceFlags.SAMPLED : TraceFlags.NONE;
  }
}

/** Spans that other processes name as their parent already have their ids. */
class GivenIds implements IdGenerator {
  readonly #random = new RandomIdGenerator();
  #given: Ids | undefined;

  during<Made>(ids: Ids | undefined, make: () => Made): Made {
    this.#given = ids;
    try {
      return make();
    } finally {
      this.#given = undefined;
    }
  }

  generateTraceId(): string {
    return this.#given?.traceId ?? this.#random.generateTraceId();
  }

  generateSpanId(): string {
    return this.#given?.spanId ?? this.#random.generateSpanId();
  }
}

/** Of a traceparent that was looked at when it came in. */
function contextOf(traceparent: string): SpanContext {
  const [, traceId = '', spanId = '', flags = ''] = traceparent.split('-');
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) };
}

/** A verification's id ends with a UUID: 32 hex digits, as a trace id has them. */
function ownContext(id: string, traceFlags: TraceFlags): SpanContext {
  return {
    traceId: id.slice(-32),
    spanId: createHash('sha256').update(id).digest('hex').slice(0, 16),
    traceFlags,
  };
}

function remote(context: SpanContext): Context {
  return trace.setSpanContext(ROOT_CONTEXT, { ...context, isRemote: true });
}

const queueOf = (partition: string): string => `otp-${partition}`;

function ofVerification(id: string, partition: string): Attributes {
  return { 'otp.verification.id': id, 'otp.partition': partition };
}

function ofMessage(operation: 'send' | 'process', queue: string, messageId: string): Attributes {
  return {
    'messaging.system': 'bullmq',
    'messaging.destination.name': queue,
    'messaging.operation.name': operation,
    'messaging.operation.type': operation,
    'messaging.message.id': messageId,
  };
}
