/** Reads what is stored for lagging queues and sends it, pass by pass, until none lags. */
import type { QueueName } from '../domain/queues.ts';
import type { Outgoing, Store, Unsent } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';
import type { Transport } from '../ports/transport.ts';
import { anyLagging, isLagging, type Lagging, type Lines } from './lines.ts';
import { backoff, type RelayTiming, type SendStored } from './sender.ts';

interface CatchUp {
  /** Begins, unless it runs: at once, or after the first back-off. */
  wake(when: 'now' | 'soon'): void;
  /** Resolves when it has stopped, after the page that it reads. */
  close(): Promise<void>;
}

interface CatchUpDeps {
  readonly lines: Lines;
  readonly store: Pick<Store, 'unsent'>;
  readonly transport: Pick<Transport, 'ping'>;
  readonly send: SendStored;
  readonly log: Log;
  readonly timing: RelayTiming;
  readonly random: () => number;
}

/** Queues that the log names. */
const NAMED_QUEUES = 10;

/** What a pass has come to: which queues lag still, and what the log should say of it. */
interface Passed {
  readonly still: Lagging;
  /** Something could be sent, or nothing had to be. */
  readonly moved: boolean;
  readonly trouble?: object;
}

/** One queue that refuses does not hold up the others: only where nothing at all is taken is the transport asked. */
export function createCatchUp(deps: CatchUpDeps): CatchUp {
  const { lines, log, timing, random } = deps;
  let running: Promise<void> | undefined;
  let endPause = (): void => {};
  let closed = false;
  const pass = createPass(deps, () => closed);

  function wake(when: 'now' | 'soon'): void {
    if (closed || running) return;
    running = run(when === 'now' ? 0 : 1).finally(() => {
      running = undefined;
      // What began to lag between the last look and here.
      if (anyLagging(lines.lagging())) wake('soon');
    });
  }

  async function run(failuresBefore: number): Promise<void> {
    let failures = failuresBefore;
    let troubled = false;
    while (!closed && anyLagging(lines.lagging())) {
      if (failures > 0) await pause(backoff(failures, timing, random));
      if (closed) return;
      const { moved, trouble } = await pass();
      if (trouble && !troubled) log.warn(trouble, 'not all that is stored can be sent now');
      troubled ||= trouble !== undefined;
      failures = moved ? 1 : failures + 1;
    }
    if (troubled && !closed) log.info({}, 'all that was stored is sent');
  }

  const pause = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms).unref();
      endPause = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  return {
    wake,
    async close() {
      closed = true;
      endPause();
      await running;
    },
  };
}

/** Reads from the beginning to the end, and sends what it can. */
function createPass(
  { lines, store, transport, send, timing }: CatchUpDeps,
  isClosed: () => boolean,
): () => Promise<Passed> {
  async function readAll(scope: Lagging): Promise<Passed> {
    const refused = new Set<QueueName>();
    let moved = false;
    for (let afterSeq = 0; ; ) {
      lines.beginPage();
      const page = await store.unsent(afterSeq, timing.page);
      if (isClosed()) return { still: scope, moved };
      const found = await sendPage(page, scope, refused);
      moved ||= found.taken;
      if (found.refused && !found.taken && !(await answers()))
        return { still: 'all', moved, trouble: { transport: 'away' } };
      const isLast = page.length < timing.page || (scope !== 'all' && refused.size === scope.size);
      if (isLast && refused.size === 0) return { still: refused, moved: true };
      if (isLast) return { still: refused, moved, trouble: { queues: [...refused].slice(0, NAMED_QUEUES) } };
      afterSeq = page.at(-1)?.seq ?? afterSeq;
    }
  }

  /** Queues side by side, each in its order; those that refuse are added to `refused` and skipped from then on. */
  async function sendPage(
    page: readonly Unsent[],
    scope: Lagging,
    refused: Set<QueueName>,
  ): Promise<{ readonly taken: boolean; readonly refused: boolean }> {
    const wanted = byQueue(page, (queue) => isLagging(scope, queue) && !refused.has(queue));
    const before = refused.size;
    let taken = false;
    await Promise.all(
      [...wanted].map(async ([queue, [first, ...rest]]) => {
        // The first alone: while the transport is away the others need not be encoded.
        const begun = first !== undefined && (await send(first));
        taken ||= begun;
        const all = begun ? await Promise.all(rest.map(send)) : [false];
        if (all.includes(false)) refused.add(queue);
      }),
    );
    return { taken, refused: refused.size > before };
  }

  const answers = (): Promise<boolean> =>
    transport.ping().then(
      () => true,
      () => false,
    );

  return async function pass() {
    const scope = await lines.beginPass();
    const passed = await readAll(scope).catch(
      (error: unknown): Passed => ({ still: scope, moved: false, trouble: { err: error } }),
    );
    lines.endPass(passed.still);
    return passed;
  };
}

function byQueue(
  page: readonly Unsent[],
  wanted: (queue: QueueName) => boolean,
): ReadonlyMap<QueueName, Outgoing[]> {
  const groups = new Map<QueueName, Outgoing[]>();
  for (const { outgoing } of page) {
    const { queue } = outgoing;
    if (queue === undefined || !wanted(queue)) continue;
    const group = groups.get(queue);
    if (group) group.push(outgoing);
    else groups.set(queue, [outgoing]);
  }
  return groups;
}
