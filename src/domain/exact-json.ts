/** JSON whose whole numbers stay as they were written, also those that a double can not hold: those are bigints. */

/** Digits of a number that is kept; nobody counts further. */
const MAX_DIGITS = 40;

const WHOLE = /^-?\d+$/;

/** As JSON.parse; throws too for numbers that would be read as infinite, or have more than MAX_DIGITS digits. */
export const parseExactly = (text: string): unknown => JSON.parse(text, exact);

function exact(_key: string, value: unknown, { source = '' }: { readonly source?: string } = {}): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value)) return value;
  if (!Number.isFinite(value)) throw new RangeError('A number is too large.');
  if (!WHOLE.test(source)) return value;
  if (source.length > MAX_DIGITS) throw new RangeError('A number has too many digits.');
  return BigInt(source);
}

/** JSON.stringify asks for this, wherever in the process a bigint is written: it becomes those digits again. */
Object.defineProperty(BigInt.prototype, 'toJSON', {
  configurable: true,
  writable: true,
  value(this: bigint) {
    return rawJson(String(this));
  },
});

/** Node has it since version 21; the language's own types do not name it yet. */
const { rawJSON: rawJson }: { readonly rawJSON: (text: string) => unknown } = Object.assign(JSON);
