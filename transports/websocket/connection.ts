/** The sending half of a socket: gathers frames, writes them once a loop turn, and gives up on clients that do not read. */
import { CLOSE, type Close, type ErrorData } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import { type TaskId, type TenantId, tenantIdSchema } from '../../src/domain/ids.ts';
import { LoopShare } from '../../src/domain/loop-share.ts';
import type { Client } from '../../src/ports/sessions.ts';
import { encodeFrame, encodeSnapshot, type Format, type SnapshotFrame } from '../wire/codec.ts';
import { createUnsentBytes, type UnsentAccount, type UnsentBytes } from '../wire/unsent-bytes.ts';

/** Bytes written but not yet taken by the client; beyond this it counts as too slow. */
export const MAX_BUFFERED_BYTES = 1024 * 1024;
/** Gathered bytes (UTF-16 units of JSON); beyond this they are written before the loop turn ends. */
const MAX_GATHERED_BYTES = 256 * 1024;
/** Frames that wait, as they are, for room to write a snapshot or a replay. */
const MAX_HELD_FRAMES = 4_000;
/** UTF-16 units of text that are written to one client in one turn of the loop while it catches up; more takes several. */
const CATCH_UP_UNITS = 64 * 1024;
/** Clients that are brought up to date in one turn of the loop, where that takes more than a little. */
const CATCH_UPS_PER_TURN = 1;
/** What is no more is written at once. */
const LITTLE_UNITS = 8 * 1024;
/** How long a client that was too slow may take to read its buffer, and so learn why it is closed. */
export const SLOW_GRACE_MS = 5_000;

/** What this file needs of a uWebSockets.js socket. */
export interface RawSocket {
  send(data: string | Uint8Array, isBinary: boolean): number;
  getBufferedAmount(): number;
  ping(): number;
  /** Packs what `write` sends into one system call. */
  cork(write: () => void): unknown;
  end(code: number, reason: string): void;
  close(): void;
}

export interface SocketClient extends Client {
  /** When it fell too far behind (performance.now()), or undefined. It is sent nothing more, and is to be closed. */
  readonly stalledAtMs: number | undefined;
  /** Asks for a sign of life. */
  ping(): void;
  /** Looks whether too much is buffered; for writes that did not come through `send` (pongs). */
  checkPressure(): void;
  /** The socket has taken some of its buffer. */
  drained(): void;
  /** The socket is gone: frames sent to the client from now on are dropped. */
  gone(): void;
}

/** A refusal to this client alone: an `error` frame without a number. */
export const errorFrame = (error: ErrorData, taskId: TaskId | undefined, atMs: number): Frame => ({
  type: 'error',
  seq: undefined,
  atMs,
  taskId,
  data: error,
});

interface SocketClientOptions {
  readonly id: string;
  /** Whose unsent bytes it adds to; absent of one that is refused. */
  readonly tenantId?: TenantId | undefined;
  readonly format: Format;
  readonly deltaWindowMs: number;
  readonly reasoning: boolean;
  /** Called once, when the client has become too slow. */
  readonly onStalled: () => void;
}

/** Makes the clients of one port. They share one list of clients to flush, worked off once a loop turn. */
export function createSocketClients(
  unsent: UnsentBytes = createUnsentBytes(),
): (socket: RawSocket, options: SocketClientOptions) => SocketClient {
  let dirty: Connection[] = [];
  const flushAll = (): void => {
    const batch = dirty;
    dirty = [];
    for (const client of batch) client.flushAtTurnsEnd();
  };
  const atTurnsEnd = (client: Connection): void => {
    if (dirty.push(client) === 1) setImmediate(flushAll);
  };
  const catchUps = new LoopShare(CATCH_UPS_PER_TURN);
  return (socket, options) => new Connection(socket, options, { unsent, catchUps, atTurnsEnd });
}

/** What the clients of a port share. */
interface SharedParts {
  readonly unsent: UnsentBytes;
  /** Whose turn it is to be brought up to date. */
  readonly catchUps: LoopShare;
  readonly atTurnsEnd: (client: Connection) => void;
}

