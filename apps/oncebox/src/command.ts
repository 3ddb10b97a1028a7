/** A subcommand of `oncebox`. */
export interface Command {
  /** One line for the list of commands. */
  readonly summary: string;
  readonly help: string;
  /**
   * @returns the exit code: 0; 1 for a failure or a finding that it has reported itself; 3 for what nobody can know any more.
   * @throws UsageError for arguments that make no sense; anything else that it throws is a failure.
   */
  readonly run: (args: readonly string[]) => Promise<number>;
}

/** The command was called wrongly. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
