/** The only reader of the environment: every variable of PROTOCOL 7, parsed once, all mistakes reported at once. */
import { randomUUID } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { z } from 'zod';
import { providerSchema } from './domain/agent-record.ts';
import { ID_PATTERN } from './domain/ids.ts';
import { MODEL_TABLE, type ModelTable, modelsFileSchema, withModels } from './domain/models.ts';
import { problemText } from './domain/problems.ts';
import {
  configureProviders,
  defaultProblems,
  defaultWarnings,
  type ProviderTable,
} from './domain/providers.ts';
import { providersFileSchema } from './domain/providers-file.ts';
import { queueNameSchema } from './domain/queues.ts';
import { isHttpUrl } from './domain/ready-made-providers.ts';
import { parseRedisUrl } from './domain/redis-url.ts';
import { unknownSettings } from './domain/setting-names.ts';
import {
  TIER_TABLE,
  type TierTable,
  tierOverridesSchema,
  tierSchema,
  withinNode,
  withOverrides,
} from './domain/tiers.ts';

const seconds = (fallback: number) => z.coerce.number().positive().max(86_400).default(fallback);
const flag = z
  .enum(['0', '1', 'true', 'false'])
  .default('0')
  .transform((value) => value === '1' || value === 'true');
const list = z
  .string()
  .default('')
  .transform((value) =>
    value
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean),
  );
const httpUrl = z.string().refine(isHttpUrl, 'must be a URL that starts with http:// or https://');
const peer = z.enum(['embedded', 'redis']).default('embedded');
const redisUrl = z
  .string()
  .superRefine((url, context) => {
    try {
      parseRedisUrl(url);
    } catch (error) {
      const message = error instanceof Error ? error.message : 'is no Redis URL';
      context.addIssue({ code: 'custom', message });
    }
  })
  .optional();

