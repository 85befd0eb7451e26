/** Speaks to a running node over HTTP; every failure becomes one line of advice. */
import { z } from 'zod';
import { type CliDeps, CommandError, textOf } from './command.ts';
import type { Parsed } from './options.ts';

const DEFAULT_URL = 'http://127.0.0.1:8000';
const TIMEOUT_MS = 30_000;
const PAGE_SIZE = 100;

interface NodeAnswer {
  readonly status: number;
  readonly body: unknown;
}

interface NodeRequest {
  readonly method?: string;
  readonly body?: unknown;
  readonly ifMatch?: number;
  /** Statuses beside 2xx that the command knows what to do with. */
  readonly accept?: readonly number[];
}

export interface NodeClient {
  readonly url: string;
  /** Rejects with a CommandError for every answer that the command does not accept. */
  ask(path: string, request?: NodeRequest): Promise<NodeAnswer>;
  /** All items of a paged list. */
  all(path: string): Promise<readonly unknown[]>;
}

/** What the two kinds of routes ask for: a tenant's token and headers, or the service token. */
type Identity = 'tenant' | 'service';

/** A client of the node at --url or NOOBLE_URL. */
export function createNodeClient(deps: CliDeps, { options }: Parsed, identity: Identity): NodeClient {
  const { environment } = deps;
  const url = (options.url ?? environment.NOOBLE_URL ?? DEFAULT_URL).replace(/\/+$/, '');
  if (!/^https?:\/\//.test(url) || !URL.canParse(url))
    throw new CommandError(`${url} is no address of a node; set NOOBLE_URL or --url to http://host:port.`, 2);
  const headers = { ...identityHeaders(deps, options, identity), 'user-agent': 'nooble-cli' };

  async function ask(path: string, request: NodeRequest = {}): Promise<NodeAnswer> {
    const { method = 'GET', body, ifMatch } = request;
    const init: RequestInit = {
      method,
      headers: {
        ...headers,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(ifMatch === undefined ? {} : { 'if-match': `"${ifMatch}"` }),
      },
      // A redirect would carry the token elsewhere.
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    };
    const response = await fetch(url + path, init).catch((error: unknown) => {
      throw new CommandError(`${url} does not answer (${reasonOf(error)}); is the node running there?`);
    });
    const text = await response.text();
    const answer = { status: response.status, body: parsed(text) };
    if (response.ok || request.accept?.includes(response.status)) return answer;
    throw new CommandError(refusalText(answer, url, identity));
  }

  return {
    url,
    ask,
    async all(path) {
      const items: unknown[] = [];
      let place = 'page=1';
      for (let page = 2; ; page += 1) {
        const joint = path.includes('?') ? '&' : '?';
        const { body } = await ask(`${path}${joint}${place}&page_size=${PAGE_SIZE}`);
        const list = pageSchema.safeParse(body);
        if (!list.success) throw new CommandError(`${url} does not answer as a node of Nooble does.`);
        items.push(...list.data.items);
        const { next, total } = list.data;
        if (list.data.items.length === 0 || (next === undefined && items.length >= total)) return items;
        // An older node tells no place.
        place = next === undefined ? `page=${page}` : `after=${encodeURIComponent(next)}`;
      }
    },
  };
}

const pageSchema = z.object({ items: z.array(z.unknown()), total: z.number(), next: z.string().optional() });

function identityHeaders(
  { environment }: CliDeps,
  options: Parsed['options'],
  identity: Identity,
): Record<string, string> {
  if (identity === 'service') {
    const token = environment.SERVICE_TOKEN;
    if (!token) throw new CommandError('SERVICE_TOKEN is not set; give it the value that the node has.', 2);
    return { authorization: `Bearer ${token}` };
  }
  const tenant = options.tenant ?? environment.NOOBLE_TENANT;
  const token = environment.NOOBLE_TOKEN;
  return {
    ...(token ? { authorization: `Bearer ${token}` } : {}),
    ...(tenant ? { 'x-tenant-id': tenant } : {}),
    ...(options.tier ? { 'x-tenant-tier': options.tier } : {}),
  };
}

const errorSchema = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    details: z
      .object({
        issues: z.array(z.object({ field: z.string(), message: z.string(), tier: z.string().optional() })),
      })
      .optional()
      .catch(undefined),
  }),
});

function refusalText({ status, body }: NodeAnswer, url: string, identity: Identity): string {
  const refused = errorSchema.safeParse(body);
  if (!refused.success) return `${url} answered ${status}, not as a node of Nooble does.`;
  const { code, message, details } = refused.data.error;
  const issues = details?.issues ?? [];
  if (issues.length === 0) return `${code}: ${message}${advice(code, message, identity)}`;
  const lines = issues.map(
    ({ field, message: problem, tier }) => `  ${field}: ${problem}${tier ? ` (tier ${tier} allows it)` : ''}`,
  );
  return [`${code}:`, ...lines].join('\n');
}

function advice(code: string, message: string, identity: Identity): string {
  if (identity === 'service') return code === 'UNAUTHENTICATED' ? ' SERVICE_TOKEN is not the node’s.' : '';
  if (code === 'UNAUTHENTICATED' || code === 'FORBIDDEN') return ' Put a token into NOOBLE_TOKEN.';
  return message.startsWith('No tenant') ? ' Or name it: --tenant, or NOOBLE_TENANT.' : '';
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** fetch hides what happened in the cause. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  if (cause instanceof Error && 'code' in cause) return String(cause.code);
  return textOf(cause ?? error);
}
