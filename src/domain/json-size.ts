/** The size of a value as JSON, without making the text of one that is far too large. */

/** Whether the value, as JSON.stringify writes it, has at most that many UTF-16 units. Looks no further than it must. */
export function hasJsonUnits(value: unknown, most: number): boolean {
  let left = most;
  const open: unknown[] = [value];
  while (open.length > 0 && left >= 0) {
    const each = open.pop();
    left -= 1;
    if (typeof each === 'string') left -= each.length;
    else if (Array.isArray(each)) for (const item of each) open.push(item);
    else if (typeof each === 'object' && each !== null)
      for (const [name, field] of Object.entries(each)) {
        left -= name.length + 1;
        open.push(field);
      }
  }
  return left >= 0 && JSON.stringify(value).length <= most;
}