/** A class, as there are tens of thousands of them: a closure for each method would cost as much as all they hold. */
class Connection implements SocketClient {
  readonly id: string;
  readonly deltaWindowMs: number;
  readonly reasoning: boolean;
  readonly #socket: RawSocket;
  readonly #format: Format;
  readonly #onStalled: () => void;
  readonly #shared: SharedParts;
  readonly #tenantId: TenantId | undefined;
  #state: 'open' | 'stalled' | 'closed' = 'open';
  stalledAtMs: number | undefined;
  /** The frames of one loop turn, encoded and not yet written. */
  #gathered: (string | Uint8Array)[] = [];
  #gatheredBytes = 0;
  /**
   * Attaching brings a snapshot or a replay, which may be larger than a healthy connection takes at once: until the
   * client has caught up, what is buffered counts as none.
   */
  #isCatchingUp = true;
  #limit = MAX_BUFFERED_BYTES;
  readonly #unsent: UnsentAccount;
  /** Frames behind `session.ready` that wait for room, or for their turn; undefined while there are none. */
  #held: Frame[] | undefined;
  /** The rest of a snapshot that is being encoded, and its bytes so far. */
  #snapshot: { readonly rest: Iterator<Uint8Array, void>; readonly pieces: Uint8Array[] } | undefined;

  constructor(
    socket: RawSocket,
    { id, tenantId, format, deltaWindowMs, reasoning, onStalled }: SocketClientOptions,
    shared: SharedParts,
  ) {
    this.id = id;
    this.deltaWindowMs = deltaWindowMs;
    this.reasoning = reasoning;
    this.#socket = socket;
    this.#format = format;
    this.#onStalled = onStalled;
    this.#shared = shared;
    this.#tenantId = tenantId;
    this.#unsent = shared.unsent.open(tenantId, () => this.#cutOff());
  }

