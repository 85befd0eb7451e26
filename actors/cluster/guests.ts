/**
 * Clients of other nodes in sessions of this one: to the session each is a client like any other. What it is sent goes
 * over the link to its gateway; what many guests of one gateway are sent at once goes as one item.
 */
import { z } from 'zod';
import { type Close, refusal } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import { sessionIdSchema, taskIdSchema, tenantIdSchema, userIdSchema } from '../../src/domain/ids.ts';
import { tierSchema } from '../../src/domain/tiers.ts';
import type { Caller } from '../../src/domain/turn.ts';
import { type Boot, guestId, type LocalSessions, type SessionKey } from '../../src/ports/cluster.ts';
import type { Attachment, CrossingFrame, LinkAnswer, LinkItem } from '../../src/ports/links.ts';
import type { Client, ResumePoint } from '../../src/ports/sessions.ts';
import type { Links } from './links.ts';

const count = z.number().int().nonnegative();

const callerSchema = z
  .object({ tenantId: tenantIdSchema, tier: tierSchema.optional(), userId: userIdSchema.optional() })
  .transform(({ tenantId, tier, userId }): Caller => ({ tenantId, tier, userId }));

const resumeSchema = z
  .object({ lastSeq: count, epoch: z.string().optional(), taskId: taskIdSchema.optional() })
  .transform(({ lastSeq, epoch, taskId }): ResumePoint => ({ lastSeq, epoch, ...(taskId && { taskId }) }));

/** What a gateway says of a client of its own. */
export const attachBodySchema = z.object({
  caller: callerSchema,
  sessionId: sessionIdSchema,
  clientId: z.string(),
  generation: count,
  /** It was attached here before: its session is not to move to it. */
  again: z.boolean(),
  deltaWindowMs: z.number().nonnegative(),
  reasoning: z.boolean().optional(),
  /** It wants the frames of this turn, and those of no turn. */
  only: taskIdSchema.optional(),
  resume: resumeSchema.optional(),
});
export type AttachBody = z.infer<typeof attachBodySchema>;

export interface GuestsDeps {
  readonly links: Pick<Links, 'send'>;
  readonly sessions: Pick<LocalSessions, 'has' | 'attach' | 'detach'> & {
    /** As LocalSessions.yield, unless somebody is attached; calls back once. */
    readonly yield: (key: SessionKey, done: (isReleased: boolean) => void) => void;
  };
  /** What a frame is on the wire, as JSON. */
  readonly text: (frame: Frame) => string;
  /** Once all that is done now is done. */
  readonly soon: (act: () => void) => void;
}

export interface Guests {
  /** A gateway asks for a client of its own; `body` is as it came. Answers once. */
  attach(from: Boot, body: unknown, answer: (answer: LinkAnswer) => void): void;
  /** The client of an observer that came with a turn: whoever takes the turn attaches it. */
  watcher(from: Boot, body: AttachBody): Client;
  /** A gateway takes one of its clients back. */
  detach(from: Boot, key: SessionKey, clientId: string): void;
  /** Tells a gateway which clients of its own are here: what it does not know it takes back. */
  census(boot: Boot): void;
  /** That boot is dead: its clients are gone. */
  lose(boot: Boot): void;
  /** Boots that have clients here. */
  gateways(): ReadonlySet<Boot>;
  size(): number;
}

interface Guest {
  readonly boot: Boot;
  readonly clientId: string;
  readonly generation: number;
  readonly key: SessionKey;
  readonly client: Client;
}

/** Of one item: a bundle with more than these goes alone. */
const MAX_CENSUS = 1_000;

