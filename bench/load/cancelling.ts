/**
 * A process that keeps turns streaming and cancels one of them at a time: over WebSocket on a node (argument
 * `node`), or, as the floor, with fetch and an AbortController straight on the model endpoint (`fetch`).
 */
import { type Cancelled, type CancelPlan, cancelPlanSchema } from './cancel-plan.ts';
import { encoded, openSession } from './session.ts';
import { KIND, type LeanSocket } from './socket.ts';

/** One place that always has a turn streaming. */
interface Stream {
  readonly turn: string;
  /** True between the first token and the cancel. */
  readonly streaming: boolean;
  cancel(): void;
  /** Resolves once the cancelled turn has ended; ms since the cancel, if the other side says so. */
  ended(): Promise<number | null>;
  /** Starts the next turn. Resolves with its first token. */
  restart(): Promise<void>;
  close(): void;
}

function defer<T>() {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

async function overNode(plan: CancelPlan, index: number): Promise<Stream> {
  let count = 0;
  let turn = '';
  let streaming = false;
  let cancelledMs = 0;
  let first = defer<void>();
  let end = defer<number | null>();
  const socket: LeanSocket = await openSession('json', plan.port, `/ws/bench/${plan.prefix}${index}`, {
    frame(kind, bytes, from, to) {
      if (kind === KIND.delta) {
        if (!streaming && cancelledMs === 0) {
          streaming = true;
          first.resolve();
        }
      } else if (kind === KIND.cancelled) end.resolve(performance.now() - cancelledMs);
      else if (kind === KIND.error || kind === KIND.response) fail(bytes.toString('utf8', from, to));
    },
    closed: () => undefined,
  });
  return {
    get turn() {
      return turn;
    },
    get streaming() {
      return streaming;
    },
    cancel() {
      streaming = false;
      cancelledMs = performance.now();
      socket.write(encoded('json', 'chat.cancel', { task_id: turn }));
    },
    ended: () => end.promise,
    restart() {
      count += 1;
      turn = `${plan.prefix}${index}-${count}`;
      cancelledMs = 0;
      first = defer();
      end = defer();
      socket.write(encoded('json', 'chat.send', { message: `turn=${turn}`, task_id: turn }));
      return first.promise;
    },
    close: () => socket.close(),
  };
}

async function overFetch(plan: CancelPlan, index: number): Promise<Stream> {
  let count = 0;
  let turn = '';
  let streaming = false;
  let controller = new AbortController();
  let end = defer<number | null>();

  async function read(signal: AbortSignal, first: () => void): Promise<void> {
    const body = JSON.stringify({ stream: true, messages: [{ role: 'user', content: `turn=${turn}` }] });
    const response = await fetch(`http://127.0.0.1:${plan.port}/v1/chat/completions`, {
      method: 'POST',
      body,
      signal,
    });
    for await (const _ of response.body ?? []) first();
  }
  return {
    get turn() {
      return turn;
    },
    get streaming() {
      return streaming;
    },
    cancel() {
      streaming = false;
      controller.abort();
    },
    ended: () => end.promise,
    restart() {
      count += 1;
      turn = `${plan.prefix}${index}-${count}`;
      controller = new AbortController();
      const { signal } = controller;
      const ended = defer<number | null>();
      end = ended;
      return new Promise((resolve) => {
        const first = (): void => {
          streaming = !signal.aborted;
          resolve();
        };
        read(signal, first).catch((error: unknown) => {
          if (!signal.aborted) fail(String(error));
          ended.resolve(null);
        });
      });
    },
    close: () => undefined,
  };
}

function fail(text: string): never {
  console.error(text);
  process.exit(1);
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function run(plan: CancelPlan, open: typeof overNode): Promise<Cancelled> {
  const streams: Stream[] = [];
  for (let i = 0; i < plan.streams; i++) streams.push(await open(plan, i));
  await Promise.all(streams.map((stream) => stream.restart()));
  await sleep(plan.warmupMs);

  const cancels: Cancelled['cancels'] = [];
  const pending: Promise<void>[] = [];
  const cancel = async (stream: Stream): Promise<void> => {
    const { turn } = stream;
    const atNs = String(process.hrtime.bigint());
    stream.cancel();
    const answeredMs = await stream.ended();
    cancels.push({ turn, atNs, answeredMs });
    await stream.restart();
  };
  const untilMs = performance.now() + plan.durationMs;
  for (let i = 0; performance.now() < untilMs; i++) {
    const stream = streams[i % streams.length];
    if (stream?.streaming) pending.push(cancel(stream));
    await sleep(plan.gapMs);
  }
  await Promise.all(pending);
  // Nothing may stream on into the next round; these last cancels come all at once and are not counted.
  for (const stream of streams) stream.cancel();
  await Promise.all(streams.map((stream) => stream.ended()));
  for (const stream of streams) stream.close();
  return { cancels };
}

const open = process.argv[2] === 'fetch' ? overFetch : overNode;
process.on('message', (message) => {
  run(cancelPlanSchema.parse(message), open).then(
    (cancelled) => process.send?.(cancelled),
    (error: unknown) => fail(String(error)),
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.({ ready: true });