const environmentSchema = z.object({
  PORT: z.coerce.number().int().min(0).max(65_535).default(8000),
  HOST: z.string().min(1).default('127.0.0.1'),
  NODE_ID: z
    .string()
    .regex(ID_PATTERN, 'must be 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -')
    .optional(),
  DATABASE_URL: z
    .string()
    .regex(/^(sqlite:|postgres(ql)?:\/\/)/, 'must start with sqlite: or postgres://')
    .optional(),
  REDIS_URL: redisUrl,
  EXECUTION_REDIS_URL: redisUrl,
  ORCHESTRATOR_REDIS_HOST: z.string().min(1).optional(),
  ORCHESTRATOR_REDIS_PORT: z.coerce.number().int().min(1).max(65_535).default(6379),

  /** More queues to take actions from, for senders that use other names. */
  EXECUTION_EXTRA_QUEUES: list.pipe(z.array(queueNameSchema)),
  MANAGEMENT_SERVICE: peer,
  CONVERSATION_SERVICE: peer,
  EMBEDDING_SERVICE: peer,
  QUERY_SERVICE: peer,
  TOOL_REGISTRY_SERVICE: peer,
  PEER_ENCODING: z.enum(['json', 'msgpack']).default('json'),
  PEER_TIMEOUT_SECONDS: seconds(10),
  /** Folder of what the embedded query service knows: `{tenant_id}/{collection}/*.md`. */
  COLLECTIONS_DIR: z.string().min(1).default('./data/collections'),

  /** Not set: jwt where there is a key to check tokens with. */
  AUTH_MODE: z.enum(['open', 'jwt']).optional(),
  AUTH_JWT_SECRET: z.string().min(32, 'must have at least 32 characters').optional(),
  AUTH_JWKS_URL: httpUrl.optional(),
  AUTH_ISSUER: z.string().optional(),
  AUTH_AUDIENCE: z.string().optional(),
  ALLOW_INSECURE: flag,
  ALLOWED_ORIGINS: list,
  SERVICE_TOKEN: z
    .string()
    .regex(/^\S{16,}$/, 'must have at least 16 characters, and no spaces')
    .optional(),

  DEFAULT_TIER: tierSchema.default('professional'),
  TIERS_FILE: z.string().min(1).optional(),
  DEFAULT_PROVIDER: providerSchema.optional(),
  DEFAULT_MODEL: z.string().min(1).optional(),
  /** Keys and addresses of providers are read by their own table (`configureProviders`). */
  PROVIDERS_FILE: z.string().min(1).optional(),
  MODELS_FILE: z.string().min(1).optional(),

  EXECUTION_DEFAULT_AGENT_TYPE: z.enum(['conversational', 'langchain']).default('conversational'),
  EXECUTION_MAX_ITERATIONS: z.coerce.number().int().positive().optional(),
  EXECUTION_MAX_EXECUTION_TIME: z.coerce.number().positive().max(86_400).optional(),
  EXECUTION_LOG_LEVEL: z
    .string()
    .transform((value) => value.toLowerCase().replace('warning', 'warn').replace('critical', 'fatal'))
    .pipe(z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']))
    .default('info'),
  EXECUTION_SERVICE_NAME: z.string().min(1).default('nooble'),
  EXECUTION_SERVICE_VERSION: z.string().min(1).optional(),

  ORCHESTRATOR_WEBSOCKET_PING_INTERVAL: seconds(30),
  ORCHESTRATOR_WEBSOCKET_PING_TIMEOUT: seconds(10),
  ORCHESTRATOR_MAX_WEBSOCKET_CONNECTIONS: z.coerce.number().int().positive().default(50_000),
  ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: z.coerce.number().int().nonnegative().optional(),

  /** Turns that run at once on this node, of all tenants. */
  NODE_MAX_EXECUTIONS: z.coerce.number().int().positive().default(1_000),
  /** How long deltas are held back to travel together, ms. */
  DELTA_WINDOW_MS: z.coerce.number().nonnegative().max(1_000).default(15),
  /** A session without clients leaves memory after this long. */
  SESSION_IDLE_SECONDS: seconds(300),
  DRAIN_SECONDS: seconds(25),
  /** Whether several nodes may share a PostgreSQL database. */
  CLUSTER: z.enum(['auto', 'off']).default('auto'),
  CLUSTER_BEAT_MS: z.coerce.number().int().min(100).max(60_000).default(1_000),
  CLUSTER_LOST_MS: z.coerce.number().int().min(500).max(600_000).default(5_000),
  MODEL_FIRST_TOKEN_SECONDS: seconds(30),
  MODEL_IDLE_SECONDS: seconds(20),
  /** Failures in a row after which a model endpoint is not asked for a while. */
  MODEL_BREAKER_FAILURES: z.coerce.number().int().positive().default(50),
  /** Proxies to model endpoints, in either case. */
  HTTPS_PROXY: httpUrl.optional(),
  https_proxy: httpUrl.optional(),
  HTTP_PROXY: httpUrl.optional(),
  http_proxy: httpUrl.optional(),
  NO_PROXY: z.string().optional(),
  no_proxy: z.string().optional(),
});

const WITHOUT_EFFECT = /^(EXECUTION|ORCHESTRATOR)_WORKER_SLEEP_SECONDS$|^EXECUTION_[A-Z_]+_SERVICE_URL$/;
const LOOPBACK = new Set(['127.0.0.1', '::1', 'localhost']);

/** Turns the environment into settings. `problems` names every wrong variable; then there are no settings. */
export function parseSettings(
  environment: Readonly<Record<string, string | undefined>>,
):
  | { readonly ok: true; readonly settings: Settings }
  | { readonly ok: false; readonly problems: readonly string[] } {
  const given: Given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value.trim() !== ''),
  );
  const parsed = environmentSchema.safeParse(given);
  const issues = parsed.success ? [] : parsed.error.issues;
  const problems = issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
  const tiers = withOverrides(TIER_TABLE, readJson('TIERS_FILE', given, tierOverridesSchema, problems) ?? {});
  const models = withModels(MODEL_TABLE, readJson('MODELS_FILE', given, modelsFileSchema, problems) ?? {});
  const entries = readJson('PROVIDERS_FILE', given, providersFileSchema, problems);
  const configured = configureProviders(given, entries ?? []);
  problems.push(...configured.problems, ...unknownProblems(Object.keys(given), configured.providers));
  const wrong = new Set(issues.map((issue) => String(issue.path[0])));
  const rest = Object.fromEntries(Object.entries(given).filter(([name]) => !wrong.has(name)));
  crossChecks(environmentSchema.parse(rest), wrong, problems);
  // A provider may stand in a file that could not be read: that is the one problem then.
  const { DEFAULT_PROVIDER, DEFAULT_MODEL } = rest;
  if (entries !== null) problems.push(...defaultProblems(DEFAULT_PROVIDER, DEFAULT_MODEL, configured));
  if (!parsed.success || problems.length > 0) return { ok: false, problems };
  return {
    ok: true,
    settings: settle(parsed.data, { tiers, models, providers: configured.providers }, given),
  };
}

