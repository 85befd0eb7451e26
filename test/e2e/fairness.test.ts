/** One tenant's flood does not keep another tenant from being answered; nothing of either is lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Chatter, isEnd, numbered } from '../support/chatter.ts';
import { startTestNode } from '../support/node.ts';

const PACED = {
  DEFAULT_PROVIDER: 'offline',
  DEFAULT_MODEL: 'offline-5x2',
  DEFAULT_TIER: 'enterprise',
  ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '0',
};

test('a quiet tenant is answered while another one floods a node that is full', async (t) => {
  const { chat, ask } = await startTestNode(t, { env: { ...PACED, NODE_MAX_EXECUTIONS: '4' } });
  const flooders: Chatter[] = [];
  for (let sessions = 0; sessions < 20; sessions += 1) flooders.push(await chat('flood', `s${sessions}`));
  const quiet = await chat('quiet', 's1');
  const flood = flooders.flatMap((client) =>
    Array.from({ length: 15 }, () => ({ client, task: client.say('More, more, more.') })),
  );
  const all = Promise.all(flood.map(({ client, task }) => client.ended(task)));
  await flooders[0]?.see('chat.delta');

  for (let turns = 0; turns < 5; turns += 1) {
    const frames = await quiet.turn('Me too, please.');
    assert.equal(frames.at(-1)?.type, 'chat.response');
  }
  const { body } = await ask('/health/detailed');
  assert.ok(body.stats.turns.enterprise.queued > 100, 'the flood was over before the quiet tenant was');

  for (const { type, data } of await all) assert.equal(type, 'chat.response', JSON.stringify(data));
  for (const client of flooders) assert.equal(numbered(client.frames).filter(isEnd).length, 15);
});

test('a tenant that floods beyond its tier is refused, and another tenant is not', async (t) => {
  const { chat } = await startTestNode(t, { env: { ...PACED, DEFAULT_TIER: 'free' } });
  const [flooder, quiet] = [await chat('flood', 's1'), await chat('quiet', 's1')];
  const tasks = Array.from({ length: 200 }, () => flooder.say('More.'));
  const frames = await quiet.turn('Me too, please.');
  assert.equal(frames.at(-1)?.type, 'chat.response');

  const codes = (await Promise.all(tasks.map(flooder.ended))).map(({ type, data }) => data.code ?? type);
  assert.equal(codes.filter((code) => code === 'chat.response').length, 10);
  assert.ok(codes.every((code) => ['chat.response', 'RATE_LIMITED', 'OVERLOADED'].includes(code)));
});
