/** Queues, results and webhooks described in AsyncAPI 3, made from the schemas by which they are read. */
import { z } from 'zod';
import { jobSchema, type Names, namesOf, RESULTS_QUEUE, webhookQueueName } from './job.ts';
import { type JsonSchema, jsonSchemaOf } from './openapi.ts';
import { verificationResourceSchema } from './resource-schema.ts';
import { RESULT_TYPES } from './result.ts';

const resultSchema = z
  .object({
    specversion: z.literal('1.0'),
    id: z.string().describe('`<verification id>.<sequence>`: the same whenever the same revision is said again'),
    source: z.string().describe('`/otp/<partition>`'),
    type: z.enum(RESULT_TYPES),
    subject: z.string().describe('The id of the verification'),
    time: z.iso.datetime(),
    client: z.string().describe('Who enqueued the verification'),
    datacontenttype: z.literal('application/json'),
    traceparent: z.string().optional().describe('W3C Trace Context of the request, where it came with one'),
    data: verificationResourceSchema.omit({ history: true }),
  })
  .describe('A CloudEvents 1.0 object; also the data of its job, whose id is the `id`');

export function asyncApi(
  partitions: readonly string[],
  version: string,
  names: Names = namesOf(undefined),
): JsonSchema {
  const { resultsPrefix, webhookQueuePrefix } = names;
  const verifications = Object.fromEntries(
    partitions.map((name) => [`verifications-${name}`, verificationsOf(name, names)]),
  );
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'otp-pipeline',
      version,
      description:
        'BullMQ queues in Redis, and webhooks by Standard Webhooks. At least once; `data.sequence` is the order.',
      license: { name: 'MIT', url: 'https://spdx.org/licenses/MIT.html' },
    },
    defaultContentType: 'application/json',
    channels: {
      ...verifications,
      results: {
        address: RESULTS_QUEUE,
        title: 'Results',
        description: `BullMQ queue ${RESULTS_QUEUE} with prefix ${resultsPrefix(RESULTS_QUEUE)}, or the client's own resultsQueue`,
        messages: { result: { $ref: '#/components/messages/result' } },
      },
      webhook: {
        address: '{url}',
        title: "A client's own endpoint",
        description:
          'results.webhooks[].url; HTTP POST. What waits for it stands in the BullMQ queue ' +
          `${webhookQueueName('<client>')} with prefix ${webhookQueuePrefix('<client>')}`,
        parameters: { url: { description: 'As it is configured' } },
        messages: { delivery: { $ref: '#/components/messages/delivery' } },
      },
    },
    operations: {
      ...Object.fromEntries(
        partitions.map((name) => [
          `carryOut-${name}`,
          {
            action: 'receive',
            channel: { $ref: `#/channels/verifications-${name}` },
            summary: 'Workers take verifications; only the intake and the library put them in',
          },
        ]),
      ),
      publishResult: {
        action: 'send',
        channel: { $ref: '#/channels/results' },
        summary: 'Every published revision; a queue has one logical consumer',
      },
      deliverWebhook: {
        action: 'send',
        channel: { $ref: '#/channels/webhook' },
        summary: 'Every published revision, signed; repeated for three days until a 2xx, 410 switches the endpoint off',
      },
    },
    components: {
      messages: {
        verification: { title: 'Verification job', payload: jsonSchemaOf(jobSchema, 'output') },
        result: { title: 'Result', payload: { $ref: '#/components/schemas/Result' } },
        delivery: {
          title: 'Webhook',
          contentType: 'application/cloudevents+json',
          headers: {
            type: 'object',
            required: ['webhook-id', 'webhook-timestamp', 'webhook-signature'],
            properties: {
              'webhook-id': { type: 'string', description: "The result's id, the same over all repeats" },
              'webhook-timestamp': { type: 'string', pattern: '^[0-9]+$', description: 'Unix seconds of this try' },
              'webhook-signature': {
                type: 'string',
                pattern: '^v1,',
                description: 'Base64 HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`',
              },
            },
          },
          payload: { $ref: '#/components/schemas/Result' },
        },
      },
      schemas: { Result: jsonSchemaOf(resultSchema, 'output') },
    },
  };
}

function verificationsOf(partition: string, { partitionKeys }: Names): JsonSchema {
  const { queue, prefix } = partitionKeys(partition);
  return {
    address: queue,
    title: `Verifications of ${partition}`,
    description: `BullMQ queue with prefix ${prefix}. A job carries an id and nothing else; the journal has the rest`,
    messages: { verification: { $ref: '#/components/messages/verification' } },
  };
}
