/**
 * kill -9 of a whole node in mid-stream, over and over on one database: what was acknowledged is there, and clients hear
 * of what was cut off. 25 kills by default, to keep the suite quick; KILL_ROUNDS=100 makes it a hundred, KILL_SEED
 * another hundred.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { type Chatter, chatter, isEnd, types } from '../support/chatter.ts';
import { type ChildNode, spawnNode } from '../support/child-node.ts';
import { dice } from '../support/dice.ts';
import { leakFree } from '../support/leaks.ts';
import { temporary } from '../support/temporary.ts';
import { connect, type Received } from '../support/websocket-client.ts';

const ROUNDS = Number(process.env.KILL_ROUNDS ?? 25);
const SEED = Number(process.env.KILL_SEED ?? 20_260);
/** A machine that is busy with other tests takes 2 s for a round. */
const LIMIT_MS = 60_000 + ROUNDS * 4_000;
const SESSIONS = ['s0', 's1', 's2', 's3'];
/** Two turns of a session take about twice 100 ms: a kill within this falls before, into, between and after them. */
const LATEST_KILL_MS = 300;
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

const HEADERS = { 'x-tenant-id': 'acme', 'content-type': 'application/json' };

async function turnOf(node: ChildNode, taskId: string): Promise<Turn | undefined> {
  const response = await fetch(`${node.url}/api/chat/tasks/${taskId}`, { headers: HEADERS });
  const body = await response.json();
  if (response.status === 404) return undefined;
  assert.equal(response.status, 200, JSON.stringify(body));
  return turnSchema.parse(body);
}

/** The whole conversation, page by page from its end. */
async function messagesOf(node: ChildNode, session: string): Promise<readonly StoredMessage[]> {
  const all: StoredMessage[] = [];
  for (let before = ''; ; before = `&before=${all[0]?.task_id}`) {
    const url = `${node.url}/api/sessions/${session}/messages?limit=${PAGE}${before}`;
    const response = await fetch(url, { headers: HEADERS });
    if (response.status === 404) return [];
    const page = pageSchema.parse(await response.json());
    all.unshift(...page.messages);
    if (!page.has_more) return all;
  }
}

/** Connects as a client that was there before the kill; resolves once the node has said all it has to say at first. */
async function comeBack({ port }: ChildNode, session: string, before: Chatter | undefined) {
  const epoch = before?.frames.find(({ type }) => type === 'session.ready')?.data.epoch;
  const lastSeq = before?.frames.findLast(({ seq }) => seq !== undefined)?.seq ?? 0;
  const query = before ? `?last_seq=${lastSeq}&epoch=${epoch}` : '';
  const client = chatter(await connect(`ws://127.0.0.1:${port}/ws/acme/${session}${query}`));
  await client.see('session.ready');
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
  const body = JSON.stringify({ message: said.text, session_id: said.session, task_id: said.taskId });
  const response = await fetch(`${node.url}/api/chat/send`, { method: 'POST', headers: HEADERS, body }).catch(
    () => undefined,
  );
  if (response?.status === 202) said.acknowledged = true;
}

test(`${ROUNDS} kills in mid-stream lose nothing that was acknowledged, and nobody is left waiting`, {
  timeout: LIMIT_MS,
}, async (t) => {
  leakFree(t);
  const roll = dice(SEED);
  const env = {
    DATABASE_URL: temporary(t).database,
    DEFAULT_TIER: 'enterprise',
    DEFAULT_PROVIDER: 'offline',
    DEFAULT_MODEL: 'offline-25x4',
    ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '0',
    EXECUTION_LOG_LEVEL: 'info',
  };
  const all: Said[] = [];
  const clients = new Map<string, Chatter>();
  let recent: Said[] = [];
  /** True where a kill may have come before the note that a client was told had been written. */
  let lost = false;
  const seen = { acknowledged: 0, ended: 0, interrupted: 0, told: 0 };

  for (let round = 0; round <= ROUNDS; round += 1) {
    const node = await spawnNode(t, env);
    const before = round > 0;
    await Promise.all(
      SESSIONS.map(async (session) => {
        const own = all.filter((said) => said.session === session);
        const client = await comeBack(node, session, clients.get(session));
        clients.set(session, client);
        if (!before) return;
        checkTold(client, own, lost);
        const again = await comeBack(node, session, client);
        assert.deepEqual(
          types(greeting(again)),
          ['session.ready'],
          'the same epoch has nothing more to tell',
        );
        await again.close();
        await checkStored(node, session, own, round);
      }),
    );
    seen.interrupted += recent.filter(({ told }) => told).length;
    const last = round === ROUNDS;

    recent = last
      ? []
      : SESSIONS.flatMap((session) =>
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
    all.push(...recent);
    const saying = recent.map((said) => {
      const client = clients.get(said.session);
      return client ? say(node, client, said, roll(3) === 0) : undefined;
    });
    await delay(roll(roll(4) === 0 ? EARLY_KILL_MS : LATEST_KILL_MS));
    node.kill('SIGKILL');
    await node.exit;
    await Promise.all(saying);
    for (const client of clients.values()) await client.closed;

    for (const said of recent) {
      const frames = clients.get(said.session)?.of(said.taskId) ?? [];
      if (frames.length > 0) said.acknowledged = true;
      said.end = frames.find(isEnd);
    }
    lost = !recent.some(({ acknowledged }) => acknowledged);
    seen.acknowledged += recent.filter(({ acknowledged }) => acknowledged).length;
    seen.ended += recent.filter(({ end }) => end).length;
    for (const client of clients.values()) client.check();
  }

  const node = await spawnNode(t, env);
  for (const said of all) {
    const turn = await turnOf(node, said.taskId);
    assert.ok(turn || !said.acknowledged, `${said.text} was acknowledged, and is gone`);
    if (turn) assert.equal(turn.status === 'completed', !said.told, said.text);
  }
  node.kill('SIGKILL');
  await node.exit;
  const { acknowledged, ended, interrupted } = seen;
  t.diagnostic(
    `seed ${SEED}: ${all.length} said, ${acknowledged} acknowledged, ${ended} ended, ${interrupted} interrupted`,
  );
  assert.ok(ended > 0 && interrupted > 0, 'the kills did not fall into streams');
});
