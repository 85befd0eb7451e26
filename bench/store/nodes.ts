/** The nodes whose stores are compared: one on Maps, one on SQLite in memory, one on each durable database. */
import { SERVERS, type Server, type ServerKind, startServer } from '../kit/servers.ts';
import type { Place, Places } from './places.ts';

export const MAPS: ServerKind = SERVERS.noobleMaps;
export const IN_MEMORY: ServerKind = { ...SERVERS.nooble, name: 'nooble on sqlite::memory:' };

export const on = (place: Pick<Place, 'name'>): ServerKind => ({
  ...SERVERS.nooble,
  name: `nooble on ${place.name}`,
});

/** Starts the node on that database. */
export const startOn = (place: Place, model: string, url: string): Promise<Server> =>
  startServer(on(place), model, { DATABASE_URL: url });

/** Starts nodes, the durable ones on new databases, for as long as `body` takes. */
export async function withNodes<T>(
  kinds: readonly ServerKind[],
  places: Places,
  model: string,
  body: (servers: readonly Server[]) => Promise<T>,
): Promise<T> {
  const servers: Server[] = [];
  try {
    for (const kind of kinds) servers.push(await startServer(kind, model));
    for (const place of places.durable) servers.push(await startOn(place, model, await place.url()));
    return await body(servers);
  } finally {
    await Promise.all(servers.map((server) => server.end()));
  }
}
