/** Finds what Redis holds in a consumer's name and the consumer was never told of, since a connection broke under it. */
import { queueNameSchema } from '../../src/domain/queues.ts';
import type { Held } from './held.ts';
import type { Intake } from './intake.ts';
import { itemsOf, recoverScript } from './scripts.ts';
import type { Watch } from './watch.ts';

/** Ids set aside for what one list may hold: more than a few only when a server stood still for long. */
const SPARE_IDS = 1_000;

/** Tells Redis what it has missed, and starts what this process has missed, as far as there is room. */
export async function takeStock(consumer: {
  readonly watch: Watch;
  readonly taken: string;
  readonly held: Held;
  readonly intake: Intake;
  readonly nextId: (count: number) => number;
  readonly room: () => number;
}): Promise<void> {
  const { watch, taken, held, intake } = consumer;
  await held.flush();
  for (const { list, queue } of intake.leftBehind()) {
    const args = [consumer.nextId(SPARE_IDS), queue];
    const moved = itemsOf(await recoverScript(watch.taker, [taken, list], args));
    for (let at = 0; at < moved.length; at += 2) {
      const [id, body] = [String(moved[at]), moved[at + 1]];
      if (Buffer.isBuffer(body) && !held.moved(list, body, id))
        held.start({ id, queue, body, list: undefined });
    }
  }
  const ids = (await watch.taker.hkeys(taken)).filter((id) => /^\d+$/.test(id) && !held.knows(id));
  for (const id of ids.slice(0, Math.max(0, consumer.room()))) {
    const entry = await watch.taker.hgetBuffer(taken, id);
    const cut = entry?.indexOf('\n') ?? -1;
    if (!entry || cut < 0 || held.knows(id)) continue;
    const queue = queueNameSchema.safeParse(entry.toString('latin1', 0, cut)).data;
    if (queue) held.start({ id, queue, body: entry.subarray(cut + 1), list: undefined });
  }
}
