/** What other nodes ask: answered out of what lives here, refused where it is no question, and nothing comes to life for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createQuestions } from '../../../actors/cluster/questions.ts';
import { sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../../src/domain/ids.ts';
import type { CancelReply, SayReply, TurnRequest } from '../../../src/domain/turn.ts';
import { storableRequest } from '../../../src/domain/turn-request.ts';
import type { LinkAnswer } from '../../../src/ports/links.ts';
import { quiet } from '../../support/quiet.ts';

const [tenantId, sessionId, taskId] = [
  tenantIdSchema.parse('acme'),
  sessionIdSchema.parse('s1'),
  taskIdSchema.parse('t1'),
];
const caller = { tenantId, tier: undefined, userId: undefined };
const request: TurnRequest = {
  ...{ caller, sessionId, taskId, taskIdGiven: false, agentId: undefined, message: 'Go.' },
  ...{ context: { a: 1 }, stream: true, onBusy: 'enqueue', requestId: undefined },
};
const watch = { caller, sessionId, clientId: 'c1', generation: 1, again: true, deltaWindowMs: 0 };

function scene(reply?: SayReply, lives = true) {
  const log: string[] = [];
  const cancelled: CancelReply = { ok: true, taskId, status: 'cancelled', abortMs: 1 };
  const onRequest = createQuestions({
    log: quiet,
    local: {
      has: () => lives,
      say(said, observer) {
        log.push(`say ${said.message} ${said.contextText} ${observer?.id ?? '-'}`);
        return reply && Promise.resolve(reply);
      },
      cancel: async () => cancelled,
      inquire: () => undefined,
      forget: () => Promise.reject(new Error('broken')),
    },
    guests: {
      attach: (_from, _body, answer) => answer({ type: 'notMine' }),
      watcher: (from, { clientId }) => ({
        id: `${from}/${clientId}`,
        deltaWindowMs: 0,
        send() {},
        close() {},
      }),
      detach: (from, _key, clientId) => void log.push(`detach ${from}/${clientId}`),
    },
  });
  const ask = (of: string, body: unknown): Promise<LinkAnswer | 'unknown'> =>
    new Promise((resolve) => {
      const crossed: unknown = JSON.parse(JSON.stringify(body));
      if (!onRequest(7, { kind: 'request', id: 1, of, body: crossed }, resolve)) resolve('unknown');
    });
  return { ask, log };
}

const accepted: SayReply = { ok: true, taskId, accepted: { status: 'processing', position: 0 } };
const said = { request: storableRequest(request), watch };

test('a turn is said with its observer, and the answer is the reply', async () => {
  const { ask, log } = scene(accepted);
  assert.deepEqual(await ask('say', said), { type: 'ok', value: accepted });
  assert.deepEqual(log, ['say Go. {"a":1} 7/c1']);
});

test('an observer of a turn that was not taken, or was said before, is let go', async () => {
  const again: SayReply = {
    ok: true,
    taskId,
    accepted: { status: 'completed', position: 0, deduplicated: true },
  };
  for (const reply of [again, undefined]) {
    const { ask, log } = scene(reply);
    const answer = await ask('say', said);
    assert.deepEqual(answer, reply ? { type: 'ok', value: reply } : { type: 'notMine' });
    assert.equal(log[1], 'detach 7/c1');
  }
});

test('what does not live here is not made here', async () => {
  const { ask, log } = scene(accepted, false);
  assert.deepEqual(await ask('say', said), { type: 'notMine' });
  assert.deepEqual(await ask('forget', { tenantId, sessionId }), { type: 'notMine' });
  assert.deepEqual(await ask('inquire', { tenantId, taskId }), { type: 'notMine' });
  assert.deepEqual(log, []);
});

test('no question of any other shape reaches a session', async () => {
  const { ask, log } = scene(accepted);
  const other = { ...watch, caller: { ...caller, tenantId: 'globex' } };
  const bodies = [null, 1, {}, { request: {} }, { ...said, watch: {} }, { ...said, watch: other }];
  for (const body of bodies) {
    const answer = await ask('say', body);
    assert.ok(typeof answer === 'object' && answer.type === 'refused', JSON.stringify(body));
    assert.equal(answer.error.code, 'INVALID_REQUEST');
  }
  for (const of of ['cancel', 'inquire', 'forget']) {
    const answer = await ask(of, { tenantId: '', taskId: 5 });
    assert.ok(typeof answer === 'object' && answer.type === 'refused', of);
  }
  assert.equal(await ask('dance', {}), 'unknown');
  assert.deepEqual(log, []);
});

test('what breaks is a refusal', async () => {
  const { ask } = scene(accepted);
  const answer = await ask('forget', { tenantId, sessionId });
  assert.ok(typeof answer === 'object' && answer.type === 'refused');
  assert.equal(answer.error.code, 'INTERNAL');
});
