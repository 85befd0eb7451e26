/** Part 1: what an acknowledged message costs with group commit, and with a transaction for each message. */
import pg from 'pg';
import { createConversations } from '../../src/store/conversations.ts';
import type { Database } from '../../src/store/database.ts';
import { encodeAccepted } from '../../src/store/encode.ts';
import { guarded } from '../../src/store/guarded.ts';
import { runBatch } from '../../src/store/postgres/batch.ts';
import { createFence } from '../../src/store/postgres/fence.ts';
import { openPostgres } from '../../src/store/postgres/open.ts';
import { openSqlite } from '../../src/store/sqlite/open.ts';
import { interleaved, progress } from '../kit/bench-main.ts';
import { quantiles, recording } from '../kit/numbers.ts';
import type { BenchOptions } from '../kit/options.ts';
import { type Comparison, compared, type Figures, medianOf, type Table, tableOf } from '../kit/result.ts';
import { type Place, type Places, POSTGRES } from './places.ts';
import { type AcceptedWrite, createSender, SILENT } from './turns.ts';

const CLIENTS = [1, 100, 500] as const;
const WARMUP_MS = 500;
const COLUMNS = ['messages/s', 'commit p50 ms', 'commit p99 ms', 'messages a transaction'] as const;
/** Connections of the PostgreSQL peer that does not wait for its own commits to end: as many as our pool has. */
const POOL_SIZE = 8;
/** On a slow disk the last of 500 messages waits for 499 commits; the peer must not be refused for it. */
const PATIENT = { maxWrites: 1, maxWaitMs: 600_000 };

const grouped = (place: string): string => `${place}, group commit`;
const limited = (place: string): string => `${grouped(place)}, the day limited`;
const single = (place: string): string => `${place}, one transaction a message`;
const pooled = (place: string): string => `${single(place)}, ${POOL_SIZE} connections`;

interface Contender {
  readonly name: string;
  /** Resolves once the message is stored. Rejects where it is not. */
  store(write: AcceptedWrite): Promise<void>;
  /** Transactions so far. */
  transactions(): number;
}

interface Opened {
  readonly contenders: readonly Contender[];
  close(): Promise<void>;
}

export async function commitPart(
  places: Places,
  options: BenchOptions,
): Promise<{ tables: readonly Table[]; comparisons: readonly Comparison[] }> {
  const tables: Table[] = [];
  for (const clients of CLIENTS) {
    const opened: Opened[] = [];
    try {
      for (const place of places.durable) opened.push(await open(place));
      const rounds = await interleaved(
        opened.flatMap(({ contenders }) => contenders),
        options.rounds,
        (contender, round) => oneRound(contender, clients, `r${round}c`, options.roundMs),
      );
      tables.push(tableOf(`Acknowledged messages, C = ${clients}`, COLUMNS, rounds));
    } finally {
      for (const { close } of opened) await close();
    }
  }
  return { tables, comparisons: tables.flatMap((table) => comparisons(table, places.durable)) };
}

/** A new database, and everybody who stores into it: through the same statements, guard and connection. */
async function open(place: Place): Promise<Opened> {
  const url = await place.url();
  const opened = await (place.name === POSTGRES
    ? openPostgres({ url }, SILENT)
    : openSqlite({ path: url.slice('sqlite:'.length) }, SILENT));
  const database = guarded<Database>(opened, { log: SILENT, timeoutMs: PATIENT.maxWaitMs });
  const both = [
    throughStore(grouped(place.name), database, {}),
    throughStore(single(place.name), database, PATIENT),
  ];
  if (place.name === POSTGRES) both.push(throughStore(limited(place.name), database, {}, MANY));
  const pool = place.name === POSTGRES ? throughPool(pooled(place.name), url) : undefined;
  return {
    contenders: [...both, ...(pool ? [pool] : [])],
    async close() {
      for (const contender of both) await contender.close();
      await pool?.close();
      await opened.close();
    },
  };
}

/** More turns a day than any sender sends: they are counted as those of a tenant with a limit. */
const MANY = 1_000_000_000;

/** `most`: of the day. */
function throughStore(name: string, database: Database, limits: Partial<typeof PATIENT>, most?: number) {
  let transactions = 0;
  const counted: Database = {
    ...database,
    batch(writes) {
      transactions += 1;
      return database.batch(writes);
    },
  };
  const conversations = createConversations(counted, limits);
  return {
    name,
    transactions: () => transactions,
    async store(write: AcceptedWrite) {
      const limitedTo = most === undefined ? write : { ...write, most };
      if ((await conversations.commit(limitedTo)) !== 'stored')
        throw new Error(`${name}: a task id came twice`);
    },
    close: () => conversations.close(),
  };
}

/** PostgreSQL gathers the commits of several connections by itself: what one would do without group commit. */
function throughPool(name: string, connectionString: string) {
  const config: pg.PoolConfig & { readonly pipeline: boolean } = {
    connectionString,
    max: POOL_SIZE,
    pipeline: true,
  };
  const pool = new pg.Pool(config);
  const unfenced = createFence();
  let transactions = 0;
  return {
    name,
    transactions: () => transactions,
    async store(write: AcceptedWrite) {
      transactions += 1;
      const [outcome] = await runBatch(pool, unfenced, [encodeAccepted(write)]);
      if (outcome !== 1) throw new Error(`${name}: a task id came twice`);
    },
    close: () => pool.end(),
  };
}

/** Closed loop: each client sends its next message when the last one is acknowledged. */
async function oneRound(
  contender: Contender,
  clients: number,
  prefix: string,
  roundMs: number,
): Promise<Figures> {
  const tookMs = recording();
  const fromMs = performance.now() + WARMUP_MS;
  const untilMs = fromMs + roundMs;
  const before = contender.transactions();
  let stored = 0;
  const client = async (_: unknown, i: number): Promise<void> => {
    const sender = createSender(`${prefix}${i}-${contender.name.replaceAll(/\W/g, '-')}`);
    for (let nowMs = 0; nowMs < untilMs; ) {
      const write = sender.next();
      const sentMs = performance.now();
      await contender.store(write);
      stored += 1;
      nowMs = performance.now();
      if (nowMs >= fromMs && nowMs < untilMs) tookMs.add(nowMs - sentMs);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const { count, p50, p99 } = quantiles(tookMs.values());
  const perSecond = count / (roundMs / 1000);
  progress(`${contender.name}, C = ${clients}: ${Math.round(perSecond)} messages/s`);
  return {
    'messages/s': perSecond,
    'commit p50 ms': p50,
    'commit p99 ms': p99,
    'messages a transaction': stored / (contender.transactions() - before),
  };
}

function comparisons(table: Table, places: readonly Place[]): readonly Comparison[] {
  const rate = (row: string): number => medianOf(table, row, 'messages/s');
  return places.flatMap(({ name }) => [
    ...(name === POSTGRES
      ? compared(
          `messages/s where each tenant's day has a limit, over none: ${table.title.split(', ')[1]}`,
          rate(limited(name)) / rate(grouped(name)),
        )
      : []),
    ...compared(
      `messages/s over one transaction a message: ${name}, ${table.title.split(', ')[1]}`,
      rate(grouped(name)) / rate(single(name)),
    ),
    ...compared(
      `messages/s over one transaction a message on ${POOL_SIZE} connections: ${name}, ${table.title.split(', ')[1]}`,
      rate(grouped(name)) / rate(pooled(name)),
    ),
  ]);
}
