/** What must hold when all is quiet, whatever happened before. */
import type { SimulatedClient } from './clients.ts';
import type { SimulatedNode } from './node.ts';
import type { SimulationOptions } from './options.ts';
import type { SimulatedStore } from './store.ts';
import type { World } from './world.ts';

interface Remains {
  readonly world: World;
  readonly options: SimulationOptions;
  readonly store: SimulatedStore;
  readonly nodes: readonly SimulatedNode[];
  readonly clients: readonly SimulatedClient[];
  readonly effects: ReadonlyMap<string, ReadonlySet<number>>;
}

/** A client that is away for longer, with all quiet, does not come back. */
const AWAY_MS = 15_000;

export function examine(remains: Remains): void {
  examineTurns(remains);
  examineClients(remains);
  examineGuests(remains);
}

function examineTurns({ world, store, effects }: Remains): void {
  for (const [task, { status, ends, boot }] of store.turns) {
    const happened = effects.get(task)?.size ?? 0;
    if (!status) world.problem('a turn never ended', { task, boot, isDead: store.isDead(boot) });
    if (ends > 1) world.problem('a turn ended twice in the store', { task });
    if (happened > 1) world.problem('an effect happened twice', { task });
    if (status === 'completed' && happened !== 1) world.problem('completed without its effect', { task });
  }
  for (const task of effects.keys())
    if (!store.turns.has(task)) world.problem('an effect of a turn that was never stored', { task });
}

function examineClients({ world, store, clients }: Remains): void {
  for (const client of clients) {
    const { session } = client;
    const awaySinceMs = client.awaySinceMs();
    if (awaySinceMs !== undefined && world.now() - awaySinceMs > AWAY_MS)
      world.problem('a client could not come back', { session, owner: store.owners.get(session) });
    for (const { task, isAccepted, isKnown } of client.said()) {
      const row = store.turns.get(task);
      if (isAccepted && !row) world.problem('an acknowledged turn is lost', { task });
      if (isAccepted && !isKnown)
        world.problem('a client was never told how its turn ended', { task, session, status: row?.status });
    }
  }
}

/** A guest whose client is gone would hold its session for ever. */
function examineGuests({ world, nodes, clients, options }: Remains): void {
  if (!options.ticks || !options.gaps) return;
  const living = new Set(clients.map((client) => client.connection()));
  for (const node of nodes)
    for (const session of node.boot()?.sessions.all() ?? [])
      for (const id of session.clients.keys())
        if (!living.has(id.slice(id.indexOf('/') + 1)))
          world.problem('a guest is left whose client is gone', {
            node: node.name,
            session: session.name,
            id,
          });
}
