/** Mailboxes: what telling, asking, spawning and holding actors costs with our wrapper, beside bare nact. */
import { benchMain, interleaved, progress } from './kit/bench-main.ts';
import { collect, heapBytes, usEach, usEachFor } from './kit/micro.ts';
import type { BenchOptions } from './kit/options.ts';
import { type BenchFindings, compared, type Figures, medianOf, tableOf } from './kit/result.ts';
import { bareNact } from './mailboxes/bare-nact.ts';
import type { Counter, MailboxLibrary } from './mailboxes/mailbox.ts';
import { ourLibrary } from './mailboxes/ours.ts';

const CHILDREN = [10, 1_000, 10_000] as const;
const BURST = 64;

interface Contender {
  readonly name: string;
  readonly make: () => MailboxLibrary;
}

const CONTENDERS: readonly Contender[] = [
  { name: 'ours', make: ourLibrary },
  { name: 'bare nact', make: bareNact },
];

async function bursts(counter: Counter, messages: number, burst: number): Promise<number> {
  return usEach(messages, async () => {
    for (let sent = 0; sent < messages; sent += burst) await counter.tell(burst);
  });
}

async function messages(library: MailboxLibrary, count: number): Promise<Figures> {
  const counter = library.counter();
  await bursts(counter, count / 10, BURST);
  const one = await bursts(counter, count / 4, 1);
  const many = await bursts(counter, count, BURST);
  await counter.ask();
  const asked = await usEach(count / 4, async () => {
    for (let i = 0; i < count / 4; i++) await counter.ask();
  });
  const askedAtOnce = await usEach(count / 4, async () => {
    for (let i = 0; i < count / 4; i += BURST) {
      await Promise.all(Array.from({ length: BURST }, () => counter.ask()));
    }
  });
  return {
    [`tell, ${BURST} at once, µs`]: many,
    'tell, alone, µs': one,
    'ask, alone, µs': asked,
    [`ask, ${BURST} at once, µs`]: askedAtOnce,
  };
}

/** One message at a time to the parent, which is what a tenant with that many sessions gets. */
async function parents(library: MailboxLibrary, ms: number): Promise<Figures> {
  const figures: Record<string, number> = {};
  for (const children of CHILDREN) {
    const parent = library.parent();
    for (let i = 0; i < children; i++) parent.spawn(i);
    await parent.tellChildren();
    // The garbage of ten thousand births is not the message's.
    collect();
    await bursts(parent, 20, 1);
    figures[`${children} children, µs`] = await usEachFor(ms, () => parent.tell(1));
    await parent.stopChildren();
  }
  return figures;
}

async function lives(library: MailboxLibrary, count: number): Promise<Figures> {
  const parent = library.parent();
  const before = await heapBytes();
  const spawnUs = await usEach(count, () => {
    for (let i = 0; i < count; i++) parent.spawn(i);
  });
  await parent.tellChildren();
  const bytes = ((await heapBytes()) - before) / count;
  const tellUs = await usEach(count, () => parent.tellChildren());
  const stopUs = await usEach(count, () => parent.stopChildren());
  return {
    'spawn, µs': spawnUs,
    'tell each once, µs': tellUs,
    'stop, µs': stopUs,
    'heap bytes per actor': bytes,
  };
}

async function fresh(
  { name, make }: Contender,
  what: string,
  measure: (library: MailboxLibrary) => Promise<Figures>,
): Promise<Figures> {
  const library = make();
  const figures = await measure(library);
  await library.close();
  progress(`${what}: ${name}`);
  return figures;
}

async function run(options: BenchOptions): Promise<BenchFindings> {
  const count = options.quick ? 12_800 : 128_000;
  const parentMs = options.quick ? 50 : 300;
  const measured = async (title: string, measure: (library: MailboxLibrary) => Promise<Figures>) => {
    const rounds = await interleaved(CONTENDERS, options.rounds, (one) => fresh(one, title, measure));
    return tableOf(title, Object.keys([...rounds.values()][0]?.[0] ?? {}), rounds);
  };
  const tables = [
    await measured('One actor, per message', (library) => messages(library, count)),
    await measured('A message to a parent with many children', (library) => parents(library, parentMs)),
    await measured('10,000 actors under one parent, per actor', (library) => lives(library, 10_000)),
  ];
  const [, crowd, life] = tables;
  if (!crowd || !life) throw new Error('a table is missing');
  const growth = (name: string): number =>
    medianOf(crowd, name, '10000 children, µs') / medianOf(crowd, name, '10 children, µs');
  return {
    tables,
    comparisons: [
      ...compared('message to a parent with 10,000 children over one with 10: ours', growth('ours'), {
        atMost: 2,
      }),
      ...compared('the same: bare nact', growth('bare nact')),
      ...compared(
        'heap bytes per actor over bare nact',
        medianOf(life, 'ours', 'heap bytes per actor') / medianOf(life, 'bare nact', 'heap bytes per actor'),
      ),
    ],
    notes: [
      'Ours counts depth, handling time, crashes and dead letters, bounds its mailboxes, and handles up to 64 messages a loop turn; nact does one a loop turn and none of the rest.',
    ],
  };
}

await benchMain({ name: 'mailbox', rounds: 5, seconds: 1, run });
