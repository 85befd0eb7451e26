/**
 * kill -9 of a whole node in mid-stream, a hundred times, over and over on the same databases: what was acknowledged is
 * there, and clients hear of what was cut off. KILL_ROUNDS makes it more or fewer kills, KILL_SEED others.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { type Chatter, isEnd, types } from '../support/chatter.ts';
import { dice } from '../support/dice.ts';
import { leakFree } from '../support/leaks.ts';
import { type ChildNode, type Env, spawnNode } from '../support/node.ts';
import { temporary } from '../support/temporary.ts';
import type { Received } from '../support/websocket-client.ts';

const ROUNDS = Number(process.env.KILL_ROUNDS ?? 100);
/** Clusters, each with a database and nodes of its own, that live side by side: while one waits, another starts. */
const CLUSTERS = 4;
const SEED = Number(process.env.KILL_SEED ?? 20_260);
/** A machine that is busy with other tests takes 2 s of it for a start. */
const LIMIT_MS = 60_000 + ROUNDS * 4_000;
const SESSIONS = ['s0', 's1', 's2', 's3'];
/** A turn has about twelve frames: a kill after so many of a session's falls into, between and after its turns. */
const LATEST_KILL_FRAMES = 30;
/** So much later: between two frames, too. */
const BETWEEN_FRAMES_MS = 15;
/** One kill in four falls within this: before messages, or their acknowledgements, are through. */
const EARLY_KILL_MS = 12;
const PAGE = 100;

/** One message of a client's, and what it was told of it. */
interface Said {
  readonly taskId: string;
  readonly session: string;
  readonly text: string;
  readonly round: number;
  acknowledged: boolean;
  /** The frame that ended it, where that was seen before the kill. */
  end: Received | undefined;
  /** Told as interrupted after a restart. */
  told: boolean;
}

const turnSchema = z.object({
  status: z.string(),
  result: z.object({ content: z.string() }).optional(),
  error: z.object({ code: z.string() }).optional(),
});
type Turn = z.infer<typeof turnSchema>;

const messageSchema = z.object({ role: z.string(), content: z.string(), task_id: z.string() });
const pageSchema = z.object({ messages: z.array(messageSchema), has_more: z.boolean() });
type StoredMessage = z.infer<typeof messageSchema>;

async function turnOf(node: ChildNode, taskId: string): Promise<Turn | undefined> {
  const { status, body, text } = await node.ask(`/api/chat/tasks/${taskId}`);
  if (status === 404) return undefined;
  assert.equal(status, 200, text);
  return turnSchema.parse(body);
}

/** The whole conversation, page by page from its end. */
async function messagesOf(node: ChildNode, session: string): Promise<readonly StoredMessage[]> {
  const all: StoredMessage[] = [];
  for (let before = ''; ; before = `&before=${all[0]?.task_id}`) {
    const { status, body } = await node.ask(`/api/sessions/${session}/messages?limit=${PAGE}${before}`);
    if (status === 404) return [];
    const page = pageSchema.parse(body);
    all.unshift(...page.messages);
    if (!page.has_more) return all;
  }
}

/** Connects as a client that was there before the kill; resolves once the node has said all it has to say at first. */
async function comeBack(node: ChildNode, session: string, before: Chatter | undefined) {
  const epoch = before?.frames.find(({ type }) => type === 'session.ready')?.data.epoch;
  const lastSeq = before?.frames.findLast(({ seq }) => seq !== undefined)?.seq ?? 0;
  const query = before ? { last_seq: String(lastSeq), epoch: String(epoch) } : {};
  const client = await node.chat('acme', session, { query });
  client.send({ type: 'ping' });
  await client.see('pong');
  return client;
}

/** What is sent to a client between `session.ready` and the answer to its first ping. */
const greeting = ({ frames }: Chatter) =>
  frames.slice(
    0,
    frames.findIndex(({ type }) => type === 'pong'),
  );

