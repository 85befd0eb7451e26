/** A simulated node: a process with one boot after the other, which freezes, crashes, is cut off, drains and comes back. */
import type { Client, ResumePoint } from '../../src/ports/sessions.ts';
import { type BootDeps, createBoot, type SimulatedBoot } from './boot.ts';
import { createProcess } from './process.ts';
import type { Said } from './sessions.ts';

export interface SimulatedNode {
  readonly name: string;
  boot(): SimulatedBoot | undefined;
  isUp(): boolean;
  isFrozen(): boolean;
  isReady(): boolean;
  /** Whether the server sees the connection of that boot. */
  isConnected(boot: number): boolean;
  start(): void;
  crash(): void;
  freeze(ms: number): void;
  /** The database and it do not hear one another for so long. */
  cut(ms: number): void;
  drain(): void;
  attach(session: string, client: Client, resume: ResumePoint | undefined): void;
  detach(session: string, clientId: string): void;
  say(session: string, task: string, again: boolean, done: (said: Said) => void): void;
}

const REGISTER_AGAIN_MS = 200;
const DRAIN_LOOK_MS = 100;
const DRAIN_MS = 20_000;

export function createNode(
  given: Pick<BootDeps, 'world' | 'options' | 'store' | 'medium' | 'effects' | 'isConnected'>,
  name: string,
): SimulatedNode {
  const { world, options, store } = given;
  const process = createProcess(world);
  const clients = new Map<string, Client>();
  let boot: SimulatedBoot | undefined;
  let cutUntilMs = 0;

  function register(): void {
    boot = undefined;
    const life = process.life();
    const storeClient = {
      isCut: () => cutUntilMs > world.now(),
      resume: (act: () => void) => process.run(life, act),
    };
    const mint = (): number => {
      const number = store.boots.size + 1;
      store.boots.set(number, { state: 'live', beat: 0, nodeId: name });
      return number;
    };
    store.submit(storeClient, { hold: 'free', check: () => null, apply: mint }, (outcome) => {
      if (!outcome.ok) return process.after(REGISTER_AGAIN_MS, register);
      const number = outcome.value;
      world.note(name, 'is boot', number);
      boot = createBoot({
        ...{ ...given, process, storeClient, nodeId: name, boot: number },
        onSuperseded: superseded,
        onJoined: () => world.note(name, 'has joined'),
      });
    });
  }

  /** The cluster went on without it: it goes on as somebody new. What it did before may still come to the store. */
  function superseded(): void {
    const old = boot;
    if (!old) return;
    world.note(name, 'is superseded, boot', old.boot);
    old.sessions.abort();
    closeClients();
    process.beginAnew();
    register();
    if (!options.zombies) return;
    for (const session of old.sessions.all())
      for (const turn of session.turns.values())
        world.after(world.between(50, 4_000), () => {
          if (process.isUp() && boot) late(old.boot, session.name, session.epoch, turn.task);
        });
  }

  /** A promise of an earlier boot writes what it has, through the line of this one. */
  function late(of: number, session: string, epoch: number, task: string): void {
    const row = store.turns.get(task);
    if (!boot || !row || row.status || (options.turnEpoch && (row.epoch !== epoch || row.boot !== of)))
      return;
    store.wrote(session, epoch, 'ended late', task);
    store.end(row, 'completed');
  }

  function closeClients(): void {
    const all = [...clients.values()];
    clients.clear();
    for (const client of all) client.close({ code: 1012, reason: 'restart, reconnect' });
  }

  function crash(): void {
    world.note(name, 'crashes');
    process.crash();
    boot = undefined;
    closeClients();
  }

  function leave(number: number): void {
    closeClients();
    const storeClient = { isCut: () => false, resume: (act: () => void) => process.run(process.life(), act) };
    const apply = (): void => store.burial(number);
    store.submit(storeClient, { hold: { boot: number, mode: 'bury' }, check: () => null, apply }, () => {
      crash();
      world.after(world.between(200, 1_500), () => {
        if (!process.isUp()) start();
      });
    });
  }

  function start(): void {
    process.start();
    register();
  }

  const inProcess = (act: (living: SimulatedBoot) => void): void =>
    process.run(process.life(), () => {
      if (boot) act(boot);
    });

  return {
    ...{ name, start, crash },
    boot: () => boot,
    isUp: process.isUp,
    isFrozen: process.isFrozen,
    isReady: () => process.isUp() && boot?.isReady() === true,
    isConnected: (number) => process.isUp() && boot?.boot === number,
    freeze(ms) {
      world.note(name, 'freezes for', Math.round(ms));
      process.freeze(ms);
    },
    cut(ms) {
      world.note(name, 'is cut off for', Math.round(ms));
      cutUntilMs = world.now() + ms;
    },
    drain() {
      const leaving = boot;
      if (!leaving) return;
      world.note(name, 'drains');
      const untilMs = world.now() + DRAIN_MS;
      const look = (): void => {
        leaving.drain();
        const isOver = leaving.sessions.all().length === 0 || world.now() > untilMs;
        if (isOver) leave(leaving.boot);
        else process.after(DRAIN_LOOK_MS, look);
      };
      look();
    },
    attach(session, client, resume) {
      clients.set(client.id, client);
      inProcess((living) => {
        if (clients.has(client.id)) living.attach(session, client, resume);
      });
    },
    detach(session, clientId) {
      clients.delete(clientId);
      inProcess((living) => living.detach(session, clientId));
    },
    say: (session, task, again, done) => inProcess((living) => living.say(session, task, again, done)),
  };
}
