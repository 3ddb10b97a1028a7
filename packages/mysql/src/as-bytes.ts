/**
 * Text from outside as a value of `query`: the driver writes bytes in hexadecimal. It writes a string
 * in quotes, by rules that depend on the server's sql_mode: under NO_BACKSLASH_ESCAPES a quote in the
 * text ends the literal.
 *
 * For lists, because `execute` needs another prepared statement for each length of a list. Elsewhere
 * `execute` binds a string as it is. The column's collation decides what equals the literal, and the
 * column's index serves the comparison.
 */
export const asBytes = (text: string): Buffer => Buffer.from(text, 'utf8');