type Environment = z.infer<typeof environmentSchema>;
/** What the environment has, without what is blank. */
type Given = Readonly<Record<string, string | undefined>>;

/** Variables that the command line reads, and those of providers that stand beside their keys and addresses. */
const OTHER_VARIABLES = ['NOOBLE_URL', 'NOOBLE_TENANT', 'NOOBLE_TOKEN'];
const AZURE_VARIABLES = ['AZURE_OPENAI_AD_TOKEN', 'AZURE_OPENAI_API_VERSION'];

function unknownProblems(names: readonly string[], providers: ProviderTable): readonly string[] {
  const known = new Set([
    ...environmentSchema.keyof().options,
    ...[...providers.values()].flatMap(({ variables }) => Object.values(variables)),
    ...OTHER_VARIABLES,
    ...AZURE_VARIABLES,
    ...names.filter((name) => WITHOUT_EFFECT.test(name)),
  ]);
  return unknownSettings(names, known).map(({ name, problem }) => `${name}: ${problem}`);
}

/** What one variable demands of another. Skipped where one of the two is wrong by itself, which is reported already. */
function crossChecks(env: Environment, wrong: ReadonlySet<string>, problems: string[]): void {
  const refuse = (variables: readonly string[], broken: boolean, problem: string): void => {
    if (broken && !variables.some((name) => wrong.has(name))) problems.push(problem);
  };
  refuse(
    ['AUTH_MODE', 'AUTH_JWT_SECRET', 'AUTH_JWKS_URL'],
    env.AUTH_MODE === 'jwt' && !env.AUTH_JWT_SECRET && !env.AUTH_JWKS_URL,
    'AUTH_MODE: jwt needs AUTH_JWT_SECRET or AUTH_JWKS_URL',
  );
  refuse(
    [...AUTH_VARIABLES, 'HOST', 'ALLOW_INSECURE'],
    authModeOf(env) === 'open' && !LOOPBACK.has(env.HOST) && !env.ALLOW_INSECURE,
    `HOST: ${env.HOST} is not loopback, and AUTH_MODE=open trusts every header; set AUTH_MODE=jwt, or ALLOW_INSECURE=1 if you mean it`,
  );
  for (const name of AUTH_VARIABLES)
    refuse(
      AUTH_VARIABLES,
      name !== 'AUTH_MODE' && authModeOf(env) === 'open' && env[name] !== undefined,
      `${name}: open mode checks no token; set AUTH_MODE=jwt with AUTH_JWT_SECRET or AUTH_JWKS_URL, or take ${name} away`,
    );
  refuse(
    ['CLUSTER_LOST_MS', 'CLUSTER_BEAT_MS'],
    env.CLUSTER_LOST_MS < 3 * env.CLUSTER_BEAT_MS,
    'CLUSTER_LOST_MS: must be at least three times CLUSTER_BEAT_MS: a beat that comes late is no death',
  );
  for (const name of PEER_VARIABLES)
    refuse(
      [name, 'REDIS_URL', 'EXECUTION_REDIS_URL', 'ORCHESTRATOR_REDIS_HOST'],
      env[name] === 'redis' && redisUrlOf(env) === undefined,
      `${name}: redis needs REDIS_URL`,
    );
}

