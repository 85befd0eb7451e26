/** Answers from an endpoint of chat completions past LangChain: by the `openai` client, and by undici alone. */
import { StringDecoder } from 'node:string_decoder';
import { tool } from '@langchain/core/tools';
import { OpenAI } from 'openai';
import { Agent } from 'undici';
import { z } from 'zod';
import { type Answer, delta, response } from './answers.ts';

interface Endpoint {
  readonly baseURL: string;
  readonly apiKey: string;
  readonly model: string;
}

const requested = (model: string, message: string) => ({
  ...{ model, messages: [{ role: 'user' as const, content: message }] },
  ...{ stream: true as const, stream_options: { include_usage: true } },
});

export function byOpenai({ baseURL, apiKey, model }: Endpoint): Answer {
  const client = new OpenAI({ baseURL, apiKey });
  return async (message, emit) => {
    let content = '';
    for await (const chunk of await client.chat.completions.create(requested(model, message))) {
      const text = chunk.choices[0]?.delta.content;
      if (!text) continue;
      content += text;
      emit(delta(text));
    }
    emit(response(content));
  };
}

interface Chunk {
  readonly choices: readonly { readonly delta: { readonly content?: string } }[];
}

/** Floor: lines, `JSON.parse`, and no check of anything. */
export function byDispatch({ baseURL, apiKey, model }: Endpoint): Answer {
  const agent = new Agent();
  const { origin, pathname } = new URL(`${baseURL}/chat/completions`);
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${apiKey}` };
  return (message, emit) =>
    new Promise((resolve, reject) => {
      const decoder = new StringDecoder('utf8');
      let content = '';
      let rest = '';
      const take = (line: string): void => {
        if (!line.startsWith('data: ') || line === 'data: [DONE]') return;
        const { choices }: Chunk = JSON.parse(line.slice(6));
        const text = choices[0]?.delta.content;
        if (!text) return;
        content += text;
        emit(delta(text));
      };
      const body = JSON.stringify(requested(model, message));
      agent.dispatch(
        { origin, path: pathname, method: 'POST', headers, body },
        {
          onRequestStart: () => undefined,
          onResponseStart(_, status) {
            if (status !== 200) reject(new Error(`status ${status}`));
          },
          onResponseData(_, bytes) {
            const text = rest + decoder.write(bytes);
            let from = 0;
            for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
              take(text.slice(from, end));
              from = end + 1;
            }
            rest = text.slice(from);
          },
          onResponseEnd() {
            emit(response(content));
            resolve();
          },
          onResponseError: (_, error) => reject(error),
        },
      );
    });
}

/** What our node's `current_time` does, as a LangChain tool. */
export const timeTool = tool(
  async ({ timezone = 'UTC' }) => {
    const now = new Date();
    const format = new Intl.DateTimeFormat('en-GB', {
      ...{ timeZone: timezone, dateStyle: 'full', timeStyle: 'long' },
    });
    return `${now.toISOString()} (${timezone}: ${format.format(now)})`;
  },
  {
    name: 'current_time',
    description: 'The current date and time, in UTC or in a time zone.',
    schema: z.object({ timezone: z.string().optional().describe('IANA name, e.g. Europe/Madrid.') }),
  },
);
