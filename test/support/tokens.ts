/** Bearer tokens for nodes in jwt mode, and what lets them in. */
import { SignJWT } from 'jose';
import type { Clock } from '../../src/ports/telemetry.ts';
import { type Access, type AccessSettings, createAccess } from '../../transports/wire/access.ts';
import type { Env } from './node.ts';

const SECRET = 'a secret of at least thirty-two characters';

/** Who gets into a part of a node that takes these tokens, or in open mode anybody. */
export const accessIn = (mode: AccessSettings['mode'], clock: Clock): Access =>
  createAccess(
    { mode, jwtSecret: SECRET, jwksUrl: undefined, issuer: undefined, audience: undefined },
    clock,
  );

/** Settings of a node that takes these tokens. */
export const JWT: Env = { AUTH_MODE: 'jwt', AUTH_JWT_SECRET: SECRET };

export interface TokenOptions {
  readonly tier?: string;
  readonly scope?: string;
  readonly user?: string;
  /** Seconds from now; negative for one that has expired. */
  readonly expiresInS?: number;
  readonly secret?: string;
}

/** A token for the tenant: scope `chat`, an hour, professional, unless said otherwise. */
export function token(tenant: string, options: TokenOptions = {}): Promise<string> {
  const { tier = 'professional', scope = 'chat', user, expiresInS = 3_600, secret = SECRET } = options;
  return new SignJWT({ tenant_id: tenant, tier, scope, ...(user === undefined ? {} : { sub: user }) })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(Math.floor(Date.now() / 1000) + expiresInS)
    .sign(new TextEncoder().encode(secret));
}

export const bearer = async (tenant: string, options?: TokenOptions): Promise<Record<string, string>> => ({
  authorization: `Bearer ${await token(tenant, options)}`,
});
