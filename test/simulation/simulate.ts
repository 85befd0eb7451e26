/**
 * A cluster in one thread and no time: nodes, a database, Redis, clients and faults, all out of one seed. Faults come
 * in the first part, and in the second it is quiet, since what must end at last has to be seen ending.
 */
import { createClient, type SimulatedClient } from './clients.ts';
import { createMedium } from './medium.ts';
import { createNode, type SimulatedNode } from './node.ts';
import { DEFAULTS, type SimulationOptions } from './options.ts';
import { examine } from './oracle.ts';
import { createStore } from './store.ts';
import { createWorld, type Finding, type World } from './world.ts';

export interface SimulationResult {
  readonly seed: number;
  readonly problems: readonly Finding[];
  readonly events: number;
  readonly turns: number;
  readonly faults: number;
  readonly torn: number;
}

type Nodes = readonly SimulatedNode[];

export function simulate(
  seed: number,
  given: Partial<SimulationOptions> = {},
  trace?: (line: string) => void,
): SimulationResult {
  const options = { ...DEFAULTS, ...given };
  const world = createWorld(seed, trace);
  const store = createStore(world, options);
  const medium = createMedium(world, options);
  const effects = new Map<string, Set<number>>();
  const seen = { greeted: () => {} };
  const nodes: SimulatedNode[] = [];
  const isConnected = (name: string, boot: number): boolean =>
    nodes.some((node) => node.name === name && node.isConnected(boot));
  for (let n = 0; n < options.nodes; n += 1)
    nodes.push(createNode({ world, options, store, medium, effects, isConnected }, `n${n}`));
  const clients: SimulatedClient[] = [];
  for (let n = 0; n < options.clients; n += 1)
    clients.push(createClient(world, nodes, `s${n % options.sessions}`, `c${n}`, seen));

  for (const node of nodes) world.after(world.between(0, 50), () => node.start());
  for (const client of clients) world.after(world.between(100, 400), () => client.connect());
  chat(world, options, clients);
  act(world, options, nodes, store);
  const faults = trouble(world, options, { nodes, clients, store, medium });
  world.run(options.troubleMs + options.quietMs);
  examine({ world, options, store, nodes, clients, effects });
  const torn = nodes.reduce((sum, node) => sum + (node.boot()?.links.stats().torn ?? 0), 0);
  return {
    ...{ seed, problems: world.problems, events: world.events(), torn },
    ...{ turns: store.turns.size, faults: faults() },
  };
}

function chat(world: World, { troubleMs }: SimulationOptions, clients: readonly SimulatedClient[]): void {
  let tasks = 0;
  const next = (): void => {
    if (world.now() > troubleMs) return;
    tasks += 1;
    world.pick(clients)?.say(`k${tasks}`);
    world.after(world.between(20, 700), next);
  };
  world.after(500, next);
}

/** Actions off a queue: brought until they are answered, to whatever node takes them. */
function act(
  world: World,
  { troubleMs, sessions }: SimulationOptions,
  nodes: Nodes,
  store: ReturnType<typeof createStore>,
): void {
  let actions = 0;
  const next = (): void => {
    if (world.now() > troubleMs) return;
    actions += 1;
    const task = `a${actions}`;
    const session = `s${Math.floor(world.between(0, sessions))}`;
    const bring = (): void => {
      const row = store.turns.get(task);
      const isOver = row?.status === 'interrupted' && (row.hasEffects || !row.isUntold);
      if (row?.status === 'completed' || isOver) return;
      world.pick(nodes.filter((node) => node.isReady()))?.say(session, task, true, () => {});
      world.after(world.between(1_000, 4_000), bring);
    };
    bring();
    world.after(world.between(200, 1_500), next);
  };
  world.after(900, next);
}

interface Targets {
  readonly nodes: Nodes;
  readonly clients: readonly SimulatedClient[];
  readonly store: ReturnType<typeof createStore>;
  readonly medium: ReturnType<typeof createMedium>;
}

/** Returns how many faults there were. */
function trouble(world: World, { troubleMs }: SimulationOptions, targets: Targets): () => number {
  const { nodes, store, medium } = targets;
  let faults = 0;
  const next = (): void => {
    if (world.now() > troubleMs) return;
    faults += 1;
    const node = world.pick(nodes);
    if (node) fault(world, node, targets);
    world.after(world.between(300, 5_000), next);
  };
  world.after(1_500, next);
  world.after(troubleMs + 1, () => {
    for (const node of nodes) node.cut(0);
    store.setUp(true);
    medium.setUp(true);
  });
  world.after(troubleMs + 20_000, () => {
    for (const node of nodes) if (!node.isUp()) node.start();
  });
  return () => faults;
}

function fault(world: World, node: SimulatedNode, { clients, store, medium }: Targets): void {
  const kind = world.between(0, 1);
  if (kind < 0.2) {
    if (!node.isUp()) return;
    node.crash();
    world.after(world.between(50, 9_000), () => !node.isUp() && node.start());
  } else if (kind < 0.42) {
    if (!node.isUp() || node.isFrozen()) return;
    node.freeze(world.chance(0.5) ? world.between(100, 3_000) : world.between(4_000, 16_000));
  } else if (kind < 0.54) {
    world.note('the database is away');
    store.setUp(false);
    world.after(world.between(100, world.chance(0.3) ? 9_000 : 2_500), () => store.setUp(true));
  } else if (kind < 0.68) node.cut(world.between(200, 12_000));
  else if (kind < 0.8) {
    world.note('Redis is away');
    medium.setUp(false);
    world.after(world.between(50, 4_000), () => medium.setUp(true));
  } else if (kind < 0.9) {
    if (node.isReady()) node.drain();
  } else world.pick(clients)?.breakOff();
}
