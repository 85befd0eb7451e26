/** The arrows of the architecture, checked over every source, and proof that the check can fail. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  arrowFindings,
  codeFindings,
  codeOf,
  cycles,
  fenceFindings,
  findingsIn,
  importsOf,
  MAX_LINES,
  type Source,
  shapeFindings,
} from './support/architecture.ts';

const root = new URL('..', import.meta.url);
const sources: readonly Source[] = globSync('{src,actors,transports,bench}/**/*.ts', {
  cwd: root,
  exclude: ['bench/node_modules/**'],
})
  .map((path) => path.replaceAll('\\', '/'))
  .sort()
  .map((path) => ({ path, text: readFileSync(new URL(path, root), 'utf8') }));

const made = (path: string, text: string): Source => ({ path, text });
const lines = (findings: readonly { path: string; problem: string }[]): readonly string[] =>
  findings.map(({ path, problem }) => `${path} ${problem}`);

test('every source keeps to the arrows, fences, sizes and names of the house', () => {
  assert.ok(sources.length > 15);
  assert.deepEqual(lines(sources.flatMap(findingsIn)), []);
});

test('no chain of imports comes back to where it began', () => {
  assert.deepEqual(
    cycles(sources).map((cycle) => cycle.join(' → ')),
    [],
  );
});

test('every relative import names a file that is there', () => {
  const known = new Set([...sources.map(({ path }) => path), ...globSync('test/**/*.ts', { cwd: root })]);
  for (const { path, text } of sources)
    for (const name of importsOf(text).filter((each) => each.startsWith('.') && each.endsWith('.ts')))
      assert.ok(known.has(new URL(name, `file:///${path}`).pathname.slice(1)), `${path} imports ${name}`);
});

test('an import against the arrows is found, however it is written', () => {
  const wrong: readonly [string, string][] = [
    ['src/domain/x.ts', "import { a } from '../ports/store.ts';"],
    ['src/domain/x.ts', "import { readFileSync } from 'node:fs';"],
    ['src/domain/x.ts', "import pino from 'pino';"],
    ['src/ports/x.ts', "import type { S } from '../settings.ts';"],
    ['src/settings.ts', "export * from './ports/store.ts';"],
    ['src/llm/x.ts', "import {\n  type A,\n  b,\n} from '../store/open.ts';"],
    ['src/llm/tools/x.ts', "import '../../settings.ts';"],
    ['src/store/x.ts', "const a = await import('../llm/run.ts');"],
    ['src/telemetry/x.ts', "type A = import('../settings.ts').Settings;"],
    ['actors/x.ts', "import { a } from '../transports/wire/codec.ts';"],
    ['actors/x.ts', "import { a } from '../src/main.ts';"],
    ['actors/x.ts', "import { a } from '../test/support/leaks.ts';"],
    ['transports/http/x.ts', "export { a } from '../../actors/session/session.ts';"],
    ['lib/x.ts', ''],
  ];
  for (const [path, text] of wrong)
    assert.equal(arrowFindings(made(path, text)).length, 1, `${path}: ${text}`);
});

test('imports along the arrows are fine', () => {
  const fine: readonly [string, string][] = [
    [
      'src/main.ts',
      "import '../actors/system.ts'; import '../transports/websocket/chat.ts'; import 'node:fs';",
    ],
    ['src/domain/x.ts', "import { z } from 'zod';\nimport './ids.ts';"],
    ['src/llm/tools/x.ts', "import type { A } from '../../ports/runner.ts';\nimport '../run.ts';"],
    ['actors/x.ts', "import './actor.ts';\nimport '../src/domain/ids.ts';\nimport '../src/ports/store.ts';"],
    ['transports/http/x.ts', "import '../wire/codec.ts';\nimport '../../src/settings.ts';"],
    [
      'src/domain/y.ts',
      "/* import '../ports/store.ts'; */\n// from '../settings.ts'\nconst a = \"import './x'\";",
    ],
  ];
  for (const [path, text] of fine) assert.deepEqual(arrowFindings(made(path, text)), []);
});

