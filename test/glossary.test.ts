/** Every noun that actors and ports export is a word of the glossary: one word for one thing, and none that is nowhere explained. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const root = new URL('../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');

/** The words in bold, lower case. */
const entries = new Set(
  [...read('docs/glossary.md').matchAll(/\*\*([^*]+)\*\*/g)].map((match) =>
    (match[1] ?? '').replace(/\s+/g, ' ').toLowerCase(),
  ),
);

/** What a name says besides its noun: the actor's state, its message, what a factory needs. */
const ROLES =
  /(?:deps|options|state|message|messages|effect|effects|step|ref|kind|bounds|outcome|stats|record|type|mode|data|failure|error|reason|seed|limits|context|answer|event|events|query|config|of|system)$/;

/** `ActionWorkerDeps` → `action worker`. */
function nounOf(name: string): readonly string[] {
  const words = name.replace(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase();
  const found = [words];
  for (let rest = words; ROLES.test(rest) && rest.includes(' '); ) {
    rest = rest.slice(0, rest.lastIndexOf(' '));
    found.push(rest);
  }
  return found;
}

const isKnown = (noun: string): boolean =>
  [noun, `${noun}s`, noun.replace(/ies$/, 'y'), noun.replace(/s$/, ''), noun.replace(/es$/, '')].some(
    (form) => entries.has(form),
  );

const exportsOf = (path: string): readonly string[] =>
  [...read(path).matchAll(/^export (?:interface|type|class|abstract class) ([A-Z]\w+)/gm)].map(
    (match) => match[1] ?? '',
  );

test('every exported noun of actors and ports stands in the glossary', () => {
  const missing = globSync(['actors/**/*.ts', 'src/ports/*.ts'], { cwd: root })
    .sort()
    .flatMap((path) =>
      exportsOf(path)
        .filter((name) => !nounOf(name).some(isKnown))
        .map((name) => `${name} (${path})`),
    );
  assert.deepEqual(missing, []);
});

test('a noun that nobody explains is found', () => {
  assert.deepEqual(nounOf('ActionWorkerDeps'), ['action worker deps', 'action worker']);
  assert.equal(isKnown('roster'), false);
});
