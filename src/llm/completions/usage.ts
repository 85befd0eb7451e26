/** What a provider says that a call used, where it says numbers. */

/** Whole tokens, each at least one; `total` is there whenever anything is. */
export interface Usage {
  readonly total: number;
  readonly input?: number;
  readonly output?: number;
}

/**
 * Reads `prompt_tokens`, `completion_tokens` and `total_tokens`, as numbers or numerals. Zeros, negative numbers and
 * fractions are no counts. The total counts; without one, the other two together. Undefined where nothing counts.
 */
export function readUsage(value: unknown): Usage | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const input = count(value, 'prompt_tokens') ?? count(value, 'input_tokens');
  const output = count(value, 'completion_tokens') ?? count(value, 'output_tokens');
  const sum = input === undefined && output === undefined ? undefined : (input ?? 0) + (output ?? 0);
  const total = count(value, 'total_tokens') ?? sum;
  if (total === undefined) return undefined;
  return {
    total,
    ...(input === undefined ? {} : { input }),
    ...(output === undefined ? {} : { output }),
  };
}

function count(value: object, key: string): number | undefined {
  const found: unknown = Reflect.get(value, key);
  const number = typeof found === 'string' && /^\d{1,15}$/.test(found.trim()) ? Number(found) : found;
  return typeof number === 'number' && Number.isSafeInteger(number) && number > 0 ? number : undefined;
}
