import { DatabaseError } from './errors.ts';

export interface Statement {
  /** From its first word up to its `;`, which is left out. Comments inside it stay. */
  readonly text: string;
  /** 1-based, of its first word. */
  readonly line: number;
  /** Index right behind its `;` in the source. */
  readonly end: number;
  /** The server commits by itself around it (DDL), so its outcome and the ledger cannot change in one transaction. */
  readonly commitsItself: boolean;
}

const DATA_KEYWORDS = ['INSERT', 'UPDATE', 'DELETE', 'REPLACE', 'WITH'];
const SCHEMA_KEYWORDS = ['CREATE', 'ALTER', 'DROP', 'RENAME', 'TRUNCATE'];

// A space must follow `--`: MySQL reads `5--1` as arithmetic. `/*!` and MariaDB's `/*M!` are no comments but code.
const COMMENT = /--(?=\s|$)[^\n]*|#[^\n]*|\/\*(?!M?!)[\s\S]*?\*\//y;

/**
 * Splits a migration into its statements. It knows comments and quotes, not SQL: the server runs in a mode (see session.ts) in
 * which a backslash escapes and `"` quotes a string, whatever its configuration says.
 *
 * @throws DatabaseError ONCEBOX_MIGRATION_INVALID for a quote or a comment that does not end, and for a statement that is no
 *   plain change of schema or data. Others (SET, USE, BEGIN, LOCK …) leave something behind in the session, which a run that
 *   resumes after them would not have; DELIMITER is the mysql client's, and what stands between its delimiters cannot be split.
 */
export function splitStatements(source: string): readonly Statement[] {
  const statements: Statement[] = [];
  let start: number | undefined;
  const close = (at: number): void => {
    if (start !== undefined) statements.push(statement(source, start, at));
    start = undefined;
  };
  let at = 0;
  while (at < source.length) {
    const behind = endOfComment(source, at);
    const character = source.charAt(at);
    if (behind !== undefined) {
      at = behind;
    } else if (character === ';') {
      close(at);
      at++;
    } else {
      if (start === undefined && /\S/.test(character)) start = at;
      at = /['"`]/.test(character) ? endOfQuoted(source, at) : at + 1;
    }
  }
  close(at);
  return statements;
}

function statement(source: string, start: number, end: number): Statement {
  const text = source.slice(start, end).trimEnd();
  const line = lineAt(source, start);
  const keyword = /^\w*/.exec(text)?.[0].toUpperCase() ?? '';
  if (keyword === 'DELIMITER') {
    throw new DatabaseError(
      'ONCEBOX_MIGRATION_INVALID',
      `line ${line}: DELIMITER belongs to the mysql client; a migration has no stored procedures or compound triggers`,
    );
  }
  if (!DATA_KEYWORDS.includes(keyword) && !SCHEMA_KEYWORDS.includes(keyword)) {
    throw new DatabaseError(
      'ONCEBOX_MIGRATION_INVALID',
      `line ${line}: a statement of a migration begins with ${[...SCHEMA_KEYWORDS, ...DATA_KEYWORDS].join(', ')}; ` +
        `this one begins with ${keyword === '' ? `"${text.charAt(0)}"` : keyword}`,
    );
  }
  return { text, line, end: Math.min(end + 1, source.length), commitsItself: SCHEMA_KEYWORDS.includes(keyword) };
}

/** @returns undefined when no comment begins here. */
function endOfComment(source: string, at: number): number | undefined {
  COMMENT.lastIndex = at;
  if (COMMENT.test(source)) return COMMENT.lastIndex;
  if (/^\/\*(?!M?!)/.test(source.slice(at, at + 4))) throw unterminated(source, at, 'comment');
  return undefined;
}

/** A doubled quote needs no care: it ends one string and begins the next. */
function endOfQuoted(source: string, start: number): number {
  const quote = source.charAt(start);
  for (let at = start + 1; at < source.length; at++) {
    const character = source.charAt(at);
    if (character === '\\' && quote !== '`') at++;
    else if (character === quote) return at + 1;
  }
  throw unterminated(source, start, 'quote');
}

const unterminated = (source: string, at: number, what: string): DatabaseError =>
  new DatabaseError('ONCEBOX_MIGRATION_INVALID', `line ${lineAt(source, at)}: the ${what} that begins here has no end`);

const lineAt = (source: string, at: number): number => source.slice(0, at).split('\n').length;
