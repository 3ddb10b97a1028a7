import type { Received, Verdict } from './wire.ts';

/**
 * The inbox of one consumer as the broker's side sees it: what takes its messages, and what keeps
 * those that were given up. `createInbox` of @oncebox/inbox makes it, `startConsumer` of
 * @oncebox/rabbitmq works for it; neither knows the other.
 */
export interface Inbox {
  /** The consumer's name, and that of its queue. */
  readonly name: string;
  /** What its queue must be bound for. */
  readonly bindings: readonly Binding[];
  /** Milliseconds before each further attempt; after the last one a message is dead. */
  readonly retryDelaysMs: readonly number[];
  /**
   * Set for a consumer that handles each key in order: it has several queues, and keeps what failed
   * in its own store.
   */
  readonly ordered?: {
    /**
     * Handles one message that was held and is due. @returns undefined when none is. @throws what
     * the database says of an outage; the trouble of one key is an outcome, so that the others go
     * on.
     */
    handleHeld(): Promise<HeldOutcome | undefined>;
  };
  /** Handles one message; the verdict says what to do with its delivery. Never rejects. */
  process(message: Received): Promise<Verdict>;
  /** @throws what the database says when nothing could be processed now. */
  probe(): Promise<void>;
  /**
   * Writes down who consumes what; called whenever the queue has been declared and bound. @throws
   * when it could not.
   */
  register(): Promise<void>;
  /** Without it, what is given up stays in the dead queue. */
  readonly deadLetters?: DeadLetters;
  /** Without it, nobody notices who else uses the consumer's name. */
  readonly presence?: Presence;
}

/** A key on an exchange. */
export interface Binding {
  readonly exchange: string;
  readonly routingKey: string;
}

/** What a worker and the others that use its consumer's name know of each other. */
export interface Presence {
  /** Who the service is, the same for ever: what the consumer's name belongs to at the broker. */
  owner(): Promise<string>;
  /**
   * Writes down that this worker is alive; to be called every few seconds.
   *
   * @param refused whether the name belongs to another service, and nothing is consumed.
   * @returns what is wrong with the consumer's name and bindings now.
   */
  announce(refused: boolean): Promise<readonly Problem[]>;
  /** The worker is gone, as far as the others are concerned. */
  leave(): Promise<void>;
}

export interface Problem {
  /** Stable; each has a line in docs/errors.md. */
  readonly code: ProblemCode;
  /** Without personal data. */
  readonly what: string;
  /** What mends it, or shows more. */
  readonly command: string;
}

export const PROBLEM_CODES = [
  'ONCEBOX_CONSUMER_NAME_TAKEN',
  'ONCEBOX_WORKERS_DIFFER',
  'ONCEBOX_BINDING_UNHANDLED',
  'ONCEBOX_CONSUMER_GONE',
] as const;
export type ProblemCode = (typeof PROBLEM_CODES)[number];

export interface HeldOutcome {
  /** Absent where what holds the key could not be read. */
  readonly messageId: string | undefined;
  /** What orders it: the aggregate's id. */
  readonly key: string;
  readonly correlationId: string | undefined;
  /** Why it goes on being held, or is a dead letter now; absent when it is done. */
  readonly failure?: Error;
  readonly attempts: number;
  readonly dead: boolean;
  /** Set where not even the failure could be written down: how the key waits instead. */
  readonly waits?: 'put off' | 'left out';
}

export interface DeadLetters {
  /**
   * Keeps one copy from the dead queue. The same copy again changes nothing; after its stub it
   * takes the stub's place.
   *
   * @throws InboxError ONCEBOX_UNSTORABLE when the store answers and does not take this one: it is
   *   to be set aside, so that others are kept. What else it throws is an outage, to be waited for.
   */
  keep(letter: DeadLetter): Promise<void>;
  /**
   * Sends a small batch of those that were marked for it to their consumer again, and marks each
   * that was sent.
   *
   * @returns whether there may be more.
   * @throws what `send` throws, after marking those that were sent before.
   */
  replay(send: SendAgain): Promise<boolean>;
}

/**
 * Resolves with `sent` when the message is safe with the broker, rejects when it cannot be sent
 * now.
 */
export type SendAgain = (letter: DeadMessage) => Promise<'sent' | 'unsendable'>;

/** What a replay needs of a dead letter. */
export interface DeadMessage {
  /** The key that it was first published with. */
  readonly routingKey: string;
  /** AMQP properties and headers as JSON text, without the notes of its failures. */
  readonly properties: string;
  readonly body: Buffer;
}

/** A message that its consumer, or the broker on its behalf, has given up. */
export interface DeadLetter extends DeadMessage {
  readonly messageId: string | undefined;
  readonly type: string | undefined;
  readonly version: number | undefined;
  /** At most 500 characters, without personal data. */
  readonly reason: string;
  readonly errorClass: string | undefined;
  readonly attempts: number;
  readonly firstFailedAt: Date | undefined;
  readonly lastFailedAt: Date | undefined;
  readonly occurredAt: Date | undefined;
  /** SHA-256 of this copy: the same when the same copy is delivered again. */
  readonly copyHash: Buffer;
  /** That of the stub which stands for it, as a copy that was set aside says; it may be forged. */
  readonly stubHash?: Buffer;
}
