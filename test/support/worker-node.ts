/**
 * A consumer in a process of its own, to be killed in mid work: takes from one queue and says the number of each action
 * that it begins. Without a time (ms) for one action it never finishes any.
 */
import { writeSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { tierSubscription } from '../../src/domain/queues.ts';
import { openRedisTransport } from '../../transports/queue/redis/transport.ts';
import { quiet } from './quiet.ts';
import { counting, queue } from './transport.ts';

const [url = '', name = '', credits = '1', workMs] = process.argv.slice(2);
// At once: what is said must be out when the process dies.
const say = (text: string): void => void writeSync(1, `${text}\n`);
const lease = { ttlMs: 400, renewMs: 100 };
const transport = await openRedisTransport({ url, nodeId: 'victim', log: quiet, meter: counting(), lease });
await transport.consume(
  [tierSubscription(queue(name), 'free')],
  async ({ action }) => {
    say(String(action.data.n));
    await (workMs === undefined ? new Promise(() => {}) : wait(Number(workMs)));
  },
  { credits: Number(credits) },
);
say('taking');
