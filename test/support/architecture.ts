/** The rules of the house as functions over sources: arrows, package fences, cycles, sizes, names. */

export interface Source {
  /** From the project's root, with slashes. */
  readonly path: string;
  readonly text: string;
}

export interface Finding {
  readonly path: string;
  readonly problem: string;
}

export const MAX_LINES = 400;

/** Parts of src that stand beside each other: each knows the domain, the ports and itself. */
const BESIDE = 'llm|store|outbox|management|telemetry';

/** Which parts of the project a part may import from, besides itself. First match wins. */
const ARROWS: readonly { readonly part: RegExp; readonly may: RegExp }[] = [
  { part: /^src\/(main|node|peer-side|cluster-side)\.ts$/, may: /./ },
  { part: /^src\/cli\//, may: /^src\/(cli\/|domain\/|ports\/|settings\.ts$)/ },
  { part: /^src\/domain\//, may: /^src\/domain\// },
  { part: /^src\/ports\//, may: /^src\/(domain|ports)\// },
  { part: /^src\/settings\.ts$/, may: /^src\/domain\// },
  ...BESIDE.split('|').map((part) => ({
    part: new RegExp(`^src/${part}/`),
    may: new RegExp(`^src/(${part}|domain|ports)/`),
  })),
  { part: /^actors\//, may: /^(actors\/|src\/(?!(main|node|peer-side|cluster-side)\.ts|cli\/))/ },
  { part: /^transports\//, may: /^(transports\/|src\/(?!(main|node|peer-side|cluster-side)\.ts|cli\/))/ },
  { part: /^bench\//, may: /./ },
];

/** What the domain may know besides itself: schemas, and digests. */
const PURE: ReadonlySet<string> = new Set(['zod', 'node:crypto']);

/** Packages that only one place of the product knows. */
const FENCES: readonly { readonly name: RegExp; readonly home: RegExp }[] = [
  { name: /^nact$/, home: /^actors\/runtime\// },
  { name: /^ioredis$/, home: /^transports\/queue\/redis\// },
  { name: /^uWebSockets\.js$/, home: /^transports\/(websocket\/|http\/adapter\.ts$)/ },
  { name: /^(langchain|@langchain\/.+)$/, home: /^src\/llm\// },
  { name: /^undici$/, home: /^(src\/llm|transports\/webhooks)\// },
  { name: /^msgpackr$/, home: /^transports\/wire\/codec\.ts$/ },
  { name: /^pino$/, home: /^src\/telemetry\/log\.ts$/ },
  { name: /^kysely$/, home: /^src\/store\// },
  { name: /^prom-client$/, home: /^src\/telemetry\// },
];

const ANY_ALLOWED = /^(actors\/runtime\/actor-system|transports\/wire\/codec)\.ts$/;
/** Settings, and what one library reads of the environment by itself. */
const ENVIRONMENT_ALLOWED = /^((src\/(settings|main)|transports\/http\/header-limit)\.ts$|bench\/)/;
const VAGUE_NAME = /(^|[-.])(utils?|helpers?|managers?|services?)$/;
const KEBAB_NAME = /^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9-]+)*$/;

/** All findings of all rules that look at one file. */
export const findingsIn = (source: Source): readonly Finding[] => [
  ...arrowFindings(source),
  ...fenceFindings(source),
  ...shapeFindings(source),
  ...codeFindings(source),
];

/** Imports that point where ARCHITECTURE has no arrow. */
export function arrowFindings({ path, text }: Source): readonly Finding[] {
  const rule = ARROWS.find(({ part }) => part.test(path));
  if (!rule) return [{ path, problem: 'lies in no known part of the project' }];
  const wrong = importsOf(text).flatMap((name) => {
    const target = resolved(path, name);
    if (target) return rule.may.test(target) ? [] : [`imports ${target}`];
    const pure = !path.startsWith('src/domain/') || PURE.has(packageOf(name));
    return pure ? [] : [`imports ${name}; the domain knows zod only`];
  });
  return wrong.map((problem) => ({ path, problem }));
}

/** Imports of packages outside the one place that may know them. */
export function fenceFindings({ path, text }: Source): readonly Finding[] {
  return importsOf(text).flatMap((name) => {
    const fence = path.startsWith('bench/')
      ? undefined
      : FENCES.find((each) => each.name.test(packageOf(name)));
    return fence && !fence.home.test(path) ? [{ path, problem: `imports ${name} outside its fence` }] : [];
  });
}

/** Opening comment, length, and name of a file. */
export function shapeFindings({ path, text }: Source): readonly Finding[] {
  const opening = /^(#!.*\n)?\s*(\/\*[\s\S]*?\*\/|(\/\/.*\n)+)/.exec(text)?.[2];
  const lines = text.split('\n').length - (text.endsWith('\n') ? 1 : 0);
  const name = path.slice(path.lastIndexOf('/') + 1).replace(/\.[a-z]+$/, '');
  return [
    opening ? undefined : 'does not open with a comment that says what it is for',
    lines > MAX_LINES ? `has ${lines} lines` : undefined,
    VAGUE_NAME.test(name) ? 'has a name that says nothing' : undefined,
    KEBAB_NAME.test(name) ? undefined : 'has a name that is not kebab-case',
  ].flatMap((problem) => (problem ? [{ path, problem }] : []));
}

/** What the code itself may not contain; comments and strings may. */
export function codeFindings({ path, text }: Source): readonly Finding[] {
  const code = codeOf(text);
  return [
    /\bexport\s+default\b|\bas\s+default\b/.test(code) ? 'has a default export' : undefined,
    !ANY_ALLOWED.test(path) && /(?:[:<|&,=(]|=>|\bas|\bsatisfies|\bkeyof)\s*any\b(?!\s*[:(=])/.test(code)
      ? 'uses any'
      : undefined,
    !ENVIRONMENT_ALLOWED.test(path) &&
    /\bprocess\s*(\?\.|\.)\s*env\b|\{[^}]*\benv\b[^}]*\}\s*=\s*process\b|\bimport\s*\{[^}]*\benv\b[^}]*\}\s*from\b/.test(
      code,
    )
      ? 'reads process.env'
      : undefined,
    /\bimport\s*\(\s*[^'"\s]/.test(code) ? 'imports what no reader can see' : undefined,
  ].flatMap((problem) => (problem ? [{ path, problem }] : []));
}

/** Chains of imports that come back to where they began, type imports included; each once. */
export function cycles(sources: readonly Source[]): readonly (readonly string[])[] {
  const known = new Set(sources.map(({ path }) => path));
  const edges = new Map(
    sources.map(({ path, text }) => [
      path,
      importsOf(text).flatMap((name) => {
        const target = resolved(path, name);
        return target !== undefined && known.has(target) ? [target] : [];
      }),
    ]),
  );
  const found: (readonly string[])[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) {
      found.push([...trail.slice(at), path]);
      return;
    }
    if (done.has(path)) return;
    for (const target of edges.get(path) ?? []) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const path of edges.keys()) visit(path, []);
  return found;
}

/** What a source imports, re-exports, or imports as a type in passing; comments do not count. */
export function importsOf(text: string): readonly string[] {
  const code = codeOf(text, true);
  const patterns = [
    /(?:^|[;\n}])\s*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"\n]+)['"]/g,
    /(?:^|[;\n}])\s*import\s*['"]([^'"\n]+)['"]/g,
    /\b(?:import|require|resolve)\s*\(\s*['"]([^'"\n]+)['"]/g,
  ];
  return [
    ...new Set(patterns.flatMap((pattern) => [...code.matchAll(pattern)].map((match) => match[1] ?? ''))),
  ];
}

/**
 * A source without its comments, and with its strings emptied unless `keepStrings`. Regular expressions are told
 * from divisions by what stands before them, which is enough for code that Biome has formatted.
 */
export function codeOf(text: string, keepStrings = false): string {
  const token =
    /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\[\s\S])*`|(?<=(?:[=(,:;!&|?{}[+\n>]|\breturn|\btypeof)\s*)\/(?![*/])(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/g;
  return text.replace(token, (found) => {
    if (found.startsWith('/*') || found.startsWith('//')) return found.replace(/[^\n]/g, ' ');
    if (found.startsWith('/')) return '/x/';
    if (keepStrings && !found.startsWith('`')) return found;
    const quote = found.slice(0, 1);
    return `${quote}${found.startsWith('`') ? expressionsIn(found) : ''}${quote}`;
  });
}

/** What stands in `${}`: code after all. Templates within them end the search early, which only hides less. */
const expressionsIn = (template: string): string =>
  [...template.matchAll(/\$\{([^{}]*)\}/g)].map((match) => `\${${match[1] ?? ''}}`).join('');

/** The project file a relative import means; undefined for packages. */
function resolved(from: string, name: string): string | undefined {
  if (!name.startsWith('.')) return undefined;
  const url = new URL(name, `file:///${from}`);
  return decodeURIComponent(url.pathname).slice(1);
}

const packageOf = (name: string): string =>
  name.startsWith('@') ? name.split('/').slice(0, 2).join('/') : (name.split('/')[0] ?? name);
