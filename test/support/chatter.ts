/** A chat client for tests: it keeps every frame, waits for frames without taking them, and knows what must always hold. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { watchLines } from './lines.ts';
import type { Received, TestClient } from './websocket-client.ts';

type Wanted = string | ((frame: Received) => boolean);

export interface Chatter extends Omit<TestClient, 'next'> {
  /** Resolves to the first frame, past or future, that fits. Rejects once the socket is closed without it. */
  see(wanted: Wanted): Promise<Received>;
  /** Sends `chat.send` and returns its task id. */
  say(message: string, more?: Readonly<Record<string, unknown>>): string;
  /** Resolves to the frame that ends the turn, or refuses it. */
  ended(taskId: string): Promise<Received>;
  /** Says something and resolves to all frames of the turn once it has ended. */
  turn(message: string, more?: Readonly<Record<string, unknown>>): Promise<readonly Received[]>;
  /** All frames of a turn so far. */
  of(taskId: string): readonly Received[];
  /** Fails where numbers have a gap, or a turn has ended twice. */
  check(): void;
}

export const isEnd = ({ type }: Received): boolean =>
  type === 'chat.response' || type === 'chat.cancelled' || type === 'error';

/** All deltas of the frames, put together. */
export const deltas = (frames: readonly Received[]): string =>
  frames
    .filter(({ type }) => type === 'chat.delta')
    .map(({ data }) => data.content)
    .join('');

export const types = (frames: readonly Received[]): readonly string[] => frames.map(({ type }) => type);

/** The numbered frames: what a session's log holds. */
export const numbered = (frames: readonly Received[]): readonly Received[] =>
  frames.filter(({ seq }) => seq !== undefined);

/** The last frame, which must be of this type. */
export function last(frames: readonly Received[], type: string): Received {
  const frame = frames.at(-1);
  assert.ok(frame, 'there is no frame');
  assert.equal(frame.type, type, JSON.stringify(frame));
  return frame;
}

/** Wraps a socket. Frames are seen by any number of waiters. */
export function chatter(client: TestClient): Chatter {
  const { frames } = client;
  const { line: see, look, end } = watchLines(frames, ({ type }: Received) => type);
  const pump = async (): Promise<void> => {
    for (;;) {
      await client.next();
      look();
    }
  };
  pump().catch((error: Error) => end(() => error.message));

  const own: Chatter = {
    ...client,
    see,
    say(message, more = {}) {
      const task_id = typeof more.task_id === 'string' ? more.task_id : randomUUID();
      client.send({ type: 'chat.send', message, ...more, task_id });
      return task_id;
    },
    ended: (taskId) => see((frame) => frame.task_id === taskId && isEnd(frame)),
    async turn(message, more) {
      const taskId = own.say(message, more);
      await own.ended(taskId);
      return own.of(taskId);
    },
    of: (taskId) => frames.filter(({ task_id }) => task_id === taskId),
    check() {
      const log = numbered(frames);
      const first = log[0]?.seq ?? 0;
      assert.deepEqual(
        log.map(({ seq }) => seq),
        log.map((_, place) => first + place),
        'sequence numbers have a gap',
      );
      const ends = log.filter(isEnd).map(({ task_id }) => task_id);
      assert.equal(new Set(ends).size, ends.length, 'a turn ended twice');
    },
  };
  return own;
}
