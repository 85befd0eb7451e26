/** Where a webhook may point: only at names that resolve to public addresses, looked at again at every connection. */
import { isIP, type LookupFunction } from 'node:net';
import ipaddr from 'ipaddr.js';

export interface ResolvedAddress {
  readonly address: string;
  readonly family: number;
}

/** All addresses of a name. Rejects where it has none. */
export type Resolve = (hostname: string) => Promise<readonly ResolvedAddress[]>;

/** Thrown into a connection that would leave the public internet. Says nothing about where it would have led. */
export class ForbiddenAddress extends Error {
  constructor() {
    super('the host resolves to an address that is not public');
    this.name = 'ForbiddenAddress';
  }
}

/**
 * Whether anyone on the internet could reach this address: no loopback, private, link-local, carrier-grade NAT,
 * multicast, unspecified, reserved or benchmark range, and no IPv6 form that carries an IPv4 address (mapped,
 * compatible, NAT64, 6to4, Teredo). Of IPv6 only 2000::/3 is given out; the rest is refused unread.
 */
export function isPublicAddress(address: string): boolean {
  if (isIP(address) === 0) return false;
  const parsed = ipaddr.parse(address);
  if (parsed.range() !== 'unicast') return false;
  return parsed.kind() === 'ipv4' || isGlobalIpv6(parsed.toByteArray());
}

const isGlobalIpv6 = (bytes: readonly number[]): boolean => ((bytes[0] ?? 0) & 0xe0) === 0x20;

/** A host as `net` takes it: IPv6 without its brackets. */
export const bare = (hostname: string): string => hostname.replace(/^\[|\]$/g, '');

/**
 * A `lookup` for node:http that hands over addresses only if every one of them is public. The socket connects to the
 * very addresses that were checked: a name that answers differently the next time (DNS rebinding) gains nothing.
 */
export function publicLookup(resolve: Resolve): LookupFunction {
  return checkedLookup(resolve, (found) => found.every(({ address }) => isPublicAddress(address)));
}

/** The same without the check. */
export const anyLookup = (resolve: Resolve): LookupFunction => checkedLookup(resolve, () => true);

function checkedLookup(
  resolve: Resolve,
  allowed: (found: readonly ResolvedAddress[]) => boolean,
): LookupFunction {
  return (hostname, options, done) => {
    const fail = (error: Error): void => done(error, '');
    resolve(hostname).then((found) => {
      const [first] = found;
      if (!first) fail(new Error(`${hostname} has no address`));
      else if (!allowed(found)) fail(new ForbiddenAddress());
      else if (options.all) done(null, [...found]);
      else done(null, first.address, first.family);
    }, fail);
  };
}
