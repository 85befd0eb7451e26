/** Ours: `request` of the Redis transport, and a consumer that sends the reply to the action's `callback_queue`. */
import { queueNameSchema, tierSubscription } from '../../src/domain/queues.ts';
import type { ActionFormat } from '../../src/ports/transport.ts';
import { quiet } from '../../test/support/quiet.ts';
import { openRedisTransport } from '../../transports/queue/redis/transport.ts';
import type { Exchange } from './contender.ts';
import { answerIn, question, replyTo } from './messages.ts';

/** Above what any load has in flight: credits are not what is measured. */
const CREDITS = 1_024;
const TIMEOUT_MS = 20_000;

const open = (url: string, nodeId: string) =>
  openRedisTransport({ url, nodeId, log: quiet, meter: { counted: () => {} } });

export const overTransport = (format: ActionFormat): Exchange => {
  const queue = queueNameSchema.parse(`bench_${format}_service:enterprise:default`);
  return {
    async asker(url) {
      const transport = await open(url, 'asker');
      const options = { timeoutMs: TIMEOUT_MS, format };
      return { ask: async () => answerIn(await transport.request(queue, question(), options)) };
    },
    async answerer(url) {
      const transport = await open(url, 'answerer');
      await transport.consume(
        [tierSubscription(queue, 'enterprise')],
        ({ action, format: asked }) =>
          transport.send(queueNameSchema.parse(action.callback_queue), replyTo(action), asked),
        { credits: CREDITS },
      );
    },
  };
};
