/** What the agent management routes have in common: who asks, raw bodies, refusals with issues, versions as ETags. */
import type { z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import type { Actor, Page, RuleIssue } from '../../src/ports/management.ts';
import { type HttpEnv, refuse } from './errors.ts';

/** Issues named in one refusal. */
const MAX_ISSUES = 50;
/** The command line says so, for the audit; it claims no right by it. */
const CLI_AGENT = /^nooble-cli\b/;

/** Who asks, for the audit: the token's subject, or the user that an open node is told. */
export function actorOf(c: Context<HttpEnv>): Actor {
  const { tenantId, tier, userId } = c.get('caller');
  const source = CLI_AGENT.test(c.req.header('user-agent') ?? '') ? 'cli' : 'api';
  return { tenantId, tier, actor: userId ?? 'anonymous', source };
}

/** The body as it was sent. Rejects with INVALID_REQUEST where it is no JSON. */
export async function rawBody(c: Context<HttpEnv>): Promise<unknown> {
  try {
    return await c.req.json();
  } catch {
    throw new RefusalError(refusal('INVALID_REQUEST', { message: 'The body is not valid JSON.' }));
  }
}

/** The body's own fields without `name`, and that field; a body that is no object stays whole. */
export function takeOut(body: unknown, name: string): { readonly rest: unknown; readonly taken: unknown } {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    return { rest: body, taken: undefined };
  const entries = Object.entries(body);
  return {
    rest: Object.fromEntries(entries.filter(([key]) => key !== name)),
    taken: entries.find(([key]) => key === name)?.[1],
  };
}

/** What a schema found, in the form that agent management gives to its own findings. */
export function invalidWithIssues(error: z.core.$ZodError, where: string): ErrorData {
  const issues: RuleIssue[] = error.issues.slice(0, MAX_ISSUES).map((issue) => ({
    field: issue.path.join('.') || where,
    rule: issue.code,
    message: issue.message,
  }));
  const message = issues.map((issue) => `${issue.field}: ${issue.message}`).join('; ');
  return refusal('INVALID_REQUEST', { message, details: { issues } });
}

/** The hook of routes whose small bodies are read at the edge. */
export function refuseIssues(
  result: { success: boolean; target: string; error?: z.core.$ZodError },
  c: Context<HttpEnv>,
) {
  return result.error ? refuse(c, invalidWithIssues(result.error, result.target)) : undefined;
}

/** Tells the version that a later If-Match must name. */
export const tag = (c: Context<HttpEnv>, { version }: { readonly version: number }): void =>
  c.header('ETag', `"${version}"`);

/** A page as lists answer it. */
export const pageBody = <T>(
  query: { readonly page: number; readonly page_size: number },
  { items, total }: Page<T>,
) => ({ items: [...items], page: query.page, page_size: query.page_size, total });

/** The body of a request as OpenAPI describes it, by the name of a registered schema; nothing checks it here. */
export const described = (name: string) => ({
  body: {
    required: true,
    content: { 'application/json': { schema: { $ref: `#/components/schemas/${name}` } } },
  },
});
