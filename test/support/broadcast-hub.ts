/** Broadcasts of several nodes in one process: each hears what the others tell, as it would come off a wire. */
import { type BroadcastItem, broadcastItemSchema } from '../../src/domain/broadcast.ts';
import type { Broadcast } from '../../src/ports/broadcast.ts';

export function broadcastHub(count: number): readonly Broadcast[] {
  const listeners: ((item: BroadcastItem) => void)[][] = Array.from({ length: count }, () => []);
  return listeners.map((own) => ({
    tell(item) {
      const crossed = broadcastItemSchema.parse(JSON.parse(JSON.stringify(item)));
      for (const others of listeners) if (others !== own) for (const hear of others) hear(crossed);
    },
    listen: (listener) => void own.push(listener),
  }));
}