test('a package is found outside its fence and nowhere else', () => {
  const fenced: readonly [string, string, string][] = [
    ['nact', 'actors/runtime/actor-system.ts', 'actors/session/session.ts'],
    ['ioredis', 'transports/queue/redis/lists.ts', 'transports/queue/memory.ts'],
    ['uWebSockets.js', 'transports/http/adapter.ts', 'transports/http/routes.ts'],
    ['uWebSockets.js', 'transports/websocket/chat.ts', 'src/main.ts'],
    ['langchain', 'src/llm/run.ts', 'actors/execution/execution.ts'],
    ['@langchain/core/messages', 'src/llm/tools/x.ts', 'src/main.ts'],
    ['msgpackr', 'transports/wire/codec.ts', 'transports/websocket/chat.ts'],
    ['pino', 'src/telemetry/log.ts', 'src/telemetry/metrics.ts'],
    ['kysely', 'src/store/schema.ts', 'actors/session/effects.ts'],
    ['prom-client', 'src/telemetry/metrics.ts', 'transports/http/routes.ts'],
  ];
  for (const [name, home, elsewhere] of fenced) {
    const text = `import type { A } from '${name}';`;
    assert.deepEqual(fenceFindings(made(home, text)), [], `${name} in ${home}`);
    assert.equal(fenceFindings(made(elsewhere, text)).length, 1, `${name} in ${elsewhere}`);
  }
});

test('a cycle is found through types too, and named', () => {
  const round = [
    made('src/domain/a.ts', "import type { B } from './b.ts';"),
    made('src/domain/b.ts', "export { c } from './c.ts';"),
    made('src/domain/c.ts', "type A = import('./a.ts').A;"),
    made('src/domain/d.ts', "import './a.ts';"),
  ];

  assert.deepEqual(cycles(round), [
    ['src/domain/a.ts', 'src/domain/b.ts', 'src/domain/c.ts', 'src/domain/a.ts'],
  ]);
  assert.deepEqual(cycles(round.slice(1)), []);
});

test('a file without an opening comment, too long, or with a vague name is found', () => {
  const long = 'x;\n'.repeat(MAX_LINES);
  const problems = (path: string, text: string): number => shapeFindings(made(path, text)).length;

  assert.equal(problems('src/a.ts', 'const a = 1; // late'), 1);
  assert.equal(problems('src/a.ts', `/** Why. */\n${long}`), 1);
  assert.equal(problems('src/a.ts', `/** Why. */\n${long.slice(3)}`), 0);
  for (const name of [
    'utils',
    'http-utils',
    'redis-helper',
    'agent.service',
    'session-manager',
    'Session',
    'agent_loop',
  ])
    assert.equal(problems(`src/${name}.ts`, '// Why.\n'), 1, name);
  assert.equal(problems('src/agent-loop.ts', '#!/usr/bin/env node\n// Why.\n'), 0);
});

test('default exports, any, the environment and hidden imports are found in code, not in comments and strings', () => {
  const found = (text: string, path = 'src/a.ts'): number => codeFindings(made(path, text)).length;

  for (const wrong of [
    ...[
      'export default 1;',
      'export { a as default };',
      'let a: any;',
      'f<any>()',
      'x as any',
      'type A = any[]',
    ],
    ...['(a: string | any) => a', 'Record<string, any>', 'process.env.HOME', 'const { env } = process;'],
    ...['await import(name)', `const a = \`\${process.env.HOME}\`;`],
  ])
    assert.equal(found(wrong), 1, wrong);
  for (const fine of [
    ...['// export default any', '/* process.env */', "const a = 'process.env: any';", 'const any = 1;'],
    ...['const a = `: any`;', 'schema.any()', 'if (/: any|"/.test(x)) y = "";', "await import('./b.ts')"],
  ])
    assert.equal(found(fine), 0, fine);
  assert.equal(found('let a: any;', 'actors/runtime/actor-system.ts'), 0);
  assert.equal(found('process.env.X', 'src/settings.ts'), 0);
});

test('quotes inside comments, templates and expressions do not confuse the reader', () => {
  const text = [
    "// it's a comment",
    `const a = /['"]/.test(b) ? \`it's \${c}\` : 4 / 2 / 1; /* "open */`,
    "import { d } from './d.ts';",
  ].join('\n');

  assert.deepEqual(importsOf(text), ['./d.ts']);
  assert.equal(codeOf("const a = 'secret'; // why").trim(), "const a = '';");
});
