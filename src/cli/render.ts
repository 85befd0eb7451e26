/** Turns values into lines for a terminal. */

/** Characters of one value that a line shows. */
const MAX_SHOWN = 60;

/** Columns as wide as their widest cell, two spaces apart. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => printable(row[column] ?? '').length)),
  );
  return [head, ...rows].map((row) =>
    row
      .map((cell, column) => printable(cell).padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

/** A value on one line, cut where it is long. */
export function shown(value: unknown): string {
  const text = printable(value === undefined ? '(none)' : JSON.stringify(value));
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}

/** Without what would move the cursor or change colours: texts are other people's. */
export const printable = (text: string): string => text.replaceAll(/\p{Cc}/gu, '�');
