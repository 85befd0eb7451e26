/** Resident memory per connected session after 0, 1 and 10 turns: our node beside bare uWebSockets.js. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { benchMain, progress } from './kit/bench-main.ts';
import { type BenchOptions, setting } from './kit/options.ts';
import { rssKib } from './kit/proc-stat.ts';
import { heard, pinning } from './kit/process.ts';
import { type BenchFindings, compared, type Figures, medianOf, tableOf } from './kit/result.ts';
import { SERVERS, type Server, type ServerKind, startServer } from './kit/servers.ts';
import { type Load, startLoad } from './load/load.ts';

const PRELOAD = ['--expose-gc', '--import', './bench/preload/gc-on-signal.ts'];
const CONTENDERS: readonly ServerKind[] = [SERVERS.nooble, SERVERS.uwsCorked].map((kind) => ({
  ...kind,
  args: [...PRELOAD, ...kind.args],
}));

/** Turns each session has had at a stage, from the one before on. */
const STAGES = [0, 1, 10] as const;
/** Sessions that have come and gone before anything is measured: code is compiled, pools have grown. */
const WARM = { sessions: 50, each: 20 } as const;
const CONCURRENCY = 100;
const SETTLE_MS = 1500;

const memorySchema = z.object({
  memory: z.object({ heapUsed: z.number(), external: z.number(), arrayBuffers: z.number() }),
});

interface Reading {
  readonly rssKib: number;
  /** After a full collection. */
  readonly collectedRssKib: number;
  readonly liveKib: number;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function read(server: Server): Promise<Reading> {
  await sleep(SETTLE_MS);
  const before = rssKib(server.pid);
  const answer = heard(server.child, (message) => memorySchema.safeParse(message).data, 60_000);
  server.child.kill('SIGUSR2');
  const { memory } = await answer;
  await sleep(SETTLE_MS / 3);
  return {
    rssKib: before,
    collectedRssKib: rssKib(server.pid),
    liveKib: (memory.heapUsed + memory.external) / 1024,
  };
}

/** One fresh process, from no session to ten turns on each. */
async function oneProcess(
  kind: ServerKind,
  sessions: number,
  load: Load,
  notes: string[],
): Promise<Figures[]> {
  // On disk, as by default: a database in memory would be counted as the sessions'.
  const folder = mkdtempSync(join(tmpdir(), 'nooble-bench-'));
  const server = await startServer(kind, 'offline-50x0', { DATABASE_URL: `sqlite:${folder}/nooble.db` });
  try {
    const target = { port: server.port, dialect: kind.dialect, tenant: 'bench', query: '' };
    await load.open({ ...target, prefix: 'warm', count: WARM.sessions });
    await load.turns({ each: WARM.each, concurrency: CONCURRENCY });
    await load.close();
    const empty = await read(server);
    await load.open({ ...target, prefix: 's', count: sessions });
    const figures: Figures[] = [];
    let had = 0;
    for (const turns of STAGES) {
      if (turns > had) {
        const done = await load.turns({ each: turns - had, concurrency: CONCURRENCY });
        if (done.errors > 0) notes.push(`${kind.name}: ${done.errors} turns failed, ${done.lastError}`);
      }
      had = turns;
      const now = await read(server);
      figures.push({
        'RSS, KiB': (now.rssKib - empty.collectedRssKib) / sessions,
        'RSS after GC, KiB': (now.collectedRssKib - empty.collectedRssKib) / sessions,
        'live heap + external, KiB': (now.liveKib - empty.liveKib) / sessions,
        'process RSS, MiB': now.rssKib / 1024,
      });
      progress(`${kind.name}: ${turns} turns, ${Math.round(now.rssKib / 1024)} MiB`);
    }
    await load.close();
    return figures;
  } finally {
    await server.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

const rowOf = (name: string, turns: number): string => `${name}, ${turns} turns`;

async function run(options: BenchOptions): Promise<BenchFindings> {
  const sessions = setting(options, 'sessions', options.quick ? 1000 : 5000);
  const notes = [
    pinning(),
    `Per session, over the same process before the sessions came: it had served ${WARM.sessions * WARM.each} turns. RSS is as Linux counts it when the turns of a stage have ended, garbage and all; after GC: after two collections that give pages back. Both over the empty process after such collections.`,
    'Sessions that have gone before may still be held by the node for a while (SESSION_IDLE_SECONDS); they count for both sides of the difference.',
  ];
  const rows = new Map<string, Figures[]>();
  const load = await startLoad();
  try {
    for (let round = 0; round < options.rounds; round++) {
      for (const kind of CONTENDERS) {
        const stages = await oneProcess(kind, sessions, load, notes);
        stages.forEach((figures, i) => {
          const name = rowOf(kind.name, STAGES[i] ?? 0);
          rows.set(name, [...(rows.get(name) ?? []), figures]);
        });
      }
    }
  } finally {
    await load.end();
  }
  const columns = ['RSS, KiB', 'RSS after GC, KiB', 'live heap + external, KiB', 'process RSS, MiB'];
  const table = tableOf(
    `Per connected session at ${sessions.toLocaleString('en-US')} sessions`,
    columns,
    rows,
  );
  return {
    tables: [table],
    comparisons: STAGES.flatMap((turns) =>
      ['RSS, KiB', 'RSS after GC, KiB'].flatMap((column) =>
        compared(
          `${column}, per session after ${turns} turns`,
          medianOf(table, rowOf(SERVERS.nooble.name, turns), column),
          turns === 10 ? { atMost: 20 } : {},
        ),
      ),
    ),
    notes,
  };
}

await benchMain({ name: 'memory', rounds: 3, seconds: 1, run });
