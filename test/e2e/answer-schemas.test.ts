/** Answers that are to match a JSON schema: which do, which do not, and schemas and answers that mean harm. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { last } from '../support/chatter.ts';
import { life, type Scene, startScene } from '../support/node.ts';
import { say } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';

const byName = (schema: object, name = 'answer') => ({ type: 'json_schema', json_schema: { name, schema } });
const PERSON = {
  type: 'object',
  properties: { age: { type: 'integer', minimum: 0 }, mail: { type: 'string', format: 'email' } },
  required: ['age'],
  additionalProperties: false,
};

/** Runs one execution whose answer is `answer`; resolves to its record. */
async function run(node: Scene, schema: object, answer: unknown, more: object = {}) {
  node.stub.next(say(typeof answer === 'string' ? answer : JSON.stringify(answer)));
  const body = { agent_id: 'default', input: 'Go.', wait: true, response_format: byName(schema), ...more };
  return (await node.ask('/api/executions', { body })).body;
}

/** How an answer fared: `fits`, or the place in the schema that it does not match. */
async function fate(node: Scene, schema: object, answer: unknown): Promise<string> {
  const { status, error } = await run(node, schema, answer);
  return status === 'completed' ? 'fits' : (error.details?.schema_path ?? error.message);
}

/** Runs one execution that is refused before a model is asked. */
async function refusal(node: Scene, schema: object) {
  const asked = node.stub.requests.length;
  const body = { agent_id: 'default', input: 'Go.', wait: true, response_format: byName(schema) };
  const { error } = (await node.ask('/api/executions', { body })).body;
  assert.equal(node.stub.requests.length, asked, 'no model is asked');
  return error;
}

test('an answer that does not match its schema is an error worth another try, with its text and its counts', async (t) => {
  const node = await startScene(t);
  const client = await node.chat('acme', 's1', { protocols: ['nooble.msgpack'] });
  node.stub.next(say('{"age":"CANARY"}', { usage: 20 }), say('{"age":7}'));
  const wrong = last(await client.turn('How old?', { response_format: byName(PERSON) }), 'error');
  assert.deepEqual([wrong.data.code, wrong.data.retryable], ['MODEL_ERROR', true]);
  assert.deepEqual(wrong.data.details, {
    field: 'response_format',
    schema_path: '#/properties/age/type',
  });
  assert.doesNotMatch(JSON.stringify(wrong), /CANARY/, 'an error quotes nothing');
  const record = (await node.ask(`/api/chat/tasks/${wrong.task_id}`)).body;
  assert.deepEqual([record.partial, record.execution_info.tokens_used], ['{"age":"CANARY"}', 20]);
  const right = last(await client.turn('And now?', { response_format: byName(PERSON) }), 'chat.response');
  assert.equal(right.data.content, '{"age":7}');
  const said = JSON.stringify((await node.stub.request(1)).body.messages);
  assert.doesNotMatch(said, /CANARY/, 'no model is given what was no answer');
  assert.match(said, /How old\?/, 'the question was not to blame');
  const plain = await node.chat('acme', 's1');
  assert.equal(last(await plain.turn('As text?'), 'chat.response').data.content, 'Hello there.');
});

