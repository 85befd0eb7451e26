/** The model providers of a node: the ready-made ones and those of the operator's file, with what the environment says. */
import { isOfflineModel, noOfflineModel } from './models.ts';
import type { ProviderEntry } from './providers-file.ts';
import { isHttpUrl, type Quirks, READY_MADE, type ReadyMade } from './ready-made-providers.ts';

/** A provider that is reached over HTTP. Its key is for requests only: it stands in no log, answer or error. */
export interface ProviderConfig extends Quirks {
  readonly name: string;
  /** Undefined where nobody has said where it is. */
  readonly baseUrl: string | undefined;
  readonly apiKey: string | undefined;
  /** Which header carries the key. */
  readonly keyHeader: 'authorization' | 'api-key';
  /** Each model has an address of its own, as on Azure. */
  readonly deployments: boolean;
  /** The model that is meant where none is named. */
  readonly model: string | undefined;
  /** What an operator looks at where the key is refused, or nobody is at the address. */
  readonly variables: { readonly key: string; readonly address: string };
  /** A variable that has to be set before it can answer. */
  readonly missing: string | undefined;
}

export type ProviderTable = ReadonlyMap<string, ProviderConfig>;

/** The variable that each provider lacks, by the names that an agent may give; undefined: it could answer. */
export type KnownProviders = ReadonlyMap<string, string | undefined>;

/** Azure's API as it was when it became stable. */
const AZURE_API_VERSION = '2024-10-21';

const NO_QUIRKS: Quirks = {
  dialect: 'openai',
  without: [],
  limitField: undefined,
  // Of every provider: behind any address there may be a server that leaves tags where they are, and nobody else begins so.
  thinkTags: 'read',
  headers: {},
  query: {},
};

type Environment = Readonly<Record<string, string | undefined>>;

export interface Configured {
  readonly providers: ProviderTable;
  /** Wrong variables, each by its name; never with its value. */
  readonly problems: readonly string[];
}

/** Every provider of a node. What the environment has must be set, and not blank. */
export function configureProviders(environment: Environment, entries: readonly ProviderEntry[]): Configured {
  const problems: string[] = [];
  const read = createReader(environment, problems);
  const all = [
    ...Object.entries(READY_MADE).map(([name, ready]) => readyMade(name, ready, read)),
    azure(read),
    ...entries.map((entry) => named(entry, read)),
  ];
  return { providers: new Map(all.map((provider) => [provider.name, provider])), problems };
}

/** Reads one variable, and notes what is wrong with it. */
interface Reader {
  key(variable: string): string | undefined;
  url(variable: string): string | undefined;
  text(variable: string): string | undefined;
}

function createReader(environment: Environment, problems: string[]): Reader {
  const checked = (isRight: (value: string) => boolean, problem: string) => (variable: string) => {
    const value = environment[variable]?.trim();
    if (value === undefined || value === '') return undefined;
    if (isRight(value)) return value;
    problems.push(`${variable}: ${problem}`);
    return undefined;
  };
  return {
    key: checked((value) => /^[!-~]+$/.test(value), 'must be printable ASCII without blanks'),
    url: checked(isHttpUrl, 'must be a URL that starts with http:// or https://'),
    text: checked((value) => value.length <= 200, 'must have at most 200 characters'),
  };
}

function readyMade(name: string, ready: ReadyMade, read: Reader): ProviderConfig {
  const variable = name.toUpperCase();
  const own = read.url(`${variable}_BASE_URL`);
  const apiKey = read.key(`${variable}_API_KEY`);
  const baseUrl = own ?? ready.baseUrl;
  // An address of the operator's own may be one without keys.
  const needsKey = !ready.keyless && own === undefined && apiKey === undefined;
  return {
    ...NO_QUIRKS,
    ...ready.quirks,
    name,
    baseUrl: baseUrl === undefined ? undefined : completed(name, baseUrl, ready.path),
    apiKey,
    keyHeader: 'authorization',
    deployments: false,
    model: ready.model,
    variables: { key: `${variable}_API_KEY`, address: `${variable}_BASE_URL` },
    missing: baseUrl === undefined ? `${variable}_BASE_URL` : needsKey ? `${variable}_API_KEY` : undefined,
  };
}

/** A base URL as it is meant. Groq's is named with and without the path that its own client adds. */
function completed(name: string, baseUrl: string, path: string | undefined): string {
  if (name === 'groq') return `${trimmed(baseUrl).replace(/\/openai\/v1$/, '')}/openai/v1`;
  if (path === undefined) return baseUrl;
  const url = new URL(baseUrl);
  if (url.pathname === '/') url.pathname = path;
  return url.href;
}

const trimmed = (url: string): string => url.replace(/\/+$/, '');

