/** Part 3: a client comes back to a session that the node does not hold any more, and is sent what was said. */
import { openStores } from '../../src/store/open.ts';
import { interleaved, progress } from '../kit/bench-main.ts';
import type { BenchOptions } from '../kit/options.ts';
import { type Figures, type Table, tableOf } from '../kit/result.ts';
import { type Server, startServer } from '../kit/servers.ts';
import type { Load } from '../load/load.ts';
import { MAPS, startOn } from './nodes.ts';
import type { Places } from './places.ts';
import { conversation, SILENT, TENANT } from './turns.ts';

const MESSAGES = 100;
const MODEL = 'offline-50x0';
const COUNT = { quick: 100, full: 300 } as const;
/** Connections of a round that are not counted. */
const WARM = 20;
const COLUMNS = [
  'snapshot p99 ms',
  'snapshot p50 ms',
  'session.ready p50 ms',
  'session.ready p99 ms',
  'snapshot bytes',
] as const;

interface Contender {
  readonly name: string;
  readonly server: Server;
  readonly messages: number;
}

export async function activationPart(
  places: Places,
  options: BenchOptions,
  load: Load,
): Promise<{ tables: readonly Table[] }> {
  const count = options.quick ? COUNT.quick : COUNT.full;
  const servers: Server[] = [];
  try {
    const contenders: Contender[] = [];
    const add = (server: Server, messages: readonly number[]): void => {
      servers.push(server);
      for (const each of messages)
        contenders.push({ name: `${server.name}, ${each} messages`, server, messages: each });
    };
    add(await startServer(MAPS, MODEL), [0]);
    for (const place of places.durable) {
      const url = await place.url();
      await fill(url, options.rounds, count + WARM);
      add(await startOn(place, MODEL, url), [0, MESSAGES]);
    }
    const rounds = await interleaved(contenders, options.rounds, (contender, round) =>
      oneRound(contender, round, count, load),
    );
    return { tables: [tableOf('A session wakes up, one at a time', COLUMNS, rounds)] };
  } finally {
    await Promise.all(servers.map((server) => server.end()));
  }
}

const prefixOf = (round: number, messages: number): string => `r${round}m${messages}-`;

/** Each session is woken once: every round has its own. */
async function fill(url: string, rounds: number, count: number): Promise<void> {
  const stores = await openStores({ url, log: SILENT });
  try {
    for (let round = 0; round < rounds; round++)
      for (let i = 0; i < count; i++)
        await stores.archive.restore(TENANT, conversation(`${prefixOf(round, MESSAGES)}${i}`, MESSAGES));
  } finally {
    await stores.close();
  }
  progress(`${rounds * count} sessions of ${MESSAGES} messages stored in ${url.split(':')[0]}`);
}

async function oneRound(
  { name, server, messages }: Contender,
  round: number,
  count: number,
  load: Load,
): Promise<Figures> {
  const { readyMs, snapshotMs, snapshotBytes } = await load.activate({
    ...{ port: server.port, tenant: TENANT, prefix: prefixOf(round, messages) },
    ...{ count, warm: WARM, messages },
  });
  progress(`${name}: snapshot after ${snapshotMs.p50?.toFixed(2)} ms, p99 ${snapshotMs.p99?.toFixed(2)} ms`);
  return {
    'snapshot p99 ms': snapshotMs.p99 ?? Number.NaN,
    'snapshot p50 ms': snapshotMs.p50 ?? Number.NaN,
    'session.ready p50 ms': readyMs.p50 ?? Number.NaN,
    'session.ready p99 ms': readyMs.p99 ?? Number.NaN,
    'snapshot bytes': snapshotBytes,
  };
}
