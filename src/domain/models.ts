/** What is known of chat models by their names: context window, longest answer, size for tiers; an operator's file over it. */
import { z } from 'zod';

const tokens = z.number().int().min(256).max(100_000_000);

/** What is known of a model. A field that is absent is not known. */
const modelFactsSchema = z.strictObject({
  /** Tokens that prompt and answer may have together. */
  window: tokens.optional(),
  /** Tokens that an answer may have. */
  output: z.number().int().min(1).max(100_000_000).optional(),
  /** What tiers distinguish. */
  size: z.enum(['small', 'large']).optional(),
});
export type ModelFacts = z.infer<typeof modelFactsSchema>;

interface ModelRow extends ModelFacts {
  /** A name in lower case, cut at each `*`, which stands for any text. `provider/model` and parts of that are compared. */
  readonly parts: readonly string[];
  /** Of the operator's file. */
  readonly own?: true;
}

/** Rows in the order of their weight: of each field, the first row that has it counts. */
export type ModelTable = readonly ModelRow[];

const row = (patterns: string, window: number, output?: number): readonly ModelRow[] =>
  patterns.split(' ').map((pattern) => ({
    parts: pattern.split('*'),
    window,
    ...(output === undefined ? {} : { output }),
  }));

/** As the vendors' pages had it at the end of 2025. What stands in none of the rows is learnt from its endpoint. */
export const MODEL_TABLE: ModelTable = [
  ...row('offline/*', 8_192),
  ...row('gpt-5*chat* gpt-4o* chatgpt-4o*', 128_000, 16_384),
  ...row('gpt-5*', 400_000, 128_000),
  ...row('gpt-4.1*', 1_047_576, 32_768),
  ...row('gpt-4-turbo* gpt-4-1106* gpt-4-0125*', 128_000, 4_096),
  ...row('gpt-4-32k*', 32_768),
  ...row('gpt-4 gpt-4-0*', 8_192, 8_192),
  ...row('gpt-3.5-turbo-instruct*', 4_096, 4_096),
  ...row('gpt-3.5-turbo*', 16_385, 4_096),
  ...row('gpt-oss*', 131_072),
  ...row('o1-mini*', 128_000, 65_536),
  ...row('o1-preview*', 128_000, 32_768),
  ...row('o1 o1-* o3 o3-* o4-mini*', 200_000, 100_000),
  ...row('llama-3.3-70b-versatile', 131_072, 32_768),
  ...row('llama3-*-8192', 8_192, 8_192),
  ...row('*llama-3.1* *llama-3.2* *llama-3.3* llama3.1* llama3.2* llama3.3* *llama-4*', 131_072),
  ...row('*llama-3* llama3*', 8_192),
  ...row('mixtral-8x22b*', 65_536),
  ...row('mistral-7b* mistral:* mixtral*', 32_768),
  ...row('mistral-* ministral* pixtral* open-mistral-nemo*', 131_072),
  ...row('codestral* devstral*', 131_072),
  ...row('deepseek-chat', 131_072, 8_192),
  ...row('deepseek-reasoner', 131_072, 65_536),
  ...row('deepseek-r1* deepseek-v3*', 131_072),
  ...row('gemini-1.5-pro*', 2_097_152, 8_192),
  ...row('gemini-1.5* gemini-2.0*', 1_048_576, 8_192),
  ...row('gemini-*', 1_048_576, 65_536),
  ...row('gemma2* gemma-2*', 8_192),
  ...row('qwen3-coder*', 262_144),
  ...row('qwen3* qwen-3*', 40_960),
  ...row('qwen2.5* qwen-2.5*', 32_768),
  ...row('claude-*', 200_000),
];

/** Patterns of a file. */
const MAX_ROWS = 1_000;

