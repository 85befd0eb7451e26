/** One response of a uWS app from its first byte to its end, or to the client's going: the only place that touches it. */

/** What this file needs of a uWebSockets.js response. */
interface RawResponse {
  cork(write: () => void): unknown;
  onAborted(gone: () => void): unknown;
}

/** One response that may still be written to, until it has ended or the client is gone. */
export interface ResponseWriter<R extends RawResponse> {
  readonly res: R;
  readonly signal: AbortSignal;
  /** `deed` runs once, whichever way the exchange ends; at once where it has. */
  onEnd(deed: () => void): void;
  /** Runs `write` corked unless the client is gone; nothing else may touch `res`. */
  write(write: (res: R) => void): void;
  /** Resolves at the next `becameWritable`, or when the client is gone. */
  untilWritable(): Promise<void>;
  becameWritable(): void;
  /** After the last write. */
  ended(): void;
}

/** `left` is called once, when the exchange is over. */
export function openWriter<R extends RawResponse>(res: R, left: () => void): ResponseWriter<R> {
  const aborter = new AbortController();
  const deeds: (() => void)[] = [];
  let waiting = (): void => {};
  let over = false;
  const leave = (): void => {
    over = true;
    left();
    for (const deed of deeds) deed();
    waiting();
  };
  const writer: ResponseWriter<R> = {
    res,
    signal: aborter.signal,
    onEnd(deed) {
      if (over) deed();
      else deeds.push(deed);
    },
    write(write) {
      if (!over) res.cork(() => write(res));
    },
    untilWritable: () =>
      new Promise((resolve) => {
        waiting = resolve;
        if (over) resolve();
      }),
    becameWritable: () => waiting(),
    ended: () => {
      if (!over) leave();
    },
  };
  res.onAborted(() => {
    if (over) return;
    aborter.abort();
    leave();
  });
  return writer;
}
