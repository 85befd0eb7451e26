/** A service beside the node, as a Python one would be: it writes DomainActions to Redis lists and reads the replies. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { TestContext } from 'node:test';
import { pack, unpack } from 'msgpackr';
import { type Scene, type SceneOptions, startScene } from './node.ts';
import { type RedisServer, type RedisServerOptions, redisClient } from './redis.ts';
import { beforeRedisStops, redisFor } from './redis-node.ts';

/** Seconds that a reply may take; a test that waits longer has failed. */
const REPLY_S = 20;

export type Fields = Readonly<Record<string, unknown>>;

/** A reply as it came off its list. */
export interface Reply {
  readonly encoding: 'json' | 'msgpack';
  readonly action_id: string;
  readonly action_type: string;
  readonly task_id?: string;
  readonly correlation_id?: string;
  readonly [field: string]: unknown;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into data of every shape
  readonly data: any;
}

export interface ActionClient {
  readonly redis: RedisServer;
  /** LPUSH of bodies as they are, in one command. */
  push(queue: string, ...bodies: readonly (string | Uint8Array)[]): Promise<void>;
  /** Waits for the next reply on a list and takes it. Waits of one client go one after the other. */
  reply(list: string, seconds?: number): Promise<Reply>;
  /** That many replies of a list, in the order in which they came. */
  replies(list: string, count: number): Promise<readonly Reply[]>;
  /** Sends an action that is answered on a list of its own, and waits for the answer. */
  ask(type: string, data: Fields, more?: Fields): Promise<Reply>;
}

export const workOf = (tier: string, priority = 'default'): string => `execution_service:${tier}:${priority}`;
export const WORK = workOf('professional');

/** A list for one reply, as services name it. */
export const ownList = (type = 'execution.agent_run'): string => `tests:responses:${type}:${randomUUID()}`;

/** A Redis for one test and a client of it. Both go when all else of the test is closed, and leaks are looked for. */
export async function actionClient(t: TestContext, options: RedisServerOptions = {}): Promise<ActionClient> {
  const redis = await redisFor(t, options);
  // What blocks has a connection of its own.
  const reader = redisClient(redis.port);
  beforeRedisStops(t, () => reader.disconnect());
  await reader.connect();

  const client: ActionClient = {
    redis,
    async push(queue, ...bodies) {
      await redis.client.lpush(
        queue,
        ...bodies.map((body) => (typeof body === 'string' ? body : Buffer.from(body))),
      );
    },
    async reply(list, seconds = REPLY_S) {
      const found = await reader.brpopBuffer(list, seconds);
      assert.ok(found, `nothing came to ${list}`);
      return read(found[1]);
    },
    async replies(list, count) {
      const all: Reply[] = [];
      while (all.length < count) all.push(await client.reply(list));
      return all;
    },
    async ask(type, data, more = {}) {
      const list = ownList(type);
      await client.push(WORK, pydantic2(action(type, data, { callback_queue: list, ...more })));
      return client.reply(list);
    },
  };
  return client;
}

/** A node whose model is the stub, and a client of the Redis whose actions it works on. */
export async function actionScene(
  t: TestContext,
  { redis, env, ...more }: SceneOptions & { readonly redis?: RedisServerOptions } = {},
): Promise<Scene & { readonly client: ActionClient }> {
  const client = await actionClient(t, redis);
  const scene = await startScene(t, { ...more, env: { REDIS_URL: client.redis.url, ...env } });
  return { ...scene, client };
}

/** The first byte of a msgpack map is none of JSON's. */
const read = (body: Buffer): Reply =>
  body[0] === 0x7b
    ? { encoding: 'json', ...JSON.parse(body.toString('utf8')) }
    : { encoding: 'msgpack', ...unpack(body) };

// --- Actions and their spellings ---

/** An action as a current service writes it. */
export const action = (type: string, data: Fields, more: Fields = {}): Fields => ({
  action_id: randomUUID(),
  action_type: type,
  task_id: randomUUID(),
  tenant_id: 'acme',
  correlation_id: randomUUID(),
  data,
  metadata: {},
  timestamp: naiveTime(),
  ...more,
});

/** `datetime.utcnow().isoformat()`: microseconds, no zone. */
export const naiveTime = (): string => `${new Date().toISOString().slice(0, -1)}000`;

/** `model_dump_json()` of pydantic 2: nothing between, letters as they are. */
export const pydantic2 = (fields: Fields): string => JSON.stringify(fields);

/** `.json()` of pydantic 1: spaces after separators, everything beyond ASCII escaped. */
export const pydantic1 = (fields: Fields): string => spaced(fields).replace(/[\u0080-\uffff]/g, escaped);

const escaped = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;

function spaced(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spaced).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${spaced(each)}`);
  return `{${fields.join(', ')}}`;
}

/** As `msgpack.packb` writes a dict. */
export const packed = (fields: Fields): Uint8Array => pack(fields);