/** Everything said in a session so far is in its conversation, in order; the last round's turns have all ended. */
async function checkStored(
  node: ChildNode,
  session: string,
  all: readonly Said[],
  round: number,
): Promise<void> {
  const messages = await messagesOf(node, session);
  const asked = new Map(
    messages.filter(({ role }) => role === 'user').map((message) => [message.task_id, message]),
  );
  for (const { taskId, text, acknowledged } of all)
    if (acknowledged || asked.has(taskId)) assert.equal(asked.get(taskId)?.content, text);
  const recent = all.filter((said) => said.round === round - 1);
  for (const said of recent) {
    const turn = await turnOf(node, said.taskId);
    assert.equal(turn !== undefined, asked.has(said.taskId));
    if (!turn) continue;
    if (turn.status === 'completed') {
      const answer = messages.find(({ role, task_id }) => role === 'assistant' && task_id === said.taskId);
      assert.equal(answer?.content, turn.result?.content);
      assert.ok(!said.end || said.end.data.content === answer?.content, 'another answer is stored');
    } else {
      assert.deepEqual([turn.status, turn.error?.code], ['failed', 'INTERRUPTED']);
      assert.equal(said.end, undefined, `the end of ${said.text} was seen, and is not stored`);
      assert.ok(said.told, `nobody was told that ${said.text} was interrupted`);
    }
  }
}

/** What the client is told after the restart: each interrupted turn once, and nothing else. */
function checkTold(client: Chatter, all: readonly Said[], lost: boolean): void {
  const [ready, snapshot, ...told] = greeting(client);
  assert.equal(ready?.data.recovered, false);
  assert.equal(snapshot?.type, 'session.snapshot');
  for (const { type, task_id, data } of told) {
    assert.deepEqual([type, data.code], ['error', 'INTERRUPTED']);
    const said = all.find(({ taskId }) => taskId === task_id);
    assert.ok(said, `${task_id} is none of this session's`);
    assert.ok(!said.told || lost, `${said.text} was told as interrupted twice`);
    assert.equal(said.end, undefined, `${said.text} had ended`);
    said.told = true;
  }
}

/** Says it over the socket or HTTP, and writes down what the node says to that. Never rejects: the node dies meanwhile. */
async function say(node: ChildNode, client: Chatter, said: Said, overHttp: boolean): Promise<void> {
  if (!overHttp) {
    client.say(said.text, { task_id: said.taskId });
    return;
  }
  const body = { message: said.text, session_id: said.session, task_id: said.taskId };
  const response = await node.fetch('/api/chat/send', { body }).catch(() => undefined);
  if (response?.status === 202) said.acknowledged = true;
}

/**
 * Resolves at a random moment: shortly, or once a session's client has seen so many frames, however slow the machine
 * is. At the latest when all that was said there has ended.
 */
async function killTime(
  clients: ReadonlyMap<string, Chatter>,
  recent: readonly Said[],
  roll: (sides: number) => number,
): Promise<void> {
  const early = roll(4) === 0;
  const session = SESSIONS[roll(SESSIONS.length)] ?? '';
  const count = 1 + roll(LATEST_KILL_FRAMES);
  const lateMs = roll(BETWEEN_FRAMES_MS);
  const client = clients.get(session);
  if (!client || early) return delay(roll(EARLY_KILL_MS));
  const frames = client.frames.length + count;
  const ends = recent.filter((said) => said.session === session).map(({ taskId }) => client.ended(taskId));
  const seen = client.see(() => client.frames.length >= frames);
  await Promise.race([seen, Promise.all(ends)]);
  // What does not come any more is cut off by the kill.
  Promise.allSettled([seen, ...ends]);
  return delay(lateMs);
}

/** What a cluster has come to. */
interface Seen {
  said: number;
  acknowledged: number;
  ended: number;
  interrupted: number;
}

/** A place for compiled code: half of a node's start is compiling. Only a process that ends by itself leaves its own there. */
async function compiled(t: TestContext): Promise<Env> {
  const env = { NODE_COMPILE_CACHE: temporary(t).folder };
  const node = await spawnNode(t, env);
  assert.equal((await node.kill('SIGTERM')).code, 0);
  return env;
}