/** A models file: `{"my-model*": {"window": 16384, "output": 4096, "size": "small"}}`. */
export const modelsFileSchema = z
  .record(
    z.string().min(1).max(200).regex(/^\S+$/, 'must be a name without blanks, where * stands for any text'),
    modelFactsSchema,
  )
  .refine((rows) => Object.keys(rows).length <= MAX_ROWS, `must name at most ${MAX_ROWS} models`);

/** Lays a models file over a table: its rows are looked at first, in their order. */
export const withModels = (table: ModelTable, file: z.infer<typeof modelsFileSchema>): ModelTable => [
  ...Object.entries(file).map(([pattern, facts]) => ({
    ...facts,
    own: true as const,
    parts: pattern.toLowerCase().split('*'),
  })),
  ...table,
];

/** What the table has about a model. `org/model`, as gateways name models, is also looked for as `model`. */
export function factsOf(table: ModelTable, provider: string, model: string): ModelFacts {
  const plain = model.toLowerCase();
  const whole = `${provider}/${plain}`;
  const slash = plain.lastIndexOf('/');
  const last = slash < 0 ? undefined : plain.slice(slash + 1);
  const facts: ModelFacts = {};
  for (const { parts, window, output, size } of table) {
    const fits =
      matches(parts, plain) || matches(parts, whole) || (last !== undefined && matches(parts, last));
    if (!fits) continue;
    if (window !== undefined) facts.window ??= window;
    if (output !== undefined) facts.output ??= output;
    if (size !== undefined) facts.size ??= size;
  }
  return facts;
}

/**
 * Tokens that the operator says an answer may have: no request asks for more. What the built-in table says may be out of
 * date, and holds nothing back: an endpoint that refuses an agent's own limit names the right one.
 */
export const answerCap = (table: ModelTable, provider: string, model: string): number | undefined =>
  factsOf(
    table.filter(({ own }) => own),
    provider,
    model,
  ).output;

/** Compares without a regular expression: an operator's pattern can not make it slow. A turn asks twice: no copies. */
function matches(parts: readonly string[], name: string): boolean {
  const first = parts[0] ?? '';
  if (parts.length === 1) return name === first;
  const last = parts[parts.length - 1] ?? '';
  if (!name.startsWith(first)) return false;
  let at = first.length;
  for (let place = 1; place < parts.length - 1; place += 1) {
    const part = parts[place] ?? '';
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}

/** Most models that the table does not have can take as much as this. */
const UNKNOWN_WINDOW = 32_768;

/** Tokens of a model's context window; where it has less, its endpoint says so, and the model path cuts further. */
export const contextTokens = (table: ModelTable, provider: string, model: string): number =>
  factsOf(table, provider, model).window ?? UNKNOWN_WINDOW;

/** The size of a model for tiers: what the table says, else what its name says; a name that says nothing is large. */
export function modelSize(
  provider: string,
  model: string,
  table: ModelTable = MODEL_TABLE,
): 'small' | 'large' {
  if (provider === 'offline') return 'small';
  const known = factsOf(table, provider, model).size;
  if (known) return known;
  // The names at OpenAI and Groq are known (PROTOCOL 8); at other providers any name may stand.
  const small = provider === 'openai' || provider === 'groq' ? SMALL_NAME : SMALL_ANYWHERE;
  return small.test(model) ? 'small' : 'large';
}

const SMALL_NAME = /^gpt-.*-(mini|nano)\b|\b8b\b/i;
/** A word for it, or fewer than ten billion parameters. */
const SMALL_ANYWHERE = /(?:^|[-_.:/])(?:mini|nano|small|tiny|lite|[1-9](?:\.\d+)?b|0?\.\d+b)(?=$|[-_.:/@])/i;

/** Whether the built-in provider `offline` has a model of that name. */
export const isOfflineModel = (model: string): boolean =>
  /^offline-(echo|\d{1,6}x(\d{1,5}|tick))$/.test(model);

export const noOfflineModel = (model: string): string =>
  `there is no offline model ${model}; there are offline-echo and offline-<n>x<ms>`;