test('answers are matched as the schema says, in both dialects', async (t) => {
  const node = await startScene(t);
  const cases: readonly [object, unknown, string][] = [
    [PERSON, { age: 7, mail: 'a@b.example' }, 'fits'],
    [PERSON, { age: -1 }, '#/properties/age/minimum'],
    [PERSON, { age: 7, mail: 'nobody' }, '#/properties/mail/format'],
    [PERSON, {}, '#/required'],
    [PERSON, { age: 7, secret: 1 }, '#/additionalProperties'],
    [PERSON, [7], '#/type'],
    [{ const: { a: 1 } }, { a: 1 }, 'fits'],
    [{ not: { type: 'string' } }, 'text', 'The answer is not the JSON that was asked for.'],
    [{ not: { type: 'string' } }, '"text"', '#/not'],
    [{ type: 'string', nullable: true }, 'null', 'fits'],
    [{ multipleOf: 0.1 }, 0.3, 'fits'],
    [
      { properties: { a: { type: 'string' } }, unevaluatedProperties: false },
      { b: 1 },
      '#/unevaluatedProperties',
    ],
    [{ prefixItems: [{ type: 'string' }], items: false }, ['a', 1], '#/items'],
    // Draft 7, which many generators still write.
    [
      { $schema: 'http://json-schema.org/draft-07/schema#', items: [{ type: 'string' }] },
      [1],
      '#/items/0/type',
    ],
    [{ definitions: { n: { type: 'number' } }, $ref: '#/definitions/n' }, '"1"', '#/definitions/n/type'],
    [{ $id: 'https://a.example/s', $defs: { n: { type: 'null' } }, $ref: '#/$defs/n' }, 1, '#/$defs/n/type'],
    // Two patterns in one schema are two.
    [{ properties: { a: { pattern: '^x' }, b: { pattern: '^y' } } }, { a: 'x', b: 'y' }, 'fits'],
    [{ properties: { a: { pattern: '^x' }, b: { pattern: '^y' } } }, { b: 'x' }, '#/properties/b/pattern'],
    [{ patternProperties: { '^x': { type: 'number' }, '^y': { type: 'string' } } }, { x: 1, y: '1' }, 'fits'],
    [{ patternProperties: { '^x': { type: 'number' } } }, { x: '1' }, '#/patternProperties/%5Ex/type'],
    // Words that no dialect has, and formats that nobody knows, say nothing.
    [{ type: 'number', format: 'furlongs', xUnit: 'm', discriminator: { propertyName: 'a' } }, 1, 'fits'],
    [{ $async: true, type: 'number' }, '"1"', '#/type'],
  ];
  for (const [schema, answer, expected] of cases)
    assert.equal(await fate(node, schema, answer), expected, JSON.stringify([schema, answer]));
});

test('what one schema names by $id is not to be found in another, whoever sent it', async (t) => {
  const node = await startScene(t);
  const named = {
    $id: 'https://a.example/outer',
    $defs: { n: { $id: 'https://a.example/n', type: 'null' } },
  };
  assert.equal(await fate(node, named, {}), 'fits');
  for (const $ref of ['https://a.example/n', 'https://a.example/outer']) {
    const error = await refusal(node, { $ref });
    assert.deepEqual(
      [error.code, error.details.field],
      ['INVALID_REQUEST', 'response_format.json_schema.schema'],
    );
  }
  assert.equal(
    await fate(node, { ...named, type: 'string' }, '"x"'),
    'fits',
    'the same $id may stand elsewhere',
  );
});

/** 2 to the 40 ways to look at one value. */
const BUSHY = Object.fromEntries(
  Array.from({ length: 40 }, (_, level) => {
    const next = { $ref: `#/$defs/d${level + 1}` };
    return [`d${level}`, { anyOf: [{ allOf: [next, { const: 1 }] }, { allOf: [next, { const: 2 }] }] }];
  }),
);
/** JSON text, under a keyword that no rule of the node counts. */
const nested = (depth: number): string =>
  `${'{"dependentSchemas":{"a":'.repeat(depth)}{}${'}}'.repeat(depth)}`;