  /** The frame is encoded at once: the session's other sockets are given it next. */
  send(frame: Frame): void {
    if (this.#state !== 'open') return;
    if (this.#held) {
      if (this.#held.push(frame) > MAX_HELD_FRAMES) this.#cutOff();
      return;
    }
    if (frame.type === 'session.ready') {
      this.#isCatchingUp = true;
      if (!this.#unsent.hasRoom()) this.#hold();
      else if (Reflect.get(frame.data ?? {}, 'recovered') !== undefined) {
        this.#held = [];
        queueMicrotask(() => this.#catchUp());
      }
    }
    this.#gather(encodeFrame(frame, this.#format));
  }

  #gather(data: string | Uint8Array): void {
    this.#gatheredBytes += data.length;
    if (this.#gathered.push(data) === 1) this.#shared.atTurnsEnd(this);
    if (this.#gatheredBytes > MAX_GATHERED_BYTES) this.#flush();
  }

  /** What follows is written when its tenant and the node have room for it: until then it is no bytes. */
  #hold(): void {
    this.#held = [];
    this.#unsent.whenRoom(() => this.#catchUp());
  }

  /** Writes what is held: little at once, more in turns of the loop that clients take one after the other. */
  #catchUp(): void {
    if (!this.#held) return;
    if (unitsOf(this.#held, LITTLE_UNITS) > LITTLE_UNITS) this.#inTurn();
    else this.#step(Number.POSITIVE_INFINITY);
  }

  #inTurn(): void {
    this.#shared.catchUps.soon(this.#tenantId ?? NOBODYS, () => {
      // Those before it may have taken the room.
      if (this.#unsent.hasRoom()) this.#step(CATCH_UP_UNITS);
      else this.#unsent.whenRoom(() => this.#inTurn());
    });
  }

  /** Writes about so many units of what is held; one client is brought up to date before the next. */
  #step(units: number): void {
    this.#isCatchingUp = true;
    let written = 0;
    while (this.#isOpen() && this.#held) {
      if (written >= units) return this.#shared.catchUps.goOn(() => this.#step(units));
      if (this.#snapshot) written += this.#snapshotStep(this.#snapshot, units - written);
      else {
        const frame = this.#held.shift();
        if (!frame) {
          this.#held = undefined;
          return;
        }
        if (isSnapshot(frame) && units < Number.POSITIVE_INFINITY)
          this.#snapshot = { rest: encodeSnapshot(frame, this.#format), pieces: [] };
        else {
          const data = encodeFrame(frame, this.#format);
          written += data.length;
          this.#gather(data);
        }
      }
    }
  }

  /** Encodes about so many units of a snapshot more, and writes it where it is whole. Returns how many those were. */
  #snapshotStep(snapshot: { rest: Iterator<Uint8Array, void>; pieces: Uint8Array[] }, units: number): number {
    let encoded = 0;
    while (encoded < units) {
      const { value, done } = snapshot.rest.next();
      if (done) {
        this.#snapshot = undefined;
        this.#gather(Buffer.concat(snapshot.pieces));
        break;
      }
      encoded += value.length;
      snapshot.pieces.push(value);
    }
    return encoded;
  }

  flushAtTurnsEnd(): void {
    this.#flush();
    this.#isCatchingUp = false;
  }

  /** Writes what is gathered in one cork. */
  #flush(): void {
    if (this.#state !== 'open' || this.#gathered.length === 0) return;
    const batch = this.#gathered;
    const isBinary = this.#format === 'msgpack';
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#socket.cork(() => {
      for (const data of batch) this.#socket.send(data, isBinary);
    });
    this.checkPressure();
  }

  #clear(): void {
    this.#held = undefined;
    this.#snapshot = undefined;
    this.#gathered = [];
    this.#gatheredBytes = 0;
  }

  checkPressure(): void {
    if (this.#state !== 'open') return;
    const buffered = this.#socket.getBufferedAmount();
    this.#unsent.set(buffered);
    // Cut off by that, perhaps.
    if (!this.#isOpen()) return;
    if (this.#isCatchingUp) this.#limit = MAX_BUFFERED_BYTES + buffered;
    if (buffered > this.#limit) this.#stall();
  }

  #isOpen(): boolean {
    return this.#state === 'open';
  }

  #stall(): void {
    this.#state = 'stalled';
    this.stalledAtMs = performance.now();
    this.#clear();
    this.#onStalled();
  }

  /** It holds what others wait for. */
  #cutOff(): void {
    if (this.#state === 'open') this.#stall();
    this.close(CLOSE.tooSlow);
  }

  /** Once nothing is left in the buffer, the limit is the usual one again. */
  drained(): void {
    const buffered = this.#socket.getBufferedAmount();
    this.#unsent.set(buffered);
    if (buffered > 0) return;
    this.#limit = MAX_BUFFERED_BYTES;
    if (this.#state !== 'stalled') return;
    this.#state = 'closed';
    this.#socket.end(CLOSE.tooSlow.code, CLOSE.tooSlow.reason);
  }

  close(close: Close): void {
    if (this.#state === 'closed') return;
    this.#flush();
    this.#state = 'closed';
    // Behind a full buffer a close frame would wait, and keep the buffer, for as long as the client likes.
    if (this.stalledAtMs !== undefined) this.#socket.close();
    else this.#socket.end(close.code, close.reason);
  }

  ping(): void {
    if (this.#state === 'open') this.#socket.ping();
  }

  gone(): void {
    this.#state = 'closed';
    this.#clear();
    this.#unsent.close();
  }
}

/** Sockets that are refused have no tenant; they are brought up to nothing. */
const NOBODYS = tenantIdSchema.parse('nobody');

const isSnapshot = (frame: Frame): frame is SnapshotFrame =>
  frame.type === 'session.snapshot' && Array.isArray(Reflect.get(frame.data ?? {}, 'messages'));

/** About how many units frames have; beyond `enough` it is not counted on. */
function unitsOf(frames: readonly Frame[], enough: number): number {
  let units = 0;
  for (const frame of frames) {
    const texts = isSnapshot(frame) ? frame.data.messages : [frame.data];
    for (const text of texts) {
      const content: unknown =
        typeof text === 'object' && text !== null ? Reflect.get(text, 'content') : undefined;
      units += FRAME_UNITS + (typeof content === 'string' ? content.length : 0);
      if (units > enough) return units;
    }
  }
  return units;
}

/** What a frame has beside its text. */
const FRAME_UNITS = 100;
