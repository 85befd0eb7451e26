/** Leaves out what is undefined, or null: absence is no key, in records, on wires and in comparisons. */

/** `T` without its undefined values: what may be undefined may be absent instead. */
type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** A copy of the fields that are not undefined. */
export function defined<T extends object>(fields: T): Defined<T>;
export function defined(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) kept[name] = value;
  return kept;
}

/** A copy of an object without the fields that are null; anything else, and an object that has none, as it is. */
export function withoutNulls(value: Record<string, unknown>): Record<string, unknown>;
export function withoutNulls(value: unknown): unknown;
export function withoutNulls(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const fields = Object.entries(value);
  return fields.some(([, each]) => each === null)
    ? Object.fromEntries(fields.filter(([, each]) => each !== null))
    : value;
}
