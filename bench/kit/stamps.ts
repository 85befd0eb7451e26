/** Times inside a streamed text: when the endpoint was asked, and when it wrote a token. All of one length. */

/** `~` opens a token's stamp, `^` that of the request; neither stands in a frame otherwise. */
export const MARK = { token: 0x7e, asked: 0x5e } as const;

const DIGITS = 6;
const BASE = 36;
/** µs after which the count begins again: 36 minutes. */
const ROUND_US = BASE ** DIGITS;

/** CLOCK_MONOTONIC in µs, which all processes of a machine share. */
export const stampNowUs = (): number => Number((process.hrtime.bigint() / 1000n) % BigInt(ROUND_US));

/** Six digits to base 36. */
export const stampText = (us: number): string => us.toString(BASE).padStart(DIGITS, '0');

/** The stamp behind a mark at `at`; NaN where none is. */
export function stampAt(bytes: Buffer, at: number): number {
  let us = 0;
  for (let i = at + 1; i <= at + DIGITS; i++) {
    const digit = bytes[i] ?? 0;
    // Digits, then small letters.
    us = us * BASE + (digit < 0x3a ? digit - 0x30 : digit - 0x57);
  }
  return us;
}

/** From a stamp to a later one, in ms. */
export const msBetween = (fromUs: number, toUs: number): number =>
  ((toUs - fromUs + ROUND_US) % ROUND_US) / 1000;

export const STAMP_LENGTH = DIGITS + 1;
