/** Providers that every node knows by name, with where they are and how they differ. */

/** How an endpoint differs from OpenAI's own. */
export interface Quirks {
  /** Whose requests it understands. */
  readonly dialect: 'openai' | 'groq';
  /** Fields of a request that it does not know. */
  readonly without: readonly string[];
  /** The only name by which it knows the limit of an answer; undefined: whatever the dialect sends. */
  readonly limitField: 'max_tokens' | 'max_completion_tokens' | undefined;
  /**
   * `read`: an answer that begins with a tag of thoughts (`<think>`) begins with thoughts. `begun`: it begins with them
   * though the tag is missing, which the model's template has written. `text`: all content is answer.
   */
  readonly thinkTags: 'read' | 'begun' | 'text';
  readonly headers: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string>>;
}

export interface ReadyMade {
  /** Absent: only the operator knows it. */
  readonly baseUrl?: string;
  /** Where a base URL without a path is completed. */
  readonly path?: string;
  /** It answers without a key. */
  readonly keyless?: boolean;
  readonly model?: string;
  readonly quirks?: Partial<Quirks>;
}

/** The key of `name` is in `<NAME>_API_KEY`, its address may be set by `<NAME>_BASE_URL`. */
export const READY_MADE: Readonly<Record<string, ReadyMade>> = {
  openai: { baseUrl: 'https://api.openai.com/v1', model: 'gpt-4.1-mini' },
  groq: {
    baseUrl: 'https://api.groq.com/openai/v1',
    model: 'llama-3.1-8b-instant',
    quirks: { dialect: 'groq' },
  },
  ollama: { baseUrl: 'http://127.0.0.1:11434/v1', path: '/v1', keyless: true },
  // Its own default is port 8000 of this machine, where this node is: that would be a node that asks itself.
  vllm: { path: '/v1', keyless: true },
  openrouter: { baseUrl: 'https://openrouter.ai/api/v1' },
  deepseek: {
    baseUrl: 'https://api.deepseek.com/v1',
    model: 'deepseek-chat',
    quirks: { limitField: 'max_tokens' },
  },
  // It refuses fields that it does not know, and counts tokens without being asked.
  mistral: {
    baseUrl: 'https://api.mistral.ai/v1',
    model: 'mistral-small-latest',
    quirks: { limitField: 'max_tokens', without: ['stream_options'] },
  },
  gemini: {
    baseUrl: 'https://generativelanguage.googleapis.com/v1beta/openai',
    model: 'gemini-2.5-flash-lite',
  },
};

/** Names that an operator's provider can not have. */
export const BUILT_IN_PROVIDERS: readonly string[] = [...Object.keys(READY_MADE), 'azure', 'offline'];

/** Also refuses `localhost:8080`, which parses as a URL of the scheme `localhost`. */
export const isHttpUrl = (text: string): boolean => /^https?:\/\//i.test(text) && URL.canParse(text);
