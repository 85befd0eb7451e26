/** A DNS server over UDP on loopback that answers as a test says, or not at all. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { TestContext } from 'node:test';

type Family = 'A' | 'AAAA';

export interface NameServer {
  /** As `address:port`. */
  readonly address: string;
  /** The questions so far, as `A name`. */
  readonly questions: readonly string[];
}

/** What a name has: addresses, none, no such name, or silence. */
export type NameAnswer = readonly string[] | 'unknown' | 'silence';

const CODES: Readonly<Record<number, Family>> = { 1: 'A', 28: 'AAAA' };

export async function startNameServer(
  t: TestContext,
  answer: (name: string, family: Family) => NameAnswer,
  ttlS = 60,
): Promise<NameServer> {
  const questions: string[] = [];
  const socket = createSocket('udp4');
  socket.on('message', (query, from) => {
    const { name, end } = nameIn(query);
    const type = query.readUInt16BE(end);
    const family = CODES[type];
    if (!family) return;
    questions.push(`${family} ${name}`);
    const found = answer(name, family);
    if (found === 'silence') return;
    const addresses = found === 'unknown' ? [] : found;
    const header = Buffer.from(query.subarray(0, 12));
    header.writeUInt16BE(found === 'unknown' ? 0x8183 : 0x8180, 2);
    header.writeUInt16BE(addresses.length, 6);
    header.writeUInt32BE(0, 8);
    const records = addresses.map((address) => {
      const data = bytesOf(address);
      const record = Buffer.alloc(12);
      record.writeUInt16BE(0xc00c, 0);
      record.writeUInt16BE(type, 2);
      record.writeUInt16BE(1, 4);
      record.writeUInt32BE(ttlS, 6);
      record.writeUInt16BE(data.length, 10);
      return Buffer.concat([record, data]);
    });
    socket.send(Buffer.concat([header, query.subarray(12, end + 4), ...records]), from.port, from.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  return { address: `127.0.0.1:${socket.address().port}`, questions };
}

function nameIn(query: Buffer): { readonly name: string; readonly end: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join('.').toLowerCase(), end: at + 1 };
}

/** IPv6 in full: eight groups. */
const bytesOf = (address: string): Buffer =>
  address.includes(':')
    ? Buffer.from(
        address
          .split(':')
          .map((group) => group.padStart(4, '0'))
          .join(''),
        'hex',
      )
    : Buffer.from(address.split('.').map(Number));
