/** The operator's file of model providers: what may stand in it, checked when the node starts. */
import { z } from 'zod';
import { providerSchema } from './agent-record.ts';
import { BUILT_IN_PROVIDERS, isHttpUrl } from './ready-made-providers.ts';

const MAX_PROVIDERS = 100;
const MAX_FIELDS = 50;

/** Headers that belong to the connection, the body or the key. */
const OWN_HEADERS =
  /^(host|connection|keep-alive|transfer-encoding|te|trailer|upgrade|expect|content-.*|accept|accept-encoding|proxy-.*|authorization)$/i;
/** Without these there is no question. */
const NEEDED = new Set(['model', 'messages', 'stream', 'tools']);

const few = (fields: Readonly<Record<string, string>>): boolean => Object.keys(fields).length <= MAX_FIELDS;

const header = z
  .string()
  .regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$/, 'must be the name of a header')
  .refine((name) => !OWN_HEADERS.test(name), 'is a header that the node sets itself; a key has api_key_env');

const baseUrl = z
  .string()
  .max(2_000)
  .refine(isHttpUrl, 'must be a URL that starts with http:// or https://')
  .refine((text) => {
    if (!URL.canParse(text)) return true;
    const { username, password } = new URL(text);
    return username === '' && password === '';
  }, 'must not hold a user or a password');

const entrySchema = z.strictObject({
  name: providerSchema.refine((name) => !BUILT_IN_PROVIDERS.includes(name), {
    error: 'is the name of a built-in provider',
  }),
  /** Without `/chat/completions`. */
  base_url: baseUrl,
  /** The variable with its key; absent: it wants none. */
  api_key_env: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]{0,99}$/, 'must be the name of an environment variable')
    .optional(),
  /** What is asked where nobody names a model. */
  model: z.string().min(1).max(128).optional(),
  dialect: z.enum(['openai', 'groq']).default('openai'),
  without: z
    .array(
      z
        .string()
        .regex(/^[a-z][a-z0-9_]{0,63}$/, 'must be the name of a field of a request')
        .refine((field) => !NEEDED.has(field), 'is a field that no request can do without'),
    )
    .max(MAX_FIELDS)
    .default([]),
  limit_field: z.enum(['max_tokens', 'max_completion_tokens']).optional(),
  think_tags: z.enum(['read', 'begun', 'text']).default('read'),
  headers: z
    .record(header, z.string().regex(/^[\t -~]{0,4000}$/, 'must be printable ASCII'))
    .refine(few, `must be at most ${MAX_FIELDS}`)
    .default({}),
  query: z
    .record(z.string().min(1).max(100), z.string().max(1_000))
    .refine(few, `must be at most ${MAX_FIELDS}`)
    .default({}),
});
export type ProviderEntry = z.infer<typeof entrySchema>;

/** `[{"name": "house", "base_url": "https://llm.example.com/v1", "api_key_env": "HOUSE_KEY"}]` */
export const providersFileSchema = z
  .array(entrySchema)
  .max(MAX_PROVIDERS)
  .superRefine((entries, context) => {
    const seen = new Set<string>();
    for (const [at, { name }] of entries.entries()) {
      if (seen.has(name)) context.addIssue({ code: 'custom', path: [at, 'name'], message: 'stands twice' });
      seen.add(name);
    }
  });
