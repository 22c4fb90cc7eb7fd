/**
 * The package: putting verifications in from one's own program, and taking results out. Importing it opens nothing;
 * a connection is made by each of the two functions and ended by `close()`.
 */
import { type OutboxSealer, type OutboxSealerOptions, outboxSealerOf } from './outbox/row.ts';
import { type Producer, type ProducerOptions, producerOf } from './producers/producer.ts';
import { type ResultsConsumer, type ResultsConsumerOptions, resultsConsumerOf } from './producers/results-consumer.ts';
import { connectRedis } from './redis/connections.ts';

export type { OutboxOptions, OutboxRow, OutboxSealer, OutboxSealerOptions } from './outbox/row.ts';
export {
  AcceptanceUnknownError,
  AcceptInProgressError,
  type Enqueued,
  type EnqueueOptions,
  IdempotencyMismatchError,
  type Producer,
  type ProducerOptions,
} from './producers/producer.ts';
export { type FieldFault, InvalidRequestError } from './producers/request.ts';
export type { VerificationResource } from './producers/resource.ts';
export type { ResultEvent, ResultType } from './producers/result.ts';
export type { ResultsConsumer, ResultsConsumerOptions } from './producers/results-consumer.ts';
export type { RedisSettings } from './redis/connections.ts';

/** Enqueues as one client of the service, straight into Redis. */
export function createProducer(options: ProducerOptions): Producer {
  return producerOf(options, connectRedis);
}

/** Makes rows for the table that `otp outbox` relays, to be written in the transaction of the payment; docs/outbox.md. */
export function createOutboxSealer(options: OutboxSealerOptions): OutboxSealer {
  return outboxSealerOf(options);
}

/** Hands the results of a queue to a handler: at least once, each verification in the order of its sequence. */
export function createResultsConsumer(options: ResultsConsumerOptions): ResultsConsumer {
  return resultsConsumerOf(options, connectRedis);
}