const AUTH_VARIABLES = [
  'AUTH_MODE',
  'AUTH_JWT_SECRET',
  'AUTH_JWKS_URL',
  'AUTH_ISSUER',
  'AUTH_AUDIENCE',
] as const satisfies readonly (keyof Environment)[];

const authModeOf = ({ AUTH_MODE: mode, AUTH_JWT_SECRET: secret, AUTH_JWKS_URL: keys }: Environment) =>
  mode ?? (secret === undefined && keys === undefined ? 'open' : 'jwt');

const PEER_VARIABLES = [
  'MANAGEMENT_SERVICE',
  'CONVERSATION_SERVICE',
  'EMBEDDING_SERVICE',
  'QUERY_SERVICE',
  'TOOL_REGISTRY_SERVICE',
] as const satisfies readonly (keyof Environment)[];

const redisUrlOf = (env: Environment): string | undefined =>
  env.REDIS_URL ??
  env.EXECUTION_REDIS_URL ??
  (env.ORCHESTRATOR_REDIS_HOST
    ? `redis://${env.ORCHESTRATOR_REDIS_HOST}:${env.ORCHESTRATOR_REDIS_PORT}`
    : undefined);

const MAX_FILE_BYTES = 1024 * 1024;

/** The JSON of the file that a variable names: undefined where it names none, null where it is wrong. */
function readJson<T>(
  variable: string,
  given: Given,
  schema: z.ZodType<T>,
  problems: string[],
): T | undefined | null {
  const file = given[variable];
  if (!file) return undefined;
  try {
    // First a look: a pipe or a device would be read for ever.
    const found = statSync(file);
    if (!found.isFile()) throw new Error('is not a file');
    if (found.size > MAX_FILE_BYTES) throw new Error(`has more than ${MAX_FILE_BYTES} bytes`);
    return schema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch (error) {
    problems.push(`${variable}: ${file}: ${fileProblem(error)}`);
    return null;
  }
}

/** What a parser says quotes the file, which may hold what is nobody's business. */
function fileProblem(error: unknown): string {
  if (error instanceof z.ZodError) return problemText(error, 'file', 100);
  const text = error instanceof Error ? error.message : String(error);
  if (!(error instanceof SyntaxError)) return text;
  return ['is no JSON', /\(line \d+ column \d+\)/.exec(text)?.[0]].filter(Boolean).join(' ');
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  return String(version);
}

const OFFLINE_MODEL = 'offline-echo';

const ms = (seconds: number): number => Math.round(seconds * 1000);

interface Tables {
  readonly tiers: TierTable;
  readonly models: ModelTable;
  readonly providers: ProviderTable;
}

function settle(env: Environment, tables: Tables, given: Given) {
  const names = Object.keys(given);
  const models = modelsOf(env, tables, given);
  return {
    ...{ port: env.PORT, host: env.HOST },
    nodeId: env.NODE_ID ?? `node-${randomUUID().slice(0, 8)}`,
    service: {
      name: env.EXECUTION_SERVICE_NAME,
      version: env.EXECUTION_SERVICE_VERSION ?? packageVersion(),
    },
    logLevel: env.EXECUTION_LOG_LEVEL,
    databaseUrl: env.DATABASE_URL ?? 'sqlite:./data/nooble.db',
    redisUrl: redisUrlOf(env),
    extraQueues: env.EXECUTION_EXTRA_QUEUES,
    peers: peersOf(env),
    access: accessOf(env),
    tiers: withinNode(tables.tiers, env.NODE_MAX_EXECUTIONS),
    sharedTiers: tables.tiers,
    defaultTier: env.DEFAULT_TIER,
    models,
    execution: {
      defaultAgentType: env.EXECUTION_DEFAULT_AGENT_TYPE,
      maxIterations: env.EXECUTION_MAX_ITERATIONS,
      maxTimeMs:
        env.EXECUTION_MAX_EXECUTION_TIME === undefined ? undefined : ms(env.EXECUTION_MAX_EXECUTION_TIME),
      maxOnNode: env.NODE_MAX_EXECUTIONS,
    },
    sockets: {
      pingIntervalMs: ms(env.ORCHESTRATOR_WEBSOCKET_PING_INTERVAL),
      pingTimeoutMs: ms(env.ORCHESTRATOR_WEBSOCKET_PING_TIMEOUT),
      max: env.ORCHESTRATOR_MAX_WEBSOCKET_CONNECTIONS,
      deltaWindowMs: env.DELTA_WINDOW_MS,
    },
    sessions: {
      /** Replaces the tier's requests per session and hour; null: no limit; undefined: the tier's. */
      requestsPerHour:
        env.ORCHESTRATOR_MAX_REQUESTS_PER_SESSION === 0 ? null : env.ORCHESTRATOR_MAX_REQUESTS_PER_SESSION,
      idleMs: ms(env.SESSION_IDLE_SECONDS),
    },
    drainMs: ms(env.DRAIN_SECONDS),
    cluster: { mode: env.CLUSTER, beatMs: env.CLUSTER_BEAT_MS, lostMs: env.CLUSTER_LOST_MS },
    /** What was set and can not work, though the node can: said in the log and in `/ready`. */
    warnings: defaultWarnings(env.DEFAULT_PROVIDER, models.defaultProvider, models.defaultModel),
    /** Variables that were set and do nothing here (PROTOCOL 7); the log says so once. */
    withoutEffect: names.filter((name) => WITHOUT_EFFECT.test(name)),
  };
}

const peersOf = (env: Environment) => ({
  modes: {
    management: env.MANAGEMENT_SERVICE,
    conversation: env.CONVERSATION_SERVICE,
    embedding: env.EMBEDDING_SERVICE,
    query: env.QUERY_SERVICE,
    tool_registry: env.TOOL_REGISTRY_SERVICE,
  },
  format: env.PEER_ENCODING,
  timeoutMs: ms(env.PEER_TIMEOUT_SECONDS),
  collectionsDir: env.COLLECTIONS_DIR,
});

const accessOf = (env: Environment) => ({
  mode: authModeOf(env),
  /** Nobody has named the mode: it follows from the key. */
  isModeImplied: env.AUTH_MODE === undefined && authModeOf(env) === 'jwt',
  jwtSecret: env.AUTH_JWT_SECRET,
  jwksUrl: env.AUTH_JWKS_URL,
  issuer: env.AUTH_ISSUER,
  audience: env.AUTH_AUDIENCE,
  allowedOrigins: env.ALLOWED_ORIGINS,
  serviceToken: env.SERVICE_TOKEN,
  allowInsecure: env.ALLOW_INSECURE,
});

function modelsOf(env: Environment, { providers, models }: Tables, given: Given) {
  const hasKey = (name: string): boolean => providers.get(name)?.apiKey !== undefined;
  const defaultProvider =
    env.DEFAULT_PROVIDER ?? (hasKey('openai') ? 'openai' : hasKey('groq') ? 'groq' : 'offline');
  return {
    defaultProvider,
    defaultModel: env.DEFAULT_MODEL ?? providers.get(defaultProvider)?.model ?? OFFLINE_MODEL,
    providers,
    table: models,
    /** For embeddings. */
    openai: { apiKey: providers.get('openai')?.apiKey, baseUrl: given.OPENAI_BASE_URL },
    firstTokenTimeoutMs: ms(env.MODEL_FIRST_TOKEN_SECONDS),
    idleTimeoutMs: ms(env.MODEL_IDLE_SECONDS),
    breakerFailures: env.MODEL_BREAKER_FAILURES,
    proxies: {
      https: env.HTTPS_PROXY ?? env.https_proxy,
      http: env.HTTP_PROXY ?? env.http_proxy,
      except: env.NO_PROXY ?? env.no_proxy,
    },
  };
}

export type Settings = ReturnType<typeof settle>;