function azure(read: Reader): ProviderConfig {
  const endpoint = read.url('AZURE_OPENAI_ENDPOINT');
  const apiKey = read.key('AZURE_OPENAI_API_KEY');
  const token = read.key('AZURE_OPENAI_AD_TOKEN');
  const version = read.text('AZURE_OPENAI_API_VERSION') ?? AZURE_API_VERSION;
  const isKnown = apiKey !== undefined || token !== undefined;
  return {
    ...NO_QUIRKS,
    query: { 'api-version': version },
    name: 'azure',
    baseUrl: endpoint === undefined ? undefined : `${trimmed(endpoint).replace(/\/openai$/, '')}/openai`,
    apiKey: apiKey ?? token,
    keyHeader: apiKey === undefined ? 'authorization' : 'api-key',
    deployments: true,
    model: undefined,
    variables: { key: 'AZURE_OPENAI_API_KEY', address: 'AZURE_OPENAI_ENDPOINT' },
    missing: endpoint === undefined ? 'AZURE_OPENAI_ENDPOINT' : isKnown ? undefined : 'AZURE_OPENAI_API_KEY',
  };
}

function named(entry: ProviderEntry, read: Reader): ProviderConfig {
  const variable = entry.api_key_env;
  const apiKey = variable === undefined ? undefined : read.key(variable);
  return {
    dialect: entry.dialect,
    without: entry.without,
    limitField: entry.limit_field,
    thinkTags: entry.think_tags,
    headers: entry.headers,
    query: entry.query,
    name: entry.name,
    baseUrl: entry.base_url,
    apiKey,
    keyHeader: 'authorization',
    deployments: false,
    model: entry.model,
    variables: { key: variable ?? 'PROVIDERS_FILE', address: 'PROVIDERS_FILE' },
    missing: apiKey === undefined ? variable : undefined,
  };
}

/** What is wrong with the provider and model of the agent `default`, where the environment names them. */
export function defaultProblems(
  name: string | undefined,
  model: string | undefined,
  { providers, problems: found }: Configured,
): readonly string[] {
  if (name === undefined || name === 'offline') return [];
  const provider = providers.get(name);
  if (!provider)
    return [
      `DEFAULT_PROVIDER: there is no provider ${name}; there are ${[...providers.keys()].join(', ')}, offline`,
    ];
  const { missing, variables } = provider;
  const problems: string[] = [];
  const isKnown = found.some((each) =>
    Object.values(variables).some((variable) => each.startsWith(`${variable}:`)),
  );
  if (missing !== undefined && !isKnown) {
    const or =
      Object.hasOwn(READY_MADE, name) && missing === variables.key
        ? ` (or ${variables.address}, for an endpoint without keys)`
        : '';
    problems.push(`${missing}: DEFAULT_PROVIDER=${name} needs it${or}`);
  }
  if (provider.model === undefined && model === undefined)
    problems.push(`DEFAULT_MODEL: DEFAULT_PROVIDER=${name} needs it`);
  return problems;
}

/** What keeps the agent `default` from answering, though the node can start. `named` is the provider that somebody has set. */
export function defaultWarnings(
  named: string | undefined,
  provider: string,
  model: string,
): readonly string[] {
  if (provider !== 'offline' || isOfflineModel(model)) return [];
  const why =
    named === undefined
      ? 'no provider has a key, and the built-in offline one has no such model; set OPENAI_API_KEY, GROQ_API_KEY or DEFAULT_PROVIDER'
      : noOfflineModel(model);
  return [`DEFAULT_MODEL=${model}: ${why}`];
}

/** What agents may name, and what each of them lacks. */
export const knownProviders = (providers: ProviderTable): KnownProviders =>
  new Map<string, string | undefined>([
    ...[...providers.values()].map(({ name, missing }): [string, string | undefined] => [name, missing]),
    ['offline', undefined],
  ]);

/** Where a model's completions are asked for. Undefined where nobody has said where the provider is. */
export const completionsUrl = (provider: ProviderConfig, model: string): URL | undefined =>
  address(
    provider,
    `${provider.deployments ? `/deployments/${encodeURIComponent(model)}` : ''}/chat/completions`,
  );

/** Where it lists its models, if it does. */
export const modelsUrl = (provider: ProviderConfig): URL | undefined => address(provider, '/models');

/** A base URL may come with a slash, and with a query. */
function address({ baseUrl, query }: ProviderConfig, path: string): URL | undefined {
  if (baseUrl === undefined) return undefined;
  const url = new URL(baseUrl);
  url.pathname = `${trimmed(url.pathname)}${path}`;
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url;
}

/** Endpoints without keys still want the header. */
const NO_KEY = 'none';

/** The headers of a request: the key's, and those of the operator. */
export const headersOf = ({
  headers,
  apiKey = NO_KEY,
  keyHeader,
}: ProviderConfig): Record<string, string> => ({
  ...headers,
  [keyHeader]: keyHeader === 'api-key' ? apiKey : `Bearer ${apiKey}`,
});
