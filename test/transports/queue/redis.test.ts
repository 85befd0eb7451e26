/** The transport over Redis keeps the contract of transports, on a real server. */
import { after } from 'node:test';
import { openRedisTransport } from '../../../transports/queue/redis/transport.ts';
import { quiet } from '../../support/quiet.ts';
import { startRedis } from '../../support/redis.ts';
import { transportContract } from './contract.ts';

const server = await startRedis();
after(() => server.stop());

transportContract('redis', async (t, meter) => {
  await server.client.flushall();
  const transport = await openRedisTransport({ url: server.url, nodeId: 'test', log: quiet, meter });
  t.after(() => transport.close());
  return {
    transport,
    meter,
    push: async (name, body) => void (await server.client.lpush(name, Buffer.from(body))),
  };
});
