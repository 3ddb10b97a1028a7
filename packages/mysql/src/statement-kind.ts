/**
 * What a statement may do to the transaction and the session in which it runs.
 *
 * - `ends`: it commits or rolls back the transaction, implicitly (DDL) or by its own words.
 * - `calls`: it runs other statements, which nobody sees here.
 * - `moves`: it changes the default schema.
 * - `sets`: it leaves something in the session that the next borrower of the connection would
 *   inherit.
 * - `locks`: it takes a named lock, which belongs to the session and outlives the transaction.
 * - `plain`: none of these.
 */
export type StatementKind = 'ends' | 'calls' | 'moves' | 'sets' | 'locks' | 'plain';

// https://dev.mysql.com/doc/refman/9.7/en/implicit-commit.html, https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/
const ENDS = new RegExp(
  `^(?:${[
    'begin(?!\\s+not\\b)',
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
const CALLS = /^(?:call\b|execute\b|begin\s+not\b|\/\*M?!)/i;
const MOVES = /^use\b/i;
const SETS = /^(?:set|prepare|handler|create\s+(?:or\s+replace\s+)?temporary)\b/i;
/** User variables, by which nobody but their writer goes. */
const USER_VARIABLES = /^set\s+@[\w$.]/i;
const ANOTHER_VARIABLE = /,\s*(?:@@|(?:session|global|local|persist)\b|[a-z_]\w*\s*:?=)/i;
const LOCKS = /\bget_lock\b/i;
/** What may stand before the first word; a parenthesis for `(SELECT …) UNION …`. */
const BEFORE = /^(?:[\s;(]|--(?=\s|$)[^\n]*(?:\n|$)|#[^\n]*(?:\n|$)|\/\*(?!M?!)[\s\S]*?\*\/)+/;
const COMMENT = /\/\*(?!M?!)[\s\S]*?\*\//g;
/** Characters in which the words stand that tell a kind. */
const HEAD = 500;

export function kindOf(sql: string): StatementKind {
  const text = /^\w/.test(sql) ? sql : sql.replace(BEFORE, '');
  const head = text.slice(0, HEAD).replace(COMMENT, ' ');
  if (ENDS.test(head)) return 'ends';
  if (CALLS.test(head)) return 'calls';
  if (MOVES.test(head)) return 'moves';
  if (SETS.test(head) && !(USER_VARIABLES.test(head) && !ANOTHER_VARIABLE.test(text))) return 'sets';
  return LOCKS.test(text) ? 'locks' : 'plain';
}
