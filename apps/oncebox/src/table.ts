export type Cell = string | number | null | undefined;

/** Columns of equal width for people, the first row being their names. */
export function table(rows: readonly (readonly Cell[])[]): string {
  const texts = rows.map((row) => row.map(toText));
  const width = (column: number) => Math.max(...texts.map((row) => row[column]?.length ?? 0)) + 2;
  return texts
    .map((row) =>
      row
        .map((text, column) => text.padEnd(width(column)))
        .join('')
        .trimEnd(),
    )
    .join('\n');
}

/** What comes from a database must neither break a line nor steer the terminal. */
const toText = (cell: Cell): string => String(cell ?? '-').replaceAll(/\p{Cc}+/gu, ' ');

/** `90` → `90 s`, `7200` → `2 h`: one unit, as a glance needs no more. */
export function duration(seconds: number): string {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}

/** How long ago a moment in ISO 8601 was, by this machine's clock: for people only. */
export const ago = (iso: string): string => duration((Date.now() - Date.parse(iso)) / 1_000);
