/** The command line beside nodes: agents from files, a tenant carried to another database, and the doctor. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { nooble } from '../support/command-line.ts';
import { startScene } from '../support/node.ts';
import { say } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';

const AGENT = 'name: Guide\nslug: guide\nsystem_prompt: Say one.\ntools: [calculator]\n';

test('a tenant’s agents and conversations go to another database as they were', async (t) => {
  const place = temporary(t);
  const [from, to] = [place.database, `sqlite:${place.path('other.db')}`];
  const file = place.path('guide.yaml');
  const archive = place.path('acme.ndjson');
  const ids: { agent?: string; gone?: string; task?: string } = {};
  const answer = 'NUL \u0000, half \ud83c, lines \u2028 \n.';

  await t.test('agents are applied to a running node, twice, and a conversation is had', async (own) => {
    const { url, chat, ask, stub } = await startScene(own, { env: { DATABASE_URL: from } });
    const apply = async (text: string) => {
      writeFileSync(file, text);
      const env = { NOOBLE_URL: url, NOOBLE_TENANT: 'acme' };
      const { code, out, err } = await nooble(['agents', 'apply', '-f', file], env);
      assert.equal(code, 0, err);
      return out;
    };
    assert.match(await apply(AGENT), /created/);
    assert.match(await apply(AGENT), /unchanged/);
    assert.match(await apply(AGENT.replace('one', 'two')), /changed to version 2/);
    const { body: list } = await ask('/api/agents');
    ids.agent = list.items[0].id;
    const { body: history } = await ask(`/api/agents/${ids.agent}/history`);
    assert.equal(history.items[0].source, 'cli');

    const gone = await ask('/api/agents', { body: { name: 'Old guide' } });
    ids.gone = gone.body.id;
    await ask(`/api/agents/${ids.gone}`, { method: 'DELETE' });

    stub.next(say(answer, { chunks: 1 }));
    const client = await chat('acme', 's1', { query: { agent_id: String(ids.agent) } });
    ids.task = client.say('Guide me.');
    await client.ended(ids.task);
    const exported = await nooble(['export', '--tenant', 'acme', '-o', archive], { DATABASE_URL: from });
    assert.equal(exported.code, 0, exported.err);
    assert.match(exported.err, /2 agents \(1 of them deleted\) and 1 turns/);
  });

  const imported = await nooble(['import', '-f', archive], { DATABASE_URL: to });
  assert.equal(imported.code, 0, imported.err);
  const again = await nooble(['import', '-f', archive], { DATABASE_URL: to });
  assert.match(again.err, /0 agents and 0 turns; 2 agents and 1 turns were there already/);

  await t.test('a node on the other database goes on with them', async (own) => {
    const { ask, chat, stub } = await startScene(own, { env: { DATABASE_URL: to } });
    const { body: page } = await ask('/api/sessions/s1/messages');
    const told = page.messages.map(({ content }: { content: string }) => content);
    assert.deepEqual(told, ['Guide me.', answer.toWellFormed()]);
    assert.equal((await ask(`/api/chat/tasks/${ids.task}`)).body.agent_version, 2);
    assert.equal((await ask(`/api/agents/${ids.agent}/versions/1`)).body.system_prompt, 'Say one.');
    assert.equal((await ask('/api/agents')).body.total, 1);
    const restored = await ask(`/api/agents/${ids.gone}/restore`, { method: 'POST' });
    assert.deepEqual([restored.status, restored.body.name], [200, 'Old guide']);
    const client = await chat('acme', 's1', { query: { agent_id: String(ids.agent) } });
    const started = (await client.turn('And on.')).find(({ type }) => type === 'execution.started');
    assert.equal(started?.data.agent_version, 2);
    assert.equal((await stub.request(0)).body.messages.length, 4);
  });
});

test('the doctor says what is well, and what to do about what is not', async (t) => {
  const place = temporary(t);
  const well = await nooble(['doctor'], { DATABASE_URL: place.database, PORT: '0' });
  assert.equal(well.code, 0, well.out);
  assert.match(well.out, /^ok +settings/m);
  assert.match(well.out, /^ok +store/m);
  const folder = place.path('guide.txt');
  writeFileSync(folder, 'no database at all, but a text that is long enough to be read as one');
  const ill = await nooble(['doctor'], { DATABASE_URL: `sqlite:${folder}`, PORT: '0' });
  assert.equal(ill.code, 1, ill.out);
  assert.match(ill.out, /^fail +store.*DATABASE_URL/m);
  const wrong = await nooble(['doctor'], { PORT: 'eighty', DEFAULT_TIER: 'gold' });
  assert.equal(wrong.code, 1);
  assert.match(wrong.out, /PORT[\s\S]*DEFAULT_TIER|DEFAULT_TIER[\s\S]*PORT/);
});
