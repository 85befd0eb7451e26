/** The request for an answer: what LangChain's model class would send, made fit for endpoints that look closely. */
import { AIMessage, type BaseMessage } from '@langchain/core/messages';
import { ChatGroq } from '@langchain/groq';
import { ChatOpenAICompletions, convertMessagesToCompletionsMessageParams } from '@langchain/openai';
import type { JsonFormat } from '../../domain/response-format.ts';
import type { ToolDefinition } from '../tools/tool.ts';
import { isObject } from './chunk.ts';

/** OpenAI's reasoning models refuse any temperature but their own. */
const FIXED_TEMPERATURE = /^o\d|^gpt-5(?!.*chat)/;
/** The classes want a key at once; requests carry that of their endpoint. */
const NO_KEY = 'none';

/** Whose class builds the requests. */
export type Dialect = 'openai' | 'groq';

export interface BodySpec {
  readonly dialect: Dialect;
  readonly model: string;
  readonly temperature: number;
  /** Tokens the model may answer with, where the agent names them. */
  readonly maxTokens: number | undefined;
}

/** The JSON of a request. */
export type RequestBody = Record<string, unknown>;

export interface BodyBuilder {
  build(messages: readonly BaseMessage[], tools: readonly ToolDefinition[], format?: JsonFormat): RequestBody;
}

/** One for each spec; it holds no conversation. */
export function createBodyBuilder({ dialect, model, temperature, maxTokens }: BodySpec): BodyBuilder {
  const fields = {
    model,
    apiKey: NO_KEY,
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(dialect === 'openai' && FIXED_TEMPERATURE.test(model) ? {} : { temperature }),
  };
  const chat = dialect === 'groq' ? new ChatGroq(fields) : new ChatOpenAICompletions(fields);
  const paramsOf = (tools: readonly ToolDefinition[], format?: JsonFormat): RequestBody => {
    const asked = {
      ...(tools.length > 0 ? { tools: [...tools] } : {}),
      ...(format ? { response_format: format } : {}),
    };
    return { ...chat.invocationParams(asked, { streaming: true }), stream: true };
  };
  const plain = paramsOf([]);
  return {
    build(messages, tools, format) {
      const params = tools.length === 0 && !format ? plain : paramsOf(tools, format);
      const converted = convertMessagesToCompletionsMessageParams({ messages: [...messages], model });
      return { ...params, messages: converted.map((param, at) => fit({ ...param }, messages[at])) };
    },
  };
}

/**
 * Beside calls there is text or null, never ''. What the endpoint sent along with calls goes back with them: thoughts
 * on their message, each call's extras on their call.
 */
function fit(param: RequestBody, message: BaseMessage | undefined): RequestBody {
  if (typeof param.content === 'string' && !param.content.isWellFormed())
    param.content = param.content.toWellFormed();
  if (!Array.isArray(param.tool_calls)) return param;
  if (param.content === '') param.content = null;
  if (!(message instanceof AIMessage)) return param;
  const { thoughts, extras } = sentAlong(message);
  Object.assign(param, thoughts);
  if (extras)
    param.tool_calls = param.tool_calls.map((call: unknown) => {
      const extra = isObject(call) ? extras[String(call.id)] : undefined;
      return extra ? { ...(isObject(call) ? call : {}), extra_content: extra } : call;
    });
  return param;
}

/** What an endpoint wants back with its calls: fields of the message, and `extra_content` by the call's id. */
export interface SentAlong {
  readonly thoughts?: Readonly<Record<string, unknown>>;
  readonly extras?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

const KEY = 'sent_along';

/** For the message that holds the calls: LangChain's classes pass it on untouched. */
export const sentAlongKwargs = (sent: SentAlong): Record<string, unknown> => ({ [KEY]: sent });

function sentAlong({ additional_kwargs }: AIMessage): SentAlong {
  const found: unknown = Reflect.get(additional_kwargs, KEY);
  return isObject(found) ? found : {};
}