export function createGuests({ links, sessions, text, soon }: GuestsDeps): Guests {
  const guests = new Map<string, Guest>();
  /** Those that wait for their session to be given up, or not: by id, with their generation. */
  const arriving = new Map<string, number>();
  const post = createPost(links, soon);

  function add(boot: Boot, body: AttachBody): Client {
    const { caller, sessionId, clientId, generation } = body;
    const id = guestId(boot, clientId);
    const key = { tenantId: caller.tenantId, sessionId };
    const attachment: Attachment = [clientId, generation];
    const client = guestClient(id, body, {
      crossing: (frame) => crossing(frame, text),
      send: (frame, frames) => post.frames(boot, attachment, frame, frames),
      close(close) {
        if (guests.get(id)?.client === client) guests.delete(id);
        post.item(boot, { kind: 'close', to: [attachment], code: close.code });
      },
      isHere: () => guests.get(id)?.client === client,
    });
    guests.set(id, { boot, clientId, generation, key, client });
    return client;
  }

  function remove(boot: Boot, clientId: string): void {
    const id = guestId(boot, clientId);
    arriving.delete(id);
    const guest = guests.get(id);
    if (!guest) return;
    guests.delete(id);
    sessions.detach(guest.key, id);
  }

  function attachNow(from: Boot, body: AttachBody, answer: (answer: LinkAnswer) => void): void {
    const known = guests.get(guestId(from, body.clientId));
    // It was attached anew while this one waited.
    if (known && known.generation > body.generation) return answer({ type: 'ok', value: null });
    const client = add(from, body);
    if (sessions.attach(body.caller, body.sessionId, client, body.resume))
      return answer({ type: 'ok', value: null });
    guests.delete(client.id);
    answer({ type: 'notMine' });
  }

  return {
    attach(from, given, answer) {
      const { data: body } = attachBodySchema.safeParse(given);
      if (!body) return answer({ type: 'refused', error: refusal('INVALID_REQUEST') });
      const key = { tenantId: body.caller.tenantId, sessionId: body.sessionId };
      if (!sessions.has(key)) return answer({ type: 'notMine' });
      // Who knows this log is served here, so that it finds what it missed. Anybody else an idle session follows.
      if (body.again || body.resume?.epoch !== undefined) return attachNow(from, body, answer);
      const id = guestId(from, body.clientId);
      arriving.set(id, body.generation);
      sessions.yield(key, (isReleased) => {
        const isHere = arriving.get(id) === body.generation;
        if (isHere) arriving.delete(id);
        // It has left meanwhile, or has come anew: then this answer is for nobody.
        if (isReleased || !isHere) answer({ type: 'notMine' });
        else attachNow(from, body, answer);
      });
    },
    watcher: add,
    detach: (from, _key, clientId) => remove(from, clientId),
    census(boot) {
      const theirs = [...guests.values()].filter((guest) => guest.boot === boot);
      for (let at = 0; at < theirs.length; at += MAX_CENSUS) {
        const clients = theirs.slice(at, at + MAX_CENSUS).map(({ key, clientId }) => ({ ...key, clientId }));
        post.item(boot, { kind: 'guests', clients });
      }
    },
    lose(boot) {
      for (const guest of [...guests.values()]) if (guest.boot === boot) remove(boot, guest.clientId);
    },
    gateways: () => new Set([...guests.values()].map(({ boot }) => boot)),
    size: () => guests.size,
  };
}

const crossing = (frame: Frame, text: (frame: Frame) => string): CrossingFrame => {
  const { seq, type, atMs, taskId } = frame;
  return { seq, type, atMs, taskId, text: text(frame) };
};

interface GuestWay {
  readonly crossing: (frame: Frame) => CrossingFrame;
  /** `frame`: what was sent last, which others may be sent too. */
  readonly send: (frame: Frame, frames: readonly CrossingFrame[]) => void;
  readonly close: (close: Close) => void;
  readonly isHere: () => boolean;
}

function guestClient(id: string, { deltaWindowMs, reasoning, only }: AttachBody, way: GuestWay): Client {
  /** A greeting whose snapshot is to come: if only that were lost nobody would ever miss it. */
  let greeting: CrossingFrame | undefined;
  return {
    id,
    deltaWindowMs,
    reasoning: reasoning === true,
    send(frame) {
      if (!way.isHere()) return;
      if (only !== undefined && frame.taskId !== undefined && frame.taskId !== only) return;
      if (isUnrecovered(frame)) greeting = way.crossing(frame);
      else if (greeting) {
        way.send(frame, [greeting, way.crossing(frame)]);
        greeting = undefined;
      } else way.send(frame, [way.crossing(frame)]);
    },
    close(close) {
      if (way.isHere()) way.close(close);
    },
  };
}

const greetingSchema = z.object({ recovered: z.literal(false) });

/** A greeting that a snapshot follows. */
const isUnrecovered = ({ type, data }: Frame): boolean =>
  type === 'session.ready' && greetingSchema.safeParse(data).success;

/** Gathers what one tick brings for each gateway, in order: one frame for many clients is one item. */
function createPost(links: Pick<Links, 'send'>, soon: (act: () => void) => void) {
  const waiting = new Map<Boot, LinkItem[]>();
  /** The newest item for each gateway, while another client of it may be sent the same. */
  const open = new Map<Boot, { readonly frame: Frame; readonly to: Attachment[] }>();

  function flush(): void {
    const all = [...waiting];
    waiting.clear();
    open.clear();
    for (const [boot, items] of all) for (const item of items) links.send(boot, item);
  }

  function item(boot: Boot, given: LinkItem): void {
    open.delete(boot);
    const items = waiting.get(boot);
    if (items) items.push(given);
    else {
      if (waiting.size === 0) soon(flush);
      waiting.set(boot, [given]);
    }
  }

  return {
    item,
    frames(boot: Boot, attachment: Attachment, frame: Frame, frames: readonly CrossingFrame[]): void {
      const last = open.get(boot);
      if (frames.length === 1 && last?.frame === frame) return void last.to.push(attachment);
      const to = [attachment];
      item(boot, { kind: 'frames', to, frames });
      if (frames.length === 1) open.set(boot, { frame, to });
    },
  };
}
