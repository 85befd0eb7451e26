/** Medians, percentiles, and how figures are written. */

/** The middle of the values; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[half - 1] ?? Number.NaN)) / 2;
}

export interface Quantiles {
  readonly count: number;
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** Exact quantiles (nearest rank) of what was recorded. Sorts a copy. */
export function quantiles(values: ArrayLike<number>): Quantiles {
  const sorted = Float64Array.from(values).sort();
  const at = (q: number): number => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN;
  const sum = sorted.reduce((total, value) => total + value, 0);
  return {
    count: sorted.length,
    mean: sum / sorted.length,
    p50: at(0.5),
    p90: at(0.9),
    p99: at(0.99),
    max: at(1),
  };
}

/** A growing list of numbers that costs eight bytes each and no garbage while it does not grow. */
export interface Recording {
  add(value: number): void;
  clear(): void;
  values(): Float64Array;
}

export function recording(capacity = 65_536): Recording {
  let room = new Float64Array(capacity);
  let size = 0;
  return {
    add(value) {
      if (size === room.length) {
        const larger = new Float64Array(room.length * 2);
        larger.set(room);
        room = larger;
      }
      room[size++] = value;
    },
    clear() {
      size = 0;
    },
    values: () => room.subarray(0, size),
  };
}

/** At least three significant digits, thousands separated. */
export function written(value: number): string {
  if (Number.isNaN(value)) return '–';
  const magnitude = Math.abs(value);
  const digits = magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : 3;
  return value.toLocaleString('en-US', { maximumFractionDigits: digits, minimumFractionDigits: digits });
}
