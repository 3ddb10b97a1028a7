import { isUtf8 } from 'node:buffer';

// What the wire and the tables can carry, in their own units. Writer, relay and reader ask here: a
// writer that accepted more than a reader takes would commit messages that are dead on arrival.

/**
 * Bytes of an AMQP short string: message id, type, correlation id, exchange, routing key. The
 * tables hold as much.
 */
const SHORT_STRING_BYTES = 255;
/**
 * Bytes of a message's body: what MEDIUMTEXT holds, and one byte less than the default limit of
 * RabbitMQ 4 (16 MiB).
 */
export const MAX_BODY_BYTES = 16 * 1024 * 1024 - 1;
/**
 * Characters of the columns outbox.aggregateid and outbox.exchange (VARCHAR counts code points);
 * see migrations/messaging.
 */
export const AGGREGATE_ID_CHARACTERS = 255;
export const EXCHANGE_CHARACTERS = 127;
/** What the columns that keep a received version can hold (INT UNSIGNED). */
const MOST_VERSIONS = 2 ** 32 - 1;

/** The column outbox.id: CHAR(36) in ASCII, which drops a space at the end. */
const ROW_ID = /^[\x20-\x7e]{0,35}[\x21-\x7e]$/;

/**
 * Whether a text is the same text after UTF-8. A lone surrogate has no bytes there. U+FFFD is what
 * amqplib and Node make of bytes that are not UTF-8, so two ids that differ in such bytes are one
 * text: it is refused wherever it comes from, as nobody can tell which it was.
 */
export const isExact = (text: string): boolean => text.isWellFormed() && !text.includes('\ufffd');

/** Whether a value is a text that an AMQP short string carries as it is: 1 to 255 bytes. */
export const fitsShortString = (value: unknown): value is string =>
  typeof value === 'string' && value !== '' && fitsBytes(value) && isExact(value);

/** Whether a text has at most 255 bytes in UTF-8. */
export const fitsBytes = (text: string): boolean => Buffer.byteLength(text) <= SHORT_STRING_BYTES;

/** Whether a value is a text of 1 to so many code points that arrives as it is. */
export const fitsCharacters = (value: unknown, most: number): value is string =>
  typeof value === 'string' && value !== '' && !isOver(value, most) && isExact(value);

/**
 * Whether a text has more code points than that. A code point has one or two UTF-16 units, which
 * are counted for nothing.
 */
export const isOver = (text: string, most: number): boolean =>
  text.length > most && (text.length > 2 * most || [...text].length > most);

/** Whether the outbox gives this message id back as it is. */
export const isRowId = (value: unknown): value is string => typeof value === 'string' && ROW_ID.test(value);

/** Whether a value is a version that a message may have been sent as. */
export const isVersion = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MOST_VERSIONS;

/**
 * Whether a time is one that every DATETIME column can hold. A sender may name the year 275760, or
 * one before there were any messages.
 */
export const isDatable = (time: Date): boolean => time.getTime() >= FIRST_TIME && time.getTime() <= LAST_TIME;
const FIRST_TIME = Date.UTC(1000, 0, 1);
const LAST_TIME = Date.UTC(9999, 11, 31, 23, 59, 59);

/**
 * The text of bytes from outside; undefined when they are not UTF-8, and decoding would put U+FFFD
 * in their place.
 */
export const utf8TextOf = (bytes: Buffer): string | undefined => (isUtf8(bytes) ? bytes.toString('utf8') : undefined);
