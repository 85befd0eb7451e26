/** Times how long a session takes to wake up for a client that comes back: from the connect to what it had said. */
import { z } from 'zod';
import { quantiles, recording } from '../kit/numbers.ts';
import type { CommandOf, Reports } from './commands.ts';
import { openSession } from './session.ts';
import { KIND } from './socket.ts';

/** An epoch that no session has: the client is sent all messages instead of what it missed. */
const RESUME = '?last_seq=1&epoch=another-process';
const TIMEOUT_MS = 30_000;

const snapshotSchema = z.object({ data: z.object({ messages: z.array(z.unknown()) }) });

interface Activation {
  readonly readyMs: number;
  readonly snapshotMs: number;
  readonly bytes: number;
}

/** One connection after another, each to a session of its own, closed before the next. */
export async function activate(command: CommandOf<'activate'>): Promise<Reports['activate']> {
  const ready = recording();
  const snapshot = recording();
  let snapshotBytes = 0;
  for (let i = 0; i < command.warm + command.count; i++) {
    const path = `/ws/${command.tenant}/${command.prefix}${i}${RESUME}`;
    const activation = await activateOne(command.port, path, command.messages);
    if (i < command.warm) continue;
    ready.add(activation.readyMs);
    snapshot.add(activation.snapshotMs);
    snapshotBytes = activation.bytes;
  }
  return {
    readyMs: quantiles(ready.values()),
    snapshotMs: quantiles(snapshot.values()),
    snapshotBytes,
  };
}

/** Rejects where the snapshot does not hold that many messages. They are counted after the clock was read. */
function activateOne(port: number, path: string, messages: number): Promise<Activation> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${path}: no snapshot`)), TIMEOUT_MS);
    const connectMs = performance.now();
    let readyMs = Number.NaN;
    let activation: Activation | undefined;
    const opened = openSession('json', port, path, {
      frame(kind, bytes, start, end) {
        if (kind === KIND.ready) readyMs = performance.now() - connectMs;
        if (kind === KIND.error) reject(new Error(bytes.toString('utf8', start, end)));
        if (kind !== KIND.snapshot) return;
        activation = { readyMs, snapshotMs: performance.now() - connectMs, bytes: end - start };
        const held = snapshotSchema.parse(JSON.parse(bytes.toString('utf8', start, end))).data.messages
          .length;
        if (held !== messages) reject(new Error(`${path}: ${held} messages and not ${messages}`));
        opened.then((socket) => socket.close(), reject);
      },
      closed() {
        clearTimeout(timer);
        if (activation) resolve(activation);
        else reject(new Error(`${path}: closed before its snapshot`));
      },
    });
    opened.catch(reject);
  });
}
