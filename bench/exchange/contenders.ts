/** Contenders that ask in one process and answer in another, over the same Redis. */
import type { Exchange } from './contender.ts';

/** Each process loads its own contender only. */
export const EXCHANGES = {
  'nooble-json': async () => (await import('./nooble.ts')).overTransport('json'),
  'nooble-msgpack': async () => (await import('./nooble.ts')).overTransport('msgpack'),
  lists: async () => (await import('./lists.ts')).lists,
  bullmq: async () => (await import('./bullmq.ts')).bullmq,
  moleculer: async () => (await import('./moleculer.ts')).moleculer,
  'agent-run': async () => (await import('./agent-run.ts')).agentRun,
  'lists-model': async () => (await import('./model-workers.ts')).listsModel,
  'bullmq-model': async () => (await import('./model-workers.ts')).bullmqModel(false),
  'bullmq-model-published': async () => (await import('./model-workers.ts')).bullmqModel(true),
} as const satisfies Record<string, () => Promise<Exchange>>;

export type ExchangeName = keyof typeof EXCHANGES;

/** Throws for a name that is none. */
export async function loadExchange(name: string | undefined): Promise<Exchange> {
  for (const [known, load] of Object.entries(EXCHANGES)) if (known === name) return load();
  throw new Error(`no exchange ${name}; there are ${Object.keys(EXCHANGES).join(', ')}`);
}
