/**
 * What every session of our pools has, whatever the server's defaults are: each of these changes
 * what a statement of ours, or the text in it, means. `SET NAMES` because `init_connect` and
 * `skip-character-set-client-handshake` override what the driver asks for. `completion_type` would
 * open a transaction behind each COMMIT, `sql_select_limit` leaves rows out in silence, and without
 * autocommit a connection goes back to its pool with a read view.
 */
export const SESSION_SETTINGS: readonly string[] = [
  'NAMES utf8mb4',
  "SESSION sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
  "SESSION time_zone = '+00:00'",
  'SESSION autocommit = 1',
  "SESSION completion_type = 'NO_CHAIN'",
  'SESSION sql_select_limit = 18446744073709551615',
  'SESSION sql_safe_updates = 0',
  'SESSION sql_big_selects = 1',
  'SESSION sql_auto_is_null = 0',
  'SESSION foreign_key_checks = 1',
  'SESSION unique_checks = 1',
];

/** Sessions that have these settings, and are READ COMMITTED, until they end. */
const ours = new WeakSet<object>();

/** @internal */
export const haveOurSettings = (connection: object): void => void ours.add(connection);
/** @internal A statement has changed some. */
export const forgetSettings = (connection: object): void => void ours.delete(connection);
/**
 * @internal
 *
 * @param connection the driver's own object: its promise flavour makes another for each borrower.
 */
export const hasOurSettings = (connection: object): boolean => ours.has(connection);
