/** Clients of a simulated cluster: they connect to any node, resume, say things again until they are taken, and count. */
import type { Frame } from '../../src/domain/frames.ts';
import type { ResumePoint } from '../../src/ports/sessions.ts';
import type { SimulatedNode } from './node.ts';
import type { World } from './world.ts';

export interface SaidTask {
  readonly task: string;
  isAccepted: boolean;
  /** The client was told how it ended, or found it in a snapshot. */
  isKnown: boolean;
  tries: number;
}

export interface SimulatedClient {
  readonly session: string;
  /** The connection that is open, or being opened. */
  connection(): string;
  said(): Iterable<SaidTask>;
  /** Since when it has not been greeted; undefined: it is attached. */
  awaySinceMs(): number | undefined;
  connect(): void;
  say(task: string): void;
  /** Its connection breaks. */
  breakOff(): void;
}

/** A client gives up a connection that does not greet it. */
const GREETING_MS = 4_000;
const MAX_TRIES = 60;

export interface ClientsSeen {
  readonly greeted: (awayMs: number, isRecovered: boolean) => void;
}

export function createClient(
  world: World,
  nodes: readonly SimulatedNode[],
  session: string,
  name: string,
  seen: ClientsSeen,
): SimulatedClient {
  const said = new Map<string, SaidTask>();
  const toldEnds = new Set<string>();
  let connections = 0;
  let node: SimulatedNode | undefined;
  let isGreeted = false;
  let awaySinceMs: number | undefined = 0;
  let resume: ResumePoint | undefined;
  const connection = (): string => `${name}-${connections}`;

  function connect(): void {
    connections += 1;
    isGreeted = false;
    awaySinceMs ??= world.now();
    const mine = connections;
    const chosen = world.pick(nodes.filter((each) => each.isReady()));
    if (!chosen) return world.after(300, () => mine === connections && connect());
    node = chosen;
    world.note('client', name, 'connects', connection(), 'to', chosen.name, resume);
    const client = {
      id: connection(),
      deltaWindowMs: 0,
      send: (frame: Frame) => void (mine === connections && got(frame)),
      close: () => void (mine === connections && breakOff()),
    };
    chosen.attach(session, client, resume);
    world.after(GREETING_MS, () => mine === connections && !isGreeted && breakOff());
  }

  function breakOff(): void {
    if (!node) return;
    world.note('client', name, 'is off', connection(), node.name);
    node.detach(session, connection());
    node = undefined;
    connections += 1;
    awaySinceMs ??= world.now();
    const mine = connections;
    world.after(world.between(10, 600), () => mine === connections && connect());
  }

  function got({ type, seq, data }: Frame): void {
    if (type !== 'delta') world.note('client', connection(), 'got', type, seq, data);
    if (type === 'session.ready') return greeted(data);
    if (type === 'session.snapshot') {
      for (const task of tasksIn(data)) known(task);
      return;
    }
    if (!isGreeted || seq !== (resume?.lastSeq ?? 0) + 1)
      world.problem("a gap or a repeat in a client's stream", {
        connection: connection(),
        session,
        resume,
        seq,
      });
    resume = { epoch: resume?.epoch, lastSeq: seq ?? 0 };
    if (type !== 'end') return;
    const task = field(data, 'task');
    const told = `${resume.epoch} ${task}`;
    if (toldEnds.has(told))
      world.problem('a turn ended twice for a client', { task, connection: connection() });
    toldEnds.add(told);
    known(task);
  }

  function greeted(data: unknown): void {
    const isRecovered = field(data, 'recovered') === 'true';
    // A mend goes unseen, unless what was missed can not be had any more.
    if (isGreeted && isRecovered) world.problem('a client saw a mend', { connection: connection() });
    const epoch = field(data, 'epoch');
    if (isRecovered && epoch !== resume?.epoch)
      world.problem('recovered with another epoch', { epoch, resume });
    if (!isRecovered) resume = { epoch, lastSeq: Number(field(data, 'seq')) };
    isGreeted = true;
    seen.greeted(world.now() - (awaySinceMs ?? world.now()), isRecovered);
    awaySinceMs = undefined;
  }

  function known(task: string): void {
    const mine = said.get(task);
    if (mine) mine.isKnown = true;
  }

  function offer(each: SaidTask): void {
    if (each.isAccepted || each.tries >= MAX_TRIES) return;
    each.tries += 1;
    if (!node || !isGreeted) return world.after(500, () => offer(each));
    let isTold = false;
    node.say(session, each.task, false, (answer) => {
      isTold = true;
      if (answer === 'accepted') each.isAccepted = true;
      else world.after(world.between(200, 600), () => offer(each));
    });
    world.after(5_000, () => {
      if (!isTold) offer(each);
    });
  }

  return {
    ...{ session, connection, connect, breakOff },
    said: () => said.values(),
    awaySinceMs: () => awaySinceMs,
    say(task) {
      if (!node || !isGreeted) return;
      const each: SaidTask = { task, isAccepted: false, isKnown: false, tries: 0 };
      said.set(task, each);
      offer(each);
    },
  };
}

/** Data of frames are what the models made: plain, and read by name. */
function field(data: unknown, name: string): string {
  const fields: Readonly<Record<string, unknown>> = Object(data);
  return String(fields[name]);
}

function tasksIn(data: unknown): readonly string[] {
  const { ended }: { readonly ended?: unknown } = Object(data);
  return Array.isArray(ended) ? ended.map(String) : [];
}
