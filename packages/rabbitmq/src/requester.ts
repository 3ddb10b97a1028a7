import { randomUUID } from 'node:crypto';
import { inActiveTrace, type Lineage, MAX_BODY_BYTES, MessageError, type RequestContract } from '@oncebox/message';
import type { Channel, ConsumeMessage } from 'amqplib';
import { openChannel } from './channel.ts';
import { BrokerError } from './errors.ts';
import { readJson } from './json.ts';
import type { Logger } from './logger.ts';
import { type PendingRequests, pendingRequests, type ReplyCounts } from './pending-requests.ts';
import { persist } from './persist.ts';
import { CORRELATION_HEADER, DEADLINE_HEADER, FAILED_HEADER, PROCESSING_HEADER } from './responder.ts';
import { type SupervisorOptions, superviseConnection } from './supervisor.ts';

export type { ReplyCounts } from './pending-requests.ts';

export interface RequesterOptions extends SupervisorOptions {
  /** Most requests without an answer at once; a further one is refused. Default 1,000. */
  readonly maxPending?: number;
}

export interface RequestOptions {
  /** Milliseconds until nobody waits for the answer any more. */
  readonly timeoutMs: number;
  /** 0 to 5, higher first. Default 0. */
  readonly priority?: number;
  /** What the question belongs to: the responder's log and spans name it. */
  readonly lineage?: Lineage;
}

export interface Answered<Answer> {
  readonly answer: Answer;
  /** Milliseconds that the responder worked on it, without what it waited before. */
  readonly processingMs: number;
}

export interface Requester {
  /**
   * Asks a question and waits for its answer. Answers come in any order. A question may be answered
   * by a responder though its answer is lost, so it should change nothing, or be safe to ask twice.
   *
   * @throws MessageError ONCEBOX_MESSAGE_TOO_LARGE for a question that the broker may refuse;
   *   nothing is sent.
   * @throws BrokerError ONCEBOX_REQUEST_TIMED_OUT when no answer came in time;
   *   ONCEBOX_REQUEST_FAILED when the responder could not answer; ONCEBOX_NO_RESPONDER when its
   *   queue does not exist; ONCEBOX_TOO_MANY_REQUESTS; ONCEBOX_BROKER_LOST when the broker is away
   *   or leaves; ONCEBOX_BROKER_CLOSED after close().
   */
  request<Question, Answer>(
    contract: RequestContract<Question, Answer>,
    question: Question,
    options: RequestOptions,
  ): Promise<Answered<Answer>>;
  /** How many wait for their answer. */
  readonly pending: number;
  /** Replies that nobody waited for, since the start. */
  readonly counts: ReplyCounts;
  /** Rejects what waits, and closes the connection for good. */
  close(): Promise<void>;
}

/**
 * The broker's name for "to the channel that asks": no queue is made for the answers, and they die
 * with the channel.
 */
const REPLY_TO = 'amq.rabbitmq.reply-to';

/**
 * Asks questions over RabbitMQ (direct reply-to). Its connection is its own: the broker holds back
 * a connection that publishes too much, and the answers must not wait for that. Connects in the
 * background, so it may be made while the broker is away.
 *
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL
 */
export function createRequester({ maxPending = 1_000, ...options }: RequesterOptions): Requester {
  const { logger } = options;
  const supervisor = superviseConnection(options);
  const stop = new AbortController();
  const pending = pendingRequests(maxPending);
  let channel: Channel | undefined;

  const live = async (): Promise<void> => {
    const opened = await openChannel(await supervisor.connected());
    // Asking and hearing the answer take the same channel; the broker refuses anything else.
    await opened.channel.consume(
      REPLY_TO,
      (message) => (message === null ? void opened.close() : settle(pending, message, logger)),
      { noAck: true },
    );
    opened.channel.on('return', ({ properties, fields }) => {
      const text = `Nobody answers on the queue ${fields.routingKey}: start its responder, which declares it`;
      pending.fail(String(properties.correlationId), new BrokerError('ONCEBOX_NO_RESPONDER', text));
    });
    channel = opened.channel;
    const failure = await opened.ended;
    channel = undefined;
    // The answers were for that channel, and no other gets them.
    pending.failAll(new BrokerError('ONCEBOX_BROKER_LOST', 'The connection broke before the answer came; ask again'));
    if (failure !== undefined) throw failure;
  };
  const living = persist(live, stop.signal, (error) => {
    logger.warn(
      {},
      `opening the channel for requests again: ${error instanceof Error ? error.message : String(error)}`,
    );
  });

  return {
    get pending() {
      return pending.size;
    },
    counts: pending.counts,
    async request(contract, question, { timeoutMs, priority = 0, lineage = {} }) {
      if (stop.signal.aborted) throw closed();
      if (channel === undefined || supervisor.state() !== 'connected') {
        throw new BrokerError('ONCEBOX_BROKER_LOST', 'The broker is away, or takes no messages; ask again later');
      }
      const body = bodyOf(contract, question);
      const { correlationId, traceparent } = inActiveTrace({ lineage }).lineage;
      const id = randomUUID();
      const reply = pending.add(id, timeoutMs);
      try {
        channel.publish('', contract.queue, body, {
          type: contract.type,
          correlationId: id,
          replyTo: REPLY_TO,
          contentType: 'application/json',
          priority,
          mandatory: true,
          // The broker's own clock, for what waits in the queue: nobody needs what is over its
          // time. What a responder has already been sent never expires there, so it looks at the
          // header.
          expiration: timeoutMs,
          headers: {
            [DEADLINE_HEADER]: Date.now() + timeoutMs,
            ...(correlationId === undefined ? {} : { [CORRELATION_HEADER]: correlationId }),
            ...(traceparent === undefined ? {} : { traceparent }),
          },
        });
      } catch (error) {
        pending.fail(id, new BrokerError('ONCEBOX_BROKER_LOST', 'The channel is closing; ask again', { cause: error }));
      }
      const { content, properties } = await reply;
      const processingMs: unknown = properties.headers?.[PROCESSING_HEADER];
      const answer = properties.headers?.[FAILED_HEADER] === true ? undefined : readJson(content);
      const parsed = contract.answer.safeParse(answer);
      // Without zod's own error, which can quote the answer.
      if (answer === undefined || !parsed.success) {
        throw new BrokerError(
          'ONCEBOX_REQUEST_FAILED',
          `${contract.type} could not be answered, or not as its contract says; the responder's log has the reason`,
        );
      }
      return { answer: parsed.data, processingMs: typeof processingMs === 'number' ? processingMs : 0 };
    },
    async close() {
      stop.abort();
      pending.failAll(closed());
      await supervisor.close();
      await living;
    },
  };
}

/** The broker closes the channel for a message over its limit, and every request on it fails. */
function bodyOf<Question>(contract: RequestContract<Question>, question: Question): Buffer {
  const body = Buffer.from(JSON.stringify(contract.question.parse(question)));
  if (body.length <= MAX_BODY_BYTES) return body;
  throw new MessageError(
    'ONCEBOX_MESSAGE_TOO_LARGE',
    `${contract.type}: the question has ${body.length} bytes and at most ${MAX_BODY_BYTES} can be sent. ` +
      'Send a reference to the data instead.',
  );
}

const closed = (): BrokerError => new BrokerError('ONCEBOX_BROKER_CLOSED', 'This process is stopping; ask another one');

function settle(pending: PendingRequests, message: ConsumeMessage, logger: Logger): void {
  const surplus = pending.settle(String(message.properties.correlationId), message);
  if (surplus !== undefined) logger.warn({ ...pending.counts }, `A reply that nobody waits for: ${surplus}`);
}
