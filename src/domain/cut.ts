/** Texts of bounded length that never end in half a character: such a half is no text on a wire or in a database. */

/** The first `units` UTF-16 units of a text, less half of a character where the cut would fall inside one. */
export function cut(text: string, units: number): string {
  if (text.length <= units) return text;
  const last = text.charCodeAt(units - 1);
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? units - 1 : units);
}
