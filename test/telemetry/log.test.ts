/** What reaches the log, and above all what does not. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { z } from 'zod';
import { createLog, type NodeLog } from '../../src/telemetry/log.ts';
import { scrubFields } from '../../src/telemetry/redact.ts';

const lineSchema = z.record(z.string(), z.unknown());

/** A log that writes into a list of lines. */
function memoryLog(level: 'debug' | 'info' = 'debug'): {
  log: NodeLog;
  lines: () => z.infer<typeof lineSchema>[];
  raw: () => string;
} {
  const written: string[] = [];
  const log = createLog({ level, name: 'nooble', nodeId: 'n1' }, { write: (line) => written.push(line) });
  return {
    log,
    lines: () => written.map((line) => lineSchema.parse(JSON.parse(line))),
    raw: () => written.join(''),
  };
}

test('a line is JSON with its time, level, service, node, ids and text', () => {
  const { log, lines } = memoryLog();
  const ids = { tenant: 'acme', session: 's1', task: 't1', request: 'r1' };
  log.info({ ...ids, tokens: 12 }, 'turn ended');

  const [line] = lines();
  assert.match(String(line?.time), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.deepEqual(
    { ...line, time: undefined },
    {
      time: undefined,
      level: 'info',
      service: 'nooble',
      node: 'n1',
      ...{ tenant: 'acme', session: 's1', task: 't1', request: 'r1', tokens: 12 },
      msg: 'turn ended',
    },
  );
});

test('below the level nothing is written, and fields are not even looked at', () => {
  const { log, raw } = memoryLog('info');
  log.debug(
    {
      get costly(): string {
        throw new Error('was read');
      },
    },
    'not now',
  );

  assert.equal(raw(), '');
});

const SECRET_PLACES: readonly object[] = [
  { authorization: 'CANARY' },
  { Authorization: ['CANARY'] },
  { headers: { cookie: 'CANARY', 'x-api-key': 'CANARY', 'set-cookie': ['CANARY'] } },
  { apiKey: 'CANARY', api_key: 'CANARY', OPENAI_API_KEY: 'CANARY' },
  { token: 'CANARY', serviceToken: 'CANARY', deep: { deeper: { access_token: 'CANARY' } } },
  { password: 'CANARY', secret: { nested: 'CANARY' }, jwtSecret: 'CANARY', credentials: ['CANARY'] },
  { message: 'CANARY', content: 'CANARY', text: 'CANARY', prompt: 'CANARY', systemPrompt: 'CANARY' },
  { frame: { type: 'chat.send', message: 'CANARY', context: { secretPlan: 'CANARY', plan: 'CANARY' } } },
  { turns: [{ turn: { content: 'CANARY' } }, { history: [{ role: 'user', content: 'CANARY' }] }] },
  { tool: { name: 'calculator', args: { expression: 'CANARY' }, result: 'CANARY' } },
  { data: 'CANARY', delta: 'CANARY', body: 'CANARY', input: 'CANARY', output: 'CANARY', partial: 'CANARY' },
  { buffer: Buffer.from('CANARY'), map: new Map([['k', 'CANARY']]), set: new Set(['CANARY']) },
  { a: { b: { c: { d: { e: { f: { g: { h: 'CANARY' } } } } } } } },
];

test('secrets and conversations are taken out wherever they stand', () => {
  for (const fields of SECRET_PLACES) {
    const { log, raw } = memoryLog();
    log.error(fields, 'x');
    assert.equal(raw().includes('CANARY'), false, raw());
    assert.equal(raw().includes('Q0FOQVJZ'), false, 'not in base64 either');
  }
});

test('numbers and flags under such names stay, so that counts can be logged', () => {
  assert.deepEqual(
    scrubFields({ messages: 3, content: 0, token: true, time_to_first_token_ms: 4, tokens_used: 5 }),
    {
      ...{ messages: 3, content: 0, token: true, time_to_first_token_ms: 4, tokens_used: 5 },
    },
  );
  assert.deepEqual(scrubFields({ message: 'four' }), { message: '[4 units]' });
});

const JWT = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJDQU5BUlkifQ.c2lnbmF0dXJl';

test('keys and tokens inside strings are taken out, in fields, texts and error texts', () => {
  const leaks = [
    'Incorrect API key provided: sk-proj-abcdEFGH1234_-xyz.',
    'gsk_abcdefgh12345678',
    `GET /x Authorization: Bearer ${JWT}`,
    `subprotocol nooble, bearer.${JWT}`,
    JWT,
    'connect redis://user:hunter2secret@cache:6379 failed',
    'postgres://:hunter2secret@db/nooble',
    'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
  ];
  for (const leak of leaks) {
    const { log, raw } = memoryLog();
    log.warn({ reason: leak, list: [leak] }, leak);
    log.error({ err: new Error(leak, { cause: new Error(leak) }) }, 'failed');
    assert.doesNotMatch(raw(), /abcdEFGH|abcdefgh1234|eyJ|c2lnbmF0|hunter2|MfKQ9/, raw());
  }
});

test('ordinary words that look a little like keys stay', () => {
  for (const text of [
    'task-12345678',
    'a bearer token is needed',
    'disk-failure-imminent',
    'redis://cache:6379',
  ])
    assert.deepEqual(scrubFields({ reason: text }), { reason: text });
});

test('an error is logged with type, code, causes and place, without bodies and quotes', () => {
  const { log, lines, raw } = memoryLog();
  const cause = Object.assign(new TypeError('connection reset'), { code: 'ECONNRESET' });
  const error = Object.assign(new Error('400 {"error":{"message":"CANARY"}}', { cause }), {
    status: 400,
    body: 'CANARY',
    request: { messages: [{ content: 'CANARY' }] },
    headers: { 'x-request': 'CANARY' },
  });
  log.error({ err: error, task: 't1' }, 'model failed');

  assert.equal(raw().includes('CANARY'), false, raw());
  const [line] = lines();
  const shape = z
    .object({
      task: z.literal('t1'),
      err: z.object({
        type: z.literal('Error'),
        text: z.string().startsWith('400 {'),
        status: z.literal(400),
        stack: z.array(z.string()).min(1),
        cause: z.object({
          type: z.literal('TypeError'),
          text: z.literal('connection reset'),
          code: z.literal('ECONNRESET'),
        }),
      }),
    })
    .safeParse(line);
  assert.ok(shape.success, raw());
});

test('what JSON.parse and zod say about bad input keeps the place and loses the input', () => {
  const { log, raw } = memoryLog();
  try {
    JSON.parse('CANARY says the user');
  } catch (err) {
    log.warn({ err }, 'bad frame');
  }
  const parsed = z.object({ age: z.number() }).safeParse({ age: 'CANARY' });
  log.warn({ err: parsed.error }, 'bad body');

  assert.equal(raw().includes('CANARY'), false, raw());
  assert.match(raw(), /age: invalid_type/);
});

test('nothing that is logged makes the log throw', () => {
  const cycle: Record<string, unknown> = { name: 'round' };
  cycle.self = cycle;
  const hostile = {
    cycle,
    big: 10n,
    call: () => 1,
    symbol: Symbol('s'),
    date: new Date(Number.NaN),
    get broken(): string {
      throw new Error('no');
    },
    many: Array.from({ length: 1_000 }, (_, index) => index),
    long: 'x'.repeat(100_000),
    nul: '\u0000\ud800',
    proxy: new Proxy(
      {},
      { ownKeys: () => ['a'], getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true }) },
    ),
    bare: Object.create(null),
  };
  const { log, raw } = memoryLog();
  log.error(hostile, 'hostile');

  assert.ok(raw().length < 10_000);
  JSON.parse(raw());
});

test('what was logged last is written when the process exits, also at once', () => {
  const script = `
    import { createLog } from '${new URL('../../src/telemetry/log.ts', import.meta.url).href}';
    const log = createLog({ level: 'info', name: 'nooble', nodeId: 'n1' });
    for (let line = 0; line < 500; line += 1) log.info({ line }, 'counted');
    if (process.argv[1] === 'flush') await log.flush();
    process.exit(0);
  `;
  for (const how of ['exit', 'flush']) {
    const run = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script, how], {
      encoding: 'utf8',
      cwd: new URL('../..', import.meta.url),
    });
    assert.equal(run.status, 0, run.stderr);
    assert.equal(run.stdout.trimEnd().split('\n').length, 500, how);
  }
});
