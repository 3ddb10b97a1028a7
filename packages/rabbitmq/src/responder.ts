import { once } from 'node:events';
import { classOf, fitsShortString, inHandleSpan, type RequestContract, recordFailure } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import type { Broker } from './broker.ts';
import { openChannel } from './channel.ts';
import { reasonOf } from './errors.ts';
import { readJson } from './json.ts';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import { declareRequestQueue } from './topology.ts';

/** Until when the requester waits, in milliseconds since 1970 by its clock. */
export const DEADLINE_HEADER = 'deadline';
/** What the question belongs to; its AMQP correlationId is what its answer is known by. */
export const CORRELATION_HEADER = 'correlationid';
/**
 * The address that the broker makes of a requester's `amq.rabbitmq.reply-to`. An answer goes
 * nowhere else: `replyTo` is the sender's to write, and could name the queue of any consumer.
 */
const DIRECT_REPLY = /^amq\.rabbitmq\.reply-to\.[\w+/=-]+\.[\w+/=-]+$/;
/** True in a reply without an answer. */
export const FAILED_HEADER = 'failed';
/** Milliseconds of work. */
export const PROCESSING_HEADER = 'processing-ms';

export interface ResponderOptions<Question, Answer> {
  readonly broker: Broker;
  readonly contract: RequestContract<Question, Answer>;
  /**
   * Runs again for a question whose worker died. What it throws is logged by its code; the
   * requester learns that it failed, not why.
   */
  readonly answer: (question: Question) => Promise<Answer>;
  readonly logger: Logger;
  /**
   * How many are answered side by side. Default 10. The broker sends no more than that ahead: what
   * a responder has in hand is past the reach of priorities and other responders.
   */
  readonly concurrency?: number;
}

export interface Responder {
  /** Whether the broker sends it questions now. */
  readonly consuming: boolean;
  /** Takes no more and resolves when those in hand are answered. */
  stop(): Promise<void>;
}

/**
 * Answers the questions of one contract. Responders of several processes share them. A question
 * whose deadline has passed is not begun: its requester has gone. That compares two clocks, so they
 * should agree to much less than the requesters' time-outs (NTP does); where a responder's is ahead
 * by more, it would begin nothing, and its log says so.
 */
export function startResponder<Question, Answer>({
  broker,
  contract,
  answer,
  logger,
  concurrency = 10,
}: ResponderOptions<Question, Answer>): Responder {
  const { queue } = contract;
  const stop = new AbortController();
  const stopped = once(stop.signal, 'abort');
  let consuming = false;

  /** @returns the reply's body and headers. */
  const reply = async (content: Buffer, fields: object) => {
    const began = performance.now();
    const headers = () => ({ [PROCESSING_HEADER]: Math.round((performance.now() - began) * 10) / 10 });
    try {
      const given = readJson(content);
      if (given === undefined) throw new SyntaxError('The question is no JSON in UTF-8');
      const question = contract.question.parse(given);
      const body = Buffer.from(JSON.stringify(contract.answer.parse(await answer(question))));
      return { body, headers: headers() };
    } catch (error) {
      // No message of the error, which may quote the question; a code or a class says enough.
      logger.warn(fields, `A ${contract.type} could not be answered: ${classOf(error)}`);
      recordFailure(error);
      return { body: Buffer.alloc(0), headers: { ...headers(), [FAILED_HEADER]: true } };
    }
  };

  const respond = async ({ content, properties }: ConsumeMessage): Promise<void> => {
    const deadline: unknown = properties.headers?.[DEADLINE_HEADER];
    const replyTo: unknown = properties.replyTo;
    const correlation: unknown = properties.headers?.[CORRELATION_HEADER];
    const fields = { queue, correlationId: fitsShortString(correlation) ? correlation : undefined };
    if (typeof replyTo !== 'string' || !DIRECT_REPLY.test(replyTo)) {
      logger.warn(
        fields,
        `A ${contract.type} was refused, and not begun: its replyTo is not the address of a requester`,
      );
      return;
    }
    if (typeof deadline === 'number' && Date.now() >= deadline) {
      logger.warn(fields, `A ${contract.type} came after its deadline, and was not begun`);
      return;
    }
    const { body, headers } = await reply(content, fields);
    const correlationId: unknown = properties.correlationId;
    // Not mandatory: to the broker a direct reply-to is no queue, so it would return an answer that
    // it has delivered. Who is gone gets nothing.
    const options = {
      correlationId: String(correlationId),
      contentType: 'application/json',
      headers,
      mandatory: false,
    };
    const sent = await broker.sender.send({ exchange: '', routingKey: replyTo, body, options });
    if (sent.kind !== 'confirmed') logger.warn(fields, `An answer to a ${contract.type} was not sent: ${sent.kind}`);
  };

  const inSpan = (message: ConsumeMessage): Promise<void> => {
    const { messageId: id, headers: carrier = {} } = message.properties;
    const correlationId: unknown = carrier[CORRELATION_HEADER];
    const at = { consumer: queue, exchange: '', routingKey: queue, attempt: 1 };
    return inHandleSpan(
      () => ({ id, type: contract.type, correlationId, carrier, ...at }),
      () => respond(message),
    );
  };

  const live = async (): Promise<void> => {
    const connection = await Promise.race([broker.consuming.connected(), stopped.then(() => undefined)]);
    if (connection === undefined) return;
    const opened = await openChannel(connection);
    const { channel } = opened;
    const inHand = new Set<Promise<void>>();
    await declareRequestQueue(channel, queue);
    await channel.prefetch(concurrency);
    const { consumerTag } = await channel.consume(queue, (message) => {
      if (message === null) return void opened.close(); // the queue was deleted: declared anew with the next channel
      // Settled after the answer, so that a question whose worker dies is answered by another. It
      // comes back only until its deadline.
      const answered = inSpan(message).finally(() => {
        inHand.delete(answered);
        if (!opened.closed.aborted) channel.ack(message);
      });
      // A channel that is closing refuses the ack: then the broker gives the question to another.
      answered.catch((error: unknown) =>
        logger.warn({ queue, error: classOf(error) }, 'an answer was not acknowledged'),
      );
      inHand.add(answered);
    });
    consuming = true;
    logger.info({ queue }, 'answering');
    const failure = await Promise.race([opened.ended, stopped.then(() => undefined)]);
    consuming = false;
    if (stop.signal.aborted && !opened.closed.aborted) {
      await Promise.race([channel.cancel(consumerTag).catch(() => undefined), opened.ended]);
      await Promise.all(inHand);
      await opened.close();
    }
    if (failure !== undefined) throw failure;
  };
  const living = persist(live, stop.signal, (error) => {
    logger.warn({ queue }, `not answering: ${error instanceof Error ? error.message : reasonOf(error)}`);
  });

  return {
    get consuming() {
      return consuming;
    },
    async stop() {
      stop.abort();
      await living;
    },
  };
}
