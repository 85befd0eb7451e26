/** A TCP proxy that stands between a client and a server, and misbehaves as it is told to. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { listen } from './processes.ts';

export interface TcpProxy {
  readonly port: number;
  /** Connections that are open now. */
  readonly connections: () => number;
  /** Holds everything back that long, both ways; 0 ends it. */
  delay(ms: number): void;
  /** Takes bytes and passes nothing on, on all connections present and future, until `heal`. */
  swallow(): void;
  /** Passes on what clients say, and nothing of what is answered, until `heal`. */
  mute(): void;
  /** Passes transactions that write on to PostgreSQL, and cuts their connections in place of the answer to `commit`; until `heal`. */
  loseCommits(): void;
  /** How many answers were lost that way. */
  readonly lost: () => number;
  /** Cuts what is connected; new connections work. */
  cut(): void;
  /** Cuts, and refuses new connections until `heal`. */
  refuse(): void;
  /** What was swallowed stays lost: the connections it was lost on are cut. */
  heal(): void;
  /** New connections lead to this port. */
  lead(port: number): void;
  close(): Promise<void>;
}

export async function startTcpProxy(targetPort: number): Promise<TcpProxy> {
  const pairs = new Set<readonly [Socket, Socket]>();
  const timers = new Set<NodeJS.Timeout>();
  let mode: 'pass' | 'swallow' | 'refuse' | 'mute' | 'loseCommits' = 'pass';
  let lost = 0;
  let delayMs = 0;
  let target = targetPort;

  const server = createServer((near) => {
    if (mode === 'refuse') {
      near.destroy();
      return;
    }
    const far = connect(target, '127.0.0.1');
    const pair = [near, far] as const;
    pairs.add(pair);
    let writes = false;
    let commits = false;
    for (const [from, to] of [pair, [far, near] as const]) {
      from.setNoDelay(true);
      from.on('data', (bytes: Buffer) => {
        if (mode === 'swallow' || (mode === 'mute' && from === far)) return;
        if (mode === 'loseCommits' && from === near) {
          const text = bytes.toString('latin1');
          writes ||= /insert into|delete from|update "/.test(text);
          if (text.includes('commit')) [commits, writes] = [writes, false];
        } else if (commits) {
          if (!bytes.includes('COMMIT')) return;
          lost += 1;
          near.destroy();
          far.destroy();
          return;
        }
        if (delayMs === 0) to.write(bytes);
        else {
          const timer = setTimeout(() => {
            timers.delete(timer);
            if (!to.destroyed) to.write(bytes);
          }, delayMs);
          timers.add(timer);
        }
      });
      from.on('error', () => {});
      from.on('close', () => {
        pairs.delete(pair);
        to.destroy();
      });
    }
  });
  const port = await listen(server);

  const cut = (): void => {
    for (const [near, far] of pairs) {
      near.destroy();
      far.destroy();
    }
  };
  return {
    port,
    connections: () => pairs.size,
    delay(ms) {
      delayMs = ms;
    },
    swallow() {
      mode = 'swallow';
    },
    mute() {
      mode = 'mute';
    },
    loseCommits() {
      mode = 'loseCommits';
    },
    lost: () => lost,
    cut,
    refuse() {
      mode = 'refuse';
      cut();
    },
    heal() {
      if (mode === 'swallow' || mode === 'mute') cut();
      mode = 'pass';
    },
    lead(other) {
      target = other;
    },
    async close() {
      for (const timer of timers) clearTimeout(timer);
      cut();
      const gone = once(server, 'close');
      server.close();
      await gone;
    },
  };
}
