/** The open sessions of a load process, and what a turn on one of them is: sent, first delta, end. */
import { MARK, msBetween, STAMP_LENGTH, stampAt, stampNowUs } from '../kit/stamps.ts';
import type { CommandOf } from './commands.ts';
import { encoded, openSession } from './session.ts';
import { KIND, type LeanSocket } from './socket.ts';

/** What happens on a session while a run watches it. */
export interface TurnWatcher {
  accepted(session: LoadSession, sinceSentMs: number): void;
  firstDelta(session: LoadSession, sinceSentMs: number): void;
  /** A token with its stamp; `sinceAskedMs` with the first of an answer: from the request to the token's write. */
  token?(sinceWrittenMs: number, sinceAskedMs: number | undefined, sinceSentMs: number): void;
  ended(session: LoadSession, sinceSentMs: number): void;
  failed(session: LoadSession, frame: string): void;
  lost(session: LoadSession): void;
}

export interface LoadSession {
  readonly index: number;
  socket: LeanSocket | undefined;
  /** When the turns that have not ended were sent, oldest first. */
  sentMs: number[];
  /** How many of them were accepted. */
  accepted: number;
  hasDelta: boolean;
}

export interface Pool {
  readonly sessions: readonly LoadSession[];
  /** One after another in small batches. Rejects when one is refused. */
  open(command: CommandOf<'open'>): Promise<number>;
  send(session: LoadSession): void;
  watch(watcher: TurnWatcher): void;
  close(): Promise<number>;
}

/** Sessions that shake hands at once: more overflow a listen backlog. */
const HANDSHAKES = 50;
const MESSAGE = 'Tell me about the harbour at dawn.';

export function createPool(): Pool {
  let sessions: LoadSession[] = [];
  let watcher: TurnWatcher | undefined;
  let sendFrame: Buffer = Buffer.alloc(0);
  let live = 0;
  let allClosed: (() => void) | undefined;

  async function openOne(command: CommandOf<'open'>, session: LoadSession): Promise<void> {
    const path = `/ws/${command.tenant}/${command.prefix}${session.index}${command.query}`;
    session.socket = await openSession(command.dialect, command.port, path, {
      frame(kind, bytes, start, end) {
        if (kind === KIND.delta) {
          if (watcher?.token) stamps(session, bytes, start, end);
          if (session.hasDelta) return;
          session.hasDelta = true;
          watcher?.firstDelta(session, performance.now() - (session.sentMs[0] ?? Number.NaN));
        } else if (kind === KIND.response || kind === KIND.cancelled) {
          session.hasDelta = false;
          session.accepted = Math.max(0, session.accepted - 1);
          const sentMs = session.sentMs.shift();
          if (sentMs !== undefined) watcher?.ended(session, performance.now() - sentMs);
        } else if (kind === KIND.accepted) {
          const sentMs = session.sentMs[session.accepted];
          session.accepted += 1;
          if (sentMs !== undefined) watcher?.accepted(session, performance.now() - sentMs);
        } else if (kind === KIND.error) {
          // Refusals overtake the turns before them; which one was refused does not matter to a load.
          if (session.sentMs.length === 1) session.hasDelta = false;
          session.sentMs.pop();
          session.accepted = Math.min(session.accepted, session.sentMs.length);
          watcher?.failed(session, bytes.toString('utf8', start, end));
        }
      },
      closed() {
        session.socket = undefined;
        session.sentMs = [];
        session.accepted = 0;
        live -= 1;
        watcher?.lost(session);
        if (live === 0) allClosed?.();
      },
    });
    live += 1;
  }

  /** A frame may carry several tokens. */
  function stamps(session: LoadSession, bytes: Buffer, start: number, end: number): void {
    const nowUs = stampNowUs();
    let askedUs = Number.NaN;
    for (let at = start; at < end; at++) {
      const byte = bytes[at];
      if (byte === MARK.asked) askedUs = stampAt(bytes, at);
      if (byte !== MARK.token) continue;
      const writtenUs = stampAt(bytes, at);
      const tookMs = Number.isNaN(askedUs) ? undefined : msBetween(askedUs, writtenUs);
      const sentMs = session.sentMs[0] ?? Number.NaN;
      watcher?.token?.(msBetween(writtenUs, nowUs), tookMs, performance.now() - sentMs);
      askedUs = Number.NaN;
      at += STAMP_LENGTH - 1;
    }
  }

  return {
    get sessions() {
      return sessions;
    },
    async open(command) {
      sendFrame = encoded(command.dialect, 'chat.send', { message: MESSAGE });
      const opening = Array.from(
        { length: command.count },
        (_, i): LoadSession => ({
          index: i,
          socket: undefined,
          sentMs: [],
          accepted: 0,
          hasDelta: false,
        }),
      );
      for (let from = 0; from < opening.length; from += HANDSHAKES) {
        await Promise.all(opening.slice(from, from + HANDSHAKES).map((session) => openOne(command, session)));
      }
      sessions = [...sessions, ...opening];
      return sessions.length;
    },
    send(session) {
      session.sentMs.push(performance.now());
      session.socket?.write(sendFrame);
    },
    watch(next) {
      watcher = next;
    },
    async close() {
      const closing = sessions;
      sessions = [];
      watcher = undefined;
      if (live > 0) {
        const closed = new Promise<void>((resolve) => {
          allClosed = resolve;
        });
        for (const session of closing) session.socket?.close();
        await closed;
      }
      return closing.length;
    },
  };
}
