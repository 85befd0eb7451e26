/**
 * A model endpoint in OpenAI's protocol: a token every BENCH_TOKEN_MS on each connection, BENCH_TOKENS of them or no
 * end, each an event in a write of its own. With BENCH_CALLS a question is first answered by so many tool calls.
 * It tells its parent when a connection was closed, and whose: the user's message says `turn=<id>`.
 */
import { App, type HttpResponse } from 'uWebSockets.js';
import { stampNowUs, stampText } from '../kit/stamps.ts';

const tokenMs = Math.max(1, Math.round(Number(process.env.BENCH_TOKEN_MS ?? 20)));
const tokens = Number(process.env.BENCH_TOKENS ?? Number.POSITIVE_INFINITY);
const calls = Number(process.env.BENCH_CALLS ?? 0);

interface Stream {
  readonly response: HttpResponse;
  readonly askedUs: number;
  /** Whether it answers by calls. */
  readonly calling: boolean;
  said: number;
}

const event = (fields: object): string =>
  `data: ${JSON.stringify({
    id: 'chatcmpl-CkT5pWbQ8rJ2mXvN4sYdLhZ7aEfG1',
    object: 'chat.completion.chunk',
    created: 1_767_225_600,
    model: 'gpt-4.1-mini-2025-04-14',
    service_tier: 'default',
    system_fingerprint: 'fp_4c2851f862',
    ...fields,
  })}\n\n`;
const chunk = (delta: object, finish: string | null = null): string =>
  event({ choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }], usage: null });
const usage = event({
  choices: [],
  usage: { prompt_tokens: 64, completion_tokens: 50, total_tokens: 114 },
});

const FIRST = chunk({ role: 'assistant', content: '', refusal: null });
const [HEAD = '', TAIL = ''] = chunk({ content: '{}' }).split('{}');
const endOf = (finish: string): string => `${chunk({}, finish)}${usage}data: [DONE]\n\n`;
const END = { stop: endOf('stop'), tool_calls: endOf('tool_calls') };

const ZONES = ['UTC', 'Europe/Madrid', 'Asia/Tokyo', 'America/Lima', 'Africa/Cairo'];
/** A call comes in pieces: its name, and its arguments in two halves. */
const CALLS = Array.from({ length: calls }, (_, index): readonly string[] => {
  const piece = (fields: object): string => chunk({ tool_calls: [{ index, ...fields }] });
  const named = { id: `call_${index}`, type: 'function', function: { name: 'current_time', arguments: '' } };
  return [
    piece(named),
    piece({ function: { arguments: '{"timezone":' } }),
    piece({ function: { arguments: `"${ZONES[index % ZONES.length]}"}` } }),
  ];
}).flat();

function token({ said, askedUs }: Stream): string {
  const asked = said === 0 ? `^${stampText(askedUs)}` : '';
  return `${HEAD}${asked}~${stampText(stampNowUs())} ${TAIL}`;
}

/** A slot each ms. A stream stays in the slot in which it was asked, so that its first token takes `tokenMs` too. */
const wheel = Array.from({ length: tokenMs }, () => new Set<Stream>());
const slotOf = (at: number): Set<Stream> | undefined => wheel[at % wheel.length];
const startedMs = performance.now();
let tick = 0;

function speak(stream: Stream, slot: Set<Stream>): void {
  const { response, calling } = stream;
  const text = calling ? CALLS[stream.said] : token(stream);
  stream.said += 1;
  response.cork(() => response.write(text ?? ''));
  if (stream.said < (calling ? CALLS.length : tokens)) return;
  slot.delete(stream);
  response.cork(() => response.end(calling ? END.tool_calls : END.stop));
}

setInterval(() => {
  // After a pause, what was due meanwhile is written at once.
  for (const due = Math.floor(performance.now() - startedMs); tick < due; ) {
    tick += 1;
    const slot = slotOf(tick);
    if (slot) for (const stream of slot) speak(stream, slot);
  }
}, 1);

/**
 * Begins an answer; returns what is to be done when its connection is closed before the end. Bodies hold whole
 * conversations: they are searched, since parsing them would cost more than answering.
 */
function answer(response: HttpResponse, body: string): () => void {
  const turn = /^turn=([\w-]+)/.exec(body.slice(Math.max(0, body.lastIndexOf('turn='))))?.[1] ?? '';
  const role = body.slice(body.lastIndexOf('"role":"') + '"role":"'.length);
  const stream: Stream = {
    ...{ response, said: 0, askedUs: stampNowUs() },
    calling: CALLS.length > 0 && role.startsWith('user'),
  };
  const slot = slotOf(tick);
  slot?.add(stream);
  response.cork(() => {
    response.writeHeader('content-type', 'text/event-stream; charset=utf-8').write(FIRST);
  });
  return () => {
    slot?.delete(stream);
    process.send?.({ turn, atNs: String(process.hrtime.bigint()) });
  };
}

App()
  .get('/*', (response) => void response.end('ok'))
  .post('/*', (response) => {
    let gone = false;
    let body = '';
    let closed = (): void => {
      gone = true;
    };
    response.onAborted(() => closed());
    response.onData((part, isLast) => {
      body += Buffer.from(part).toString();
      if (isLast && !gone) closed = answer(response, body);
    });
  })
  .listen('127.0.0.1', Number(process.env.PORT), (listening) => {
    if (!listening) process.exit(1);
  });
process.once('SIGTERM', () => process.exit(0));
process.once('disconnect', () => process.exit(0));
