/**
 * What a statement may do to the transaction and the session in which it runs.
 *
 * - `ends`: it commits or rolls back the transaction, implicitly (DDL) or by its own words.
 * - `calls`: it runs other statements, which nobody sees here.
 * - `moves`: it changes the default schema.
 * - `sets`: it leaves something in the session that the next borrower of the connection would inherit.
 * - `locks`: it takes a named lock, which belongs to the session and outlives the transaction.
 * - `plain`: none of these.
 */
export type StatementKind = 'ends' | 'calls' | 'moves' | 'sets' | 'locks' | 'plain';

// https://dev.mysql.com/doc/refman/9.7/en/implicit-commit.html, https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/
const ENDS = new RegExp(
  `^(?:${[
    'begin',
    'start\\s+(?:transaction|slave|replica|group_replication)',
    'commit',
    'rollback(?!\\s+(?:work\\s+)?to\\b)',
    'xa',
    '(?:un)?lock\\s+tables?',
    'create(?!\\s+(?:or\\s+replace\\s+)?temporary\\b)',
    'drop(?!\\s+(?:temporary|prepare)\\b)',
    'analyze\\s+(?:(?:local|no_write_to_binlog)\\s+)?table',
    'check\\s+table',
    '(?:alter|truncate|rename|grant|revoke|optimize|repair|flush|reset|install|uninstall|change|stop)',
    'set\\s+(?:password|default\\s+role)',
    '(?:cache|load)\\s+index',
  ].join('|')})\\b`,
  'i',
);
/** A version comment is text that the server runs: what it holds is not read here. */
const CALLS = /^(?:call\b|execute\b|\/\*M?!)/i;
const MOVES = /^use\b/i;
const SETS = /^(?:set|prepare|handler|create\s+(?:or\s+replace\s+)?temporary)\b/i;
/** One user variable, by which nobody but its writer goes. */
const USER_VARIABLE = /^set\s+@[\w$.]+\s*:?=[^,]*$/i;
const LOCKS = /\bget_lock\s*\(/i;
/** What may stand before the first word; a parenthesis for `(SELECT …) UNION …`. */
const BEFORE = /^(?:[\s;(]|--[\s].*(?:\n|$)|#.*(?:\n|$)|\/\*(?!M?!)[\s\S]*?\*\/)+/;

export function kindOf(sql: string): StatementKind {
  const text = /^\w/.test(sql) ? sql : sql.replace(BEFORE, '');
  if (ENDS.test(text)) return 'ends';
  if (CALLS.test(text)) return 'calls';
  if (MOVES.test(text)) return 'moves';
  if (SETS.test(text) && !USER_VARIABLE.test(text)) return 'sets';
  return LOCKS.test(text) ? 'locks' : 'plain';
}
