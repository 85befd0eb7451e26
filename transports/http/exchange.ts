/** What passes between the uWS adapter and the routes: a fetch Request, and what the adapter alone knows of it. */
import type { ErrorData } from '../../src/domain/errors.ts';

/** What the adapter knows of a request beyond the Request itself. */
export interface Exchange {
  /** Aborted when the client is gone before the response was. */
  readonly signal: AbortSignal;
  /** Why the request must be refused whatever its route: its body is too large, or it cannot be represented. */
  readonly refused: ErrorData | undefined;
}

/** Answers a request. May be called with a refused one: then the answer is that refusal. */
export type Answer = (request: Request, exchange: Exchange) => Response | Promise<Response>;
