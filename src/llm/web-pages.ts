/** Finds base URLs that lead to a web page instead of a model: the commonest slip, which a run shows only as an odd answer. */
import {
  completionsUrl,
  headersOf,
  modelsUrl,
  type ProviderConfig,
  type ProviderTable,
} from '../domain/providers.ts';
import { READY_MADE } from '../domain/ready-made-providers.ts';

const TIMEOUT_MS = 5_000;
/** So much of an answer is looked at. */
const MAX_LOOK_BYTES = 1_024;

/**
 * One warning for each address that somebody has set and that answers with HTML, where it lists its models and where it
 * is asked. Asks no model anything: the request is one that no endpoint can answer. Never rejects; what can not be
 * reached is another trouble, and may pass.
 */
export async function webPageWarnings(providers: ProviderTable): Promise<readonly string[]> {
  const asked = [...providers.values()].filter(
    ({ name, baseUrl, missing }) =>
      missing === undefined && baseUrl !== undefined && baseUrl !== READY_MADE[name]?.baseUrl,
  );
  const found = await Promise.all(asked.map(warningOf));
  return found.flatMap((warning) => warning ?? []);
}

async function warningOf(provider: ProviderConfig): Promise<string | undefined> {
  const [list, completions] = [modelsUrl(provider), completionsUrl(provider, provider.model ?? 'none')];
  if (!list || !completions) return undefined;
  const isPage =
    (await answersPage(provider, list, 'GET')) && (await answersPage(provider, completions, 'POST'));
  if (!isPage) return undefined;
  const { name, variables } = provider;
  return `${variables.address}: the address of ${name} answers with a web page, not as a model's does; is its path right (often /v1)?`;
}

async function answersPage(provider: ProviderConfig, url: URL, method: 'GET' | 'POST'): Promise<boolean> {
  try {
    const response = await fetch(url, {
      method,
      headers: {
        ...headersOf(provider),
        ...(method === 'POST' ? { 'content-type': 'application/json' } : {}),
      },
      ...(method === 'POST' ? { body: '{}' } : {}),
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const type = response.headers.get('content-type') ?? '';
    return /^text\/html\b/i.test(type.trim()) || /^\s*</.test(await beginningOf(response));
  } catch {
    return false;
  }
}

async function beginningOf({ body }: Response): Promise<string> {
  if (!body) return '';
  let text = '';
  const decoder = new TextDecoder();
  for await (const chunk of body) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length >= MAX_LOOK_BYTES) break;
  }
  return text;
}
