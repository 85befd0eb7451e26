/** Reads a V8 CPU profile: where time went, by function and by package. */
import { z } from 'zod';

const profileSchema = z.object({
  nodes: z.array(
    z.object({
      id: z.number(),
      callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.number() }),
      children: z.array(z.number()).optional(),
    }),
  ),
  samples: z.array(z.number()),
  /** µs since the sample before. */
  timeDeltas: z.array(z.number()),
});

export interface Spent {
  readonly name: string;
  readonly selfUs: number;
  /** Time in which it was on the stack, counted once where it calls itself. */
  readonly totalUs: number;
}

export interface ProfileSummary {
  /** Without idle time and the profiler's own. */
  readonly totalUs: number;
  /** Most self time first. */
  readonly functions: readonly Spent[];
  readonly places: readonly Spent[];
}

const PROFILER = 'bench/preload/profile-on-signal.ts';

/** `json` is a .cpuprofile. Throws where it is none. */
export function summarise(json: string): ProfileSummary {
  const profile = profileSchema.parse(JSON.parse(json));
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const parents = new Map(
    profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])),
  );
  const selfUs = new Map<number, number>();
  profile.samples.forEach((id, i) => {
    selfUs.set(id, (selfUs.get(id) ?? 0) + (profile.timeDeltas[i] ?? 0));
  });

  const functions = createTally();
  const places = createTally();
  let totalUs = 0;
  for (const [id, us] of selfUs) {
    const stack: { functionName: string; place: string; name: string }[] = [];
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const frame = nodes.get(at)?.callFrame;
      if (!frame || frame.functionName === '(root)') continue;
      const place = placeOf(frame.url, frame.functionName);
      const functionName = frame.functionName || '(anonymous)';
      const where = frame.url ? `${shortened(frame.url)}:${frame.lineNumber + 1}` : '';
      stack.push({ functionName, place, name: `${functionName}  ${where}`.trim() });
    }
    if (stack.some(({ name, place }) => name === '(idle)' || place === PROFILER)) continue;
    totalUs += us;
    functions.add(
      us,
      stack.map(({ name }) => name),
    );
    places.add(
      us,
      stack.map(({ place }) => place),
    );
  }
  return { totalUs, functions: functions.sorted(), places: places.sorted() };
}

function createTally() {
  const self = new Map<string, number>();
  const total = new Map<string, number>();
  const count = (map: Map<string, number>, name: string, us: number) =>
    map.set(name, (map.get(name) ?? 0) + us);
  return {
    /** `stack` begins with the function that ran. */
    add(us: number, stack: readonly string[]): void {
      count(self, stack[0] ?? '(none)', us);
      for (const name of new Set(stack)) count(total, name, us);
    },
    sorted: (): Spent[] =>
      [...total]
        .map(([name, totalUs]) => ({ name, selfUs: self.get(name) ?? 0, totalUs }))
        .sort((a, b) => b.selfUs - a.selfUs),
  };
}

/** A package, one of our files, or what V8 calls the rest. */
function placeOf(url: string, functionName: string): string {
  const dependency = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1];
  if (dependency) return dependency;
  if (url.startsWith('node:')) return 'node';
  if (url === '') return functionName.startsWith('(') ? functionName : 'V8 and native';
  return shortened(url);
}

/** The path from the repository's root, or from the package on. */
function shortened(url: string): string {
  return url
    .replace(/^file:\/\//, '')
    .replace(/^.*node_modules\//, '')
    .replace(/^.*?\/((?:src|actors|transports|bench)\/)/, '$1');
}