/** Lets nodes live and die on one database, `rounds` times; gives up between two rounds where another cluster has failed. */
async function cluster(
  t: TestContext,
  env: Env,
  rounds: number,
  seed: number,
  failed: AbortSignal,
): Promise<Seen> {
  const roll = dice(seed);
  const all: Said[] = [];
  const clients = new Map<string, Chatter>();
  let recent: readonly Said[] = [];
  /** True where a kill may have come before the note that a client was told had been written. */
  let lost = false;
  const seen: Seen = { said: 0, acknowledged: 0, ended: 0, interrupted: 0 };

  for (let round = 0; round <= rounds; round += 1) {
    failed.throwIfAborted();
    const node = await spawnNode(t, env);
    await Promise.all(
      SESSIONS.map(async (session) => {
        const own = all.filter((said) => said.session === session);
        const client = await comeBack(node, session, clients.get(session));
        clients.set(session, client);
        if (round === 0) return;
        checkTold(client, own, lost);
        const again = await comeBack(node, session, client);
        const greeted = types(greeting(again));
        assert.deepEqual(greeted, ['session.ready'], 'the same epoch has nothing more to tell');
        await again.close();
        await checkStored(node, session, own, round);
      }),
    );
    seen.interrupted += recent.filter(({ told }) => told).length;
    if (round === rounds) {
      await checkAll(node, all);
      await node.kill('SIGKILL');
      break;
    }

    recent = newRound(round, roll);
    all.push(...recent);
    const saying = recent.map((said) => {
      const client = clients.get(said.session);
      return client ? say(node, client, said, roll(3) === 0) : undefined;
    });
    await killTime(clients, recent, roll);
    await node.kill('SIGKILL');
    await Promise.all(saying);
    for (const client of clients.values()) await client.closed;

    for (const said of recent) {
      const frames = clients.get(said.session)?.of(said.taskId) ?? [];
      if (frames.length > 0) said.acknowledged = true;
      said.end = frames.find(isEnd);
    }
    lost = !recent.some(({ acknowledged }) => acknowledged);
    seen.said += recent.length;
    seen.acknowledged += recent.filter(({ acknowledged }) => acknowledged).length;
    seen.ended += recent.filter(({ end }) => end).length;
    for (const client of clients.values()) client.check();
  }
  return seen;
}

/** What is said in a round: one to three messages in each session. */
const newRound = (round: number, roll: (sides: number) => number): readonly Said[] =>
  SESSIONS.flatMap((session) =>
    Array.from({ length: 1 + roll(3) }, (_, count) => ({
      taskId: `${session}-${round}-${count}`,
      session,
      round,
      text: `Message ${count} of round ${round} in ${session}, ${roll(1_000_000)}.`,
      acknowledged: false,
      end: undefined,
      told: false,
    })),
  );

/** At the very end nothing acknowledged is missing, and every turn has ended, one way or the other. */
async function checkAll(node: ChildNode, all: readonly Said[]): Promise<void> {
  for (const said of all) {
    const turn = await turnOf(node, said.taskId);
    assert.ok(turn || !said.acknowledged, `${said.text} was acknowledged, and is gone`);
    if (turn) assert.equal(turn.status === 'completed', !said.told, said.text);
  }
}

test(`${ROUNDS} kills in mid-stream lose nothing that was acknowledged, and nobody is left waiting`, {
  timeout: LIMIT_MS,
}, async (t) => {
  leakFree(t);
  const cache = await compiled(t);
  const failure = new AbortController();
  const clusters = Array.from({ length: CLUSTERS }, async (_, index) => {
    const env = {
      ...cache,
      DATABASE_URL: temporary(t).database,
      DEFAULT_TIER: 'enterprise',
      DEFAULT_PROVIDER: 'offline',
      DEFAULT_MODEL: 'offline-25x4',
      ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '0',
      EXECUTION_LOG_LEVEL: 'info',
    };
    const rounds = Math.floor((ROUNDS + index) / CLUSTERS);
    try {
      return await cluster(t, env, rounds, SEED + index, failure.signal);
    } catch (error) {
      failure.abort(error);
      throw error;
    }
  });
  await Promise.allSettled(clusters);
  failure.signal.throwIfAborted();
  const seen = await Promise.all(clusters);
  const sum = (what: keyof Seen): number => seen.reduce((total, one) => total + one[what], 0);
  const [said, acknowledged, ended, interrupted] = [
    sum('said'),
    sum('acknowledged'),
    sum('ended'),
    sum('interrupted'),
  ];
  t.diagnostic(
    `seed ${SEED}: ${said} said, ${acknowledged} acknowledged, ${ended} ended, ${interrupted} interrupted`,
  );
  assert.ok(ended > 0 && interrupted > 0, 'the kills did not fall into streams');
});