test('schemas that no answer can be matched against are refused, of a turn and of an agent', async (t) => {
  const node = await startScene(t);
  for (const schema of [
    { $ref: 'http://127.0.0.1:9/never-fetched.json' },
    { $ref: '#/$defs/nowhere' },
    { $ref: '#' },
    { $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' },
    { pattern: '(' },
    { patternProperties: { '(?=a)': { type: 'string' } } },
    { minLength: -1 },
    { type: 'array', minItems: 'two' },
    { $defs: { ...BUSHY, d40: {} }, $ref: '#/$defs/d0' },
  ]) {
    const shown = JSON.stringify(schema).slice(0, 80);
    const error = await refusal(node, schema);
    assert.deepEqual([error.code, error.retryable], ['INVALID_REQUEST', false], shown);
    const body = { name: 'Schemer', response_format: byName(schema) };
    const dry = await node.ask('/api/agents/validate', { body });
    assert.deepEqual([dry.body.valid, dry.body.issues.length], [false, 1], shown);
    assert.match(dry.body.issues[0].field, /^response_format\.json_schema\.schema/);
    const made = await node.ask('/api/agents', { body });
    assert.deepEqual([made.status, made.body.error.code], [400, 'INVALID_REQUEST'], shown);
  }
  for (const depth of [10, 200, 20_000]) {
    const body = `{"name":"Deep","response_format":${JSON.stringify(byName({}, 'deep')).replace('{}', nested(depth))}}`;
    const headers = { 'content-type': 'application/json' };
    const made = await fetch(`${node.url}/api/agents`, {
      method: 'POST',
      headers: { ...headers, 'x-tenant-id': 'acme' },
      body,
    });
    assert.ok(
      depth === 10 ? made.status === 201 : [400, 413].includes(made.status),
      `${depth} levels: ${made.status}`,
    );
  }
  const { body: agent } = await node.ask('/api/agents', { body: { name: 'Plain' } });
  const path = `/api/agents/${agent.id}`;
  const patched = await node.ask(path, { method: 'PATCH', body: { response_format: byName({ $ref: '#' }) } });
  assert.deepEqual([patched.status, patched.body.error.code], [400, 'INVALID_REQUEST']);
  assert.equal(await fate(node, PERSON, { age: 7 }), 'fits', 'others are matched as before');
});

test('hostile patterns, lists and answers take no time on the loop, and others are matched meanwhile', async (t) => {
  const node = await startScene(t);
  const bad = `"${'a'.repeat(3_000)}!"`;
  assert.equal(await fate(node, { pattern: '^(a+)+$' }, bad), '#/pattern');
  assert.equal(await fate(node, { pattern: '^(a|a)*$' }, bad), '#/pattern');
  assert.equal(await fate(node, { pattern: '^(\\w+\\s?)*$' }, bad), '#/pattern');
  const many = Array.from({ length: 5_000 }, (_, at) => `word ${at}`);
  assert.equal(await fate(node, { enum: many }, '"word 4999"'), 'fits');
  assert.equal(await fate(node, { enum: many }, '"word 5000"'), '#/enum');
  const tree = { $defs: { n: { type: 'array', items: { $ref: '#/$defs/n' } } }, $ref: '#/$defs/n' };
  const deep = `${'['.repeat(60_000)}${']'.repeat(60_000)}`;
  const { error } = await run(node, tree, deep);
  assert.deepEqual(
    [error.code, error.retryable, error.message],
    ['MODEL_ERROR', true, 'The answer could not be matched against its schema in time.'],
  );
  assert.equal(await fate(node, tree, [[], [[]]]), 'fits');
});

test('a pattern that only a backtracking engine reads is not matched, and whoever stores it is told', async (t) => {
  const node = await startScene(t);
  // As zod writes it for an e-mail address.
  const mail = { type: 'string', pattern: '^(?!\\.)(?!.*\\.\\.)([a-z.]*)[a-z]@[a-z.]+$' };
  const format = byName({ type: 'object', properties: { mail } });
  const body = { name: 'Mailer', response_format: format };
  const isTold = ({ body: { warnings } }: Awaited<ReturnType<Scene['ask']>>): boolean =>
    warnings?.length === 1 && warnings[0].rule === 'unchecked_pattern' && warnings[0].message.includes('(?!');
  assert.ok(isTold(await node.ask('/api/agents/validate', { body })));
  const made = await node.ask('/api/agents', { body });
  assert.equal(made.status, 201);
  assert.ok(isTold(made));
  assert.equal(await fate(node, format.json_schema.schema, { mail: '..' }), 'fits');
  assert.equal(await fate(node, format.json_schema.schema, { mail: 1 }), '#/properties/mail/type');
});

test('an agent’s schema is matched on every turn, also after a restart', async (t) => {
  const env = { DATABASE_URL: `sqlite:${temporary(t).path('schemas.db')}` };
  let agent_id = '';
  const turns = async (node: Scene) => {
    const client = await node.chat('acme', 's1');
    node.stub.next(say('{"age":7}'), say('{"age":null}'), say('as text'));
    last(await client.turn('Right?', { agent_id }), 'chat.response');
    const { data } = last(await client.turn('Wrong?', { agent_id }), 'error');
    assert.equal(data.details.schema_path, '#/properties/age/type');
    last(await client.turn('Text?', { agent_id, response_format: { type: 'text' } }), 'chat.response');
  };
  await life(t, 'it is stored', { env }, async (node) => {
    const body = { name: 'Former', response_format: byName(PERSON) };
    agent_id = (await node.ask('/api/agents', { body })).body.id;
    await turns(node);
  });
  await life(t, 'another life', { env }, turns);
});
