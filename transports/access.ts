/** Who is asking: open mode trusts headers, jwt mode trusts a verified token (PROTOCOL 1). */
import type { ErrorData } from '../src/domain/errors.ts';
import type { Caller } from '../src/ports.ts';

export type Scope = 'chat' | 'agents:read' | 'agents:write' | 'metrics' | 'admin';

export interface Credentials {
  /** The bearer token, wherever it travelled; undefined when there is none. */
  readonly bearer: string | undefined;
  /** A request header by its lower-case name; undefined when absent or empty. */
  readonly header: (name: string) => string | undefined;
  /** What the path or the query names; must agree with the token in jwt mode. */
  readonly tenantId?: string | undefined;
  readonly tier?: string | undefined;
  readonly userId?: string | undefined;
}

export type Admitted = {
  readonly caller: Caller;
  readonly scopes: ReadonlySet<Scope>;
  /** When the token expires, ms since the epoch; undefined in open mode. */
  readonly expiresAtMs: number | undefined;
};

export type AccessReply =
  | { readonly ok: true; readonly admitted: Admitted }
  | { readonly ok: false; readonly error: ErrorData };

/** Resolves to a refusal (UNAUTHENTICATED, FORBIDDEN, INVALID_REQUEST), never rejects. `admin` implies every scope. */
export interface Access {
  check(credentials: Credentials, needs: Scope): AccessReply | Promise<AccessReply>;
}
