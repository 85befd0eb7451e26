/**
 * Leases: what a node holds of a limit that many nodes share, when it asks for more, and what it gives back. Pure.
 *
 * Tokens are of a rate: whoever takes one spends it. Slots are of things at once: they come back. All that nodes hold
 * and what is left counts as one limit, so that it is never exceeded; what a node holds in vain others lack for 5 s.
 */

/** A limit as leases are cut from it. */
export interface LeaseTerms {
  /** So many at once over all nodes. */
  readonly most: number;
  /** Tokens that flow back each millisecond; null: slots. */
  readonly perMs: number | null;
  /** What is asked for at once, where no more is needed. */
  readonly chunk: number;
  /** Whether what is free is held for a while; of a small limit it goes back at once. */
  readonly keeps: boolean;
}

/** What a node holds, and what it did with it since it was last looked at. */
export interface Lease {
  /** Held and not in use. */
  readonly free: number;
  /** Slots in use. */
  readonly used: number;
  /** The fewest that were free since the last look. */
  readonly idle: number;
  /** Taken since the last look. */
  readonly taken: number;
  /** A question is under way; there is one at a time. */
  readonly asking: boolean;
  /** Its part of the slots, while other nodes want some in vain; null: they do not. */
  readonly share: number | null;
}

/**
 * What a node asks of one limit. `held` is all that it holds, `back` what it does not hold any more. `spends`: so many of the
 * tokens that it is given are spent at once, by requests that wait for them; they are not held.
 */
export interface LeaseQuestion {
  readonly most: number;
  readonly perMs: number | null;
  readonly held: number;
  readonly back: number;
  readonly want: number;
  readonly spends: number;
}

export interface LeaseAnswer {
  readonly given: number;
  /** When there may be one more, ms; null: it was given what it wanted. */
  readonly retryAfterMs: number | null;
  readonly share: number | null;
}

export const NO_LEASE: Lease = { free: 0, used: 0, idle: 0, taken: 0, asking: false, share: null };

/** So long what nobody uses is held, and this often a lease is looked at. */
export const LEASE_KEEP_MS = 5_000;
/** A chunk is at most this part of a limit. */
const PARTS = 8;

const chunkOf = (most: number): number => Math.max(1, Math.floor(most));

/** `most` tokens each `periodMs`; a chunk is at most what flows back while a lease is held. */
export function tokenTerms(most: number, periodMs: number): LeaseTerms {
  const perMs = most / periodMs;
  const chunk = chunkOf(Math.min(most / PARTS, perMs * LEASE_KEEP_MS));
  return { most, perMs, chunk, keeps: chunk > 1 };
}

export const slotTerms = (most: number): LeaseTerms => ({
  most,
  perMs: null,
  chunk: chunkOf(most / PARTS),
  keeps: most >= PARTS,
});

export const heldOf = ({ free, used }: Lease): number => free + used;

const lessFree = (lease: Lease): Lease => ({
  ...lease,
  free: lease.free - 1,
  idle: Math.min(lease.idle, lease.free - 1),
  taken: lease.taken + 1,
});

/** With one token less. There must be one. */
export const spent = (lease: Lease): Lease => lessFree(lease);
/** With a token that was taken in vain. */
export const unspent = (lease: Lease): Lease => ({ ...lease, free: lease.free + 1 });
/** With one slot more in use. There must be a free one. */
export const occupied = (lease: Lease): Lease => ({ ...lessFree(lease), used: lease.used + 1 });
export const vacated = (lease: Lease): Lease => ({ ...lease, free: lease.free + 1, used: lease.used - 1 });

/** Free slots that are to go to other nodes, which want some in vain. */
export const surplusOf = (lease: Lease): number =>
  lease.share === null ? 0 : Math.min(lease.free, Math.max(0, Math.ceil(heldOf(lease) - lease.share)));

/** How many may be in use at once, as far as the lease goes. */
export const capacityOf = (lease: Lease): number => heldOf(lease) - surplusOf(lease);

type Asked = readonly [Lease, LeaseQuestion | null];

const question = (
  lease: Lease,
  { most, perMs }: LeaseTerms,
  back: number,
  want: number,
  spends = 0,
): Asked => {
  const kept = { ...lease, free: lease.free - back, asking: true };
  const idle = Math.min(lease.idle, kept.free);
  return [
    { ...kept, idle },
    { most, perMs, held: heldOf(kept), back, want, spends },
  ];
};

/** Asks for so many more, or for a chunk where that is more; not while a question is under way. */
export function askFor(lease: Lease, terms: LeaseTerms, needed: number): Asked {
  const room = Math.max(0, terms.most - heldOf(lease));
  const want = Math.min(Math.max(needed, terms.chunk), terms.perMs === null ? room : Math.max(1, terms.most));
  if (lease.asking || want <= 0) return [lease, null];
  return question(lease, terms, 0, want, terms.perMs === null ? 0 : Math.min(needed, want));
}

/** Gives back so many free ones. */
export const giveBack = (lease: Lease, terms: LeaseTerms, count: number): Asked =>
  lease.asking || count <= 0 ? [lease, null] : question(lease, terms, count, 0);

/** Null: nobody knows what became of the question; the next one says what is held. */
export function answeredLease(lease: Lease, answer: LeaseAnswer | null): Lease {
  if (!answer) return { ...lease, asking: false };
  return { ...lease, asking: false, free: lease.free + answer.given, share: answer.share };
}

/**
 * Looks at a lease after `LEASE_KEEP_MS`. What nobody used goes back, all of it where nothing was taken, else what
 * is beyond a chunk; tokens are filled up to a chunk again before they run out. Slots in use are said once more, to hear
 * whether other nodes want some.
 */
export function lookedAt(lease: Lease, terms: LeaseTerms): Asked {
  if (lease.asking) return [lease, null];
  const isUsed = lease.taken > 0 && terms.keeps;
  const keep = isUsed ? terms.chunk : 0;
  const isRate = terms.perMs !== null;
  const back = Math.max(0, (isRate ? lease.free : lease.idle) - keep);
  const want = isRate && isUsed ? Math.max(0, keep - lease.free) : 0;
  const seen = { ...lease, taken: 0, idle: lease.free - back };
  const isSaid = back > 0 || want > 0 || (!isRate && lease.taken > 0 && heldOf(lease) > 0);
  return isSaid ? question(seen, terms, back, want) : [seen, null];
}
