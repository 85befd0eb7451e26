/**
 * A model endpoint in OpenAI's protocol that never stops talking: one token every BENCH_TOKEN_MS on each connection.
 * It tells its parent when a connection was closed, and whose: the user's message says `turn=<id>`.
 */
import { createServer, type ServerResponse } from 'node:http';
import { z } from 'zod';

const requestSchema = z.object({ messages: z.array(z.object({ role: z.string(), content: z.unknown() })) });

const tokenMs = Number(process.env.BENCH_TOKEN_MS ?? 20);
/** Connections speak in turn rather than all at once. */
const PHASES = 4;
const speaking = Array.from({ length: PHASES }, () => new Set<ServerResponse>());
let accepted = 0;

const chunk = (delta: object): string =>
  `data: ${JSON.stringify({
    id: 'chatcmpl-bench',
    object: 'chat.completion.chunk',
    created: 1_767_225_600,
    model: 'gpt-4.1-mini',
    choices: [{ index: 0, delta, finish_reason: null }],
  })}\n\n`;
const FIRST = chunk({ role: 'assistant', content: '' });
const TOKEN = chunk({ content: 'token ' });

const server = createServer(async (request, response) => {
  if (request.method !== 'POST') {
    response.end('ok');
    return;
  }
  let body = '';
  for await (const part of request) body += part;
  const { messages } = requestSchema.parse(JSON.parse(body));
  const turn = /turn=([\w-]+)/.exec(JSON.stringify(messages.at(-1)?.content))?.[1] ?? '';
  const phase = speaking[accepted++ % PHASES];
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(FIRST);
  phase?.add(response);
  response.on('close', () => {
    process.send?.({ turn, atNs: String(process.hrtime.bigint()) });
    phase?.delete(response);
  });
});

let phase = 0;
setInterval(() => {
  phase = (phase + 1) % PHASES;
  for (const response of speaking[phase] ?? []) response.write(TOKEN);
}, tokenMs / PHASES);

server.listen(Number(process.env.PORT), '127.0.0.1', 4096);
process.once('SIGTERM', () => process.exit(0));
process.once('disconnect', () => process.exit(0));
