/** Runs tables of endpoint answers: each case is a turn at a picky endpoint, what must come of it, and the next turn. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deltas, isEnd } from '../../support/chatter.ts';
import { type Env, type LogLine, type Scene, startScene } from '../../support/node.ts';
import { brokenExtra, brokenRule, type ExtraRules, wellFormed } from '../../support/picky-endpoint.ts';
import {
  type Bytes,
  raw,
  type Scenario,
  type StubMessage,
  type StubModel,
  type StubRequest,
} from '../../support/stub-model.ts';
import type { Received } from '../../support/websocket-client.ts';
import {
  type Answered,
  answered,
  type Count,
  type Expected,
  type Failed,
  SOUND,
  sound,
} from './expectations.ts';

/** One answer: the body of a `200 text/event-stream`, whole or in pieces, or anything else as a scenario. */
export type Answer = Bytes | readonly Bytes[] | Scenario;

export interface EndpointCase {
  readonly name: string;
  /** To the requests of the turn, in order; the last one to all that follow. Tool results are not counted here. */
  readonly answers: readonly Answer[];
  readonly expect: Expected;
  /** To requests that bring tool results, in order. Beyond: `Tools said: <results>`. */
  readonly afterTools?: readonly Answer[];
  readonly rules?: ExtraRules;
  /** What the user says; the case's mark is added. */
  readonly says?: string;
  /** Fields of an agent of the case's own; `*` in the model's name stands for a number that no other case has. */
  readonly agent?: Readonly<Record<string, unknown>>;
  /** What else must hold, once both turns are over. */
  readonly also?: (seen: Seen) => void | Promise<void>;
}

/** What a case may look at in `also`. */
export interface Seen {
  readonly stub: StubModel;
  readonly frames: readonly Received[];
  /** Requests of the turn, without those of the next one. */
  readonly requests: readonly StubRequest[];
  /** The request of the next turn that was answered. */
  readonly next: StubRequest;
  readonly tookMs: number;
}

/** A case with one answer, the same for every request. */
export const row = (
  name: string,
  answer: Answer,
  expect: Expected,
  more: Omit<EndpointCase, 'name' | 'answers' | 'expect'> = {},
): EndpointCase => ({ name, answers: [answer], expect, ...more });

/** Who asks. Each table runs on several of them. */
export interface AgentKind {
  readonly name: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

const OPENAI = { provider: 'openai', model: 'gpt-4.1-mini' };
const GROQ = { provider: 'groq', model: 'llama-3.1-8b-instant' };
const TOOLS = { tools: ['calculator', 'current_time'] };

const openai: AgentKind = { name: 'openai', fields: { ...OPENAI, ...TOOLS } };
const groq: AgentKind = { name: 'groq', fields: { ...GROQ, ...TOOLS } };
const openaiPlain: AgentKind = { name: 'openai without tools', fields: OPENAI };
const groqPlain: AgentKind = { name: 'groq without tools', fields: GROQ };
const openaiLangchain: AgentKind = {
  name: 'openai, langchain',
  fields: { ...openai.fields, type: 'workflow' },
};

export const WITH_TOOLS = [openai, groq, openaiLangchain];
/** For cases with and without tools, over both loops. */
export const ANY = [openaiPlain, groq, openaiLangchain];
/** For tables of many cases. */
export const BOTH = [openai, groqPlain];

/** Cases that run at once. */
const CONCURRENCY = 40;
/** A turn that never ends, or a connection that is never let go, fails its own case alone. */
const CASE_TIMEOUT_MS = 30_000;

/**
 * Makes a test of a table: one node and one endpoint, one session a case and agent.
 * Afterwards nothing that was said may be in the node's log.
 */
export function table(
  title: string,
  agents: readonly AgentKind[],
  cases: readonly EndpointCase[],
  { env = {} }: { readonly env?: Env } = {},
): void {
  test(title, { concurrency: CONCURRENCY }, async (t) => {
    const stage = await openStage(t, env);
    const runs = agents.flatMap((agent) => cases.map((one) => ({ agent, one })));
    await Promise.all(
      runs.map(({ agent, one }) =>
        t.test(`${one.name} (${agent.name})`, { timeout: CASE_TIMEOUT_MS }, () => play(stage, agent, one)),
      ),
    );
    saysNothing(stage.scene.lines);
  });
}

/** What the user says in every case; the models of these tests never say it. */
const QUESTION = 'CANARY-user asks.';
/** What must not be on a line of the log. */
const SAID = /CANARY|All of it|Half of|Tools said|6\*7|10\*10/;

/** Fails where a line holds what people or models said. */
export function saysNothing(lines: readonly (LogLine | string)[]): void {
  const found = lines.map((each) => (typeof each === 'string' ? each : JSON.stringify(each)));
  assert.deepEqual(
    found.filter((text) => SAID.test(text)),
    [],
    'the log holds what was said',
  );
}

/** A turn's requests, and what the endpoint does with them. */
export interface Part {
  readonly answers: readonly Answer[];
  readonly afterTools: readonly Answer[];
  readonly rules: ExtraRules;
  readonly requests: StubRequest[];
  /** Rules of every strict endpoint that a request broke. */
  readonly broken: string[];
  asked: number;
  brought: number;
}

export interface Stage {
  readonly scene: Scene;
  readonly parts: Map<string, Part>;
  readonly agents: Map<string, Promise<string>>;
}

/** A tier that bounds little, and a model that may fall silent for longer than any case here takes. */
const CALM: Env = { DEFAULT_TIER: 'enterprise', MODEL_IDLE_SECONDS: '12', MODEL_BREAKER_FAILURES: '100000' };

/** A node with both providers at one picky endpoint. */
export async function openStage(t: Parameters<typeof startScene>[0], env: Env = {}): Promise<Stage> {
  const parts = new Map<string, Part>();
  const scene = await startScene(t, { env: { ...CALM, ...env } });
  scene.stub.byDefault((request) => choose(parts, request));
  return { scene, parts, agents: new Map() };
}

/** A new part under this mark. */
export function partOf(
  { parts }: Stage,
  mark: string,
  given: Partial<Pick<Part, 'answers' | 'afterTools' | 'rules'>> = {},
): Part {
  const part: Part = {
    answers: given.answers ?? [SOUND],
    afterTools: given.afterTools ?? [],
    rules: given.rules ?? {},
    requests: [],
    broken: [],
    asked: 0,
    brought: 0,
  };
  parts.set(mark, part);
  return part;
}

/** The mark that tells the endpoint whose request this is: the last one that the user wrote. */
const MARK = /<<([^<>]+)>>/g;

export function markOf({ body }: StubRequest): string {
  const user = body.messages.filter(({ role }) => role === 'user').at(-1);
  return [...JSON.stringify(user?.content ?? '').matchAll(MARK)].at(-1)?.[1] ?? '';
}

function choose(parts: ReadonlyMap<string, Part>, request: StubRequest): Scenario {
  const part = parts.get(markOf(request));
  if (!part) return raw('unknown mark', { status: 404 });
  part.requests.push(request);
  const broken = brokenRule(request.body);
  if (broken) {
    part.broken.push(broken.rule);
    return broken.answer;
  }
  const extra = brokenExtra(request.body, part.rules);
  if (extra) return extra.answer;
  if (request.body.messages.at(-1)?.role === 'tool')
    return scenario(
      part.afterTools[part.brought++] ?? sound(`Tools said: ${results(request.body.messages)}`),
    );
  const answer = part.answers[Math.min(part.asked++, part.answers.length - 1)];
  return scenario(answer ?? SOUND);
}

/** Where an answer is to be asked for again, that need not take long. */
const scenario = (answer: Answer): Scenario =>
  typeof answer === 'function' ? answer : raw(answer, { headers: { 'retry-after-ms': '1' } });

/** The results that the last messages bring. */
function results(messages: readonly StubMessage[]): string {
  const from = messages.findLastIndex(({ role }) => role !== 'tool') + 1;
  return messages
    .slice(from)
    .map(({ content }) => (typeof content === 'string' ? content : JSON.stringify(content)))
    .join(' | ');
}

/** The id of an agent with these fields, made once. */
function agentId({ scene, agents }: Stage, fields: Readonly<Record<string, unknown>>): Promise<string> {
  const key = JSON.stringify(fields);
  const known = agents.get(key);
  if (known) return known;
  const made = scene
    .ask('/api/agents', { body: { name: 'Case', slug: `case-${agents.size}`, ...fields } })
    .then(({ status, body, text }) => {
      assert.equal(status, 201, text);
      return String(body.id);
    });
  agents.set(key, made);
  return made;
}

let plays = 0;

/** One case: its turn, what came of it, and the next turn. */
async function play(stage: Stage, agent: AgentKind, one: EndpointCase): Promise<void> {
  plays += 1;
  const mine = plays; // others play meanwhile
  const { scene } = stage;
  const fields = { ...agent.fields, ...one.agent };
  const model = String(fields.model).replace('*', String(mine));
  const id = await agentId(stage, { ...fields, model });
  const { answers, afterTools = [], rules = {} } = one;
  const part = partOf(stage, `case-${mine}`, { answers, afterTools, rules });
  const following = partOf(stage, `next-${mine}`, { rules });
  const marks = [`<<case-${mine}>>`, `<<next-${mine}>>`];
  const client = await scene.chat('acme', `s-${mine}`);

  const startedAt = performance.now();
  const frames = await client.turn(`${one.says ?? QUESTION} ${marks[0]}`, { agent_id: id });
  const tookMs = performance.now() - startedAt;
  assert.deepEqual(part.broken, [], 'the turn broke a rule of the endpoint');
  checkFrames(frames);
  if (one.expect.type === 'answered') checkAnswered(frames, part, one.expect);
  else checkFailed(frames, part, one.expect, scene.lines);

  const next = await client.turn(`CANARY-user goes on. ${marks[1]}`, { agent_id: id });
  const requests = [...part.requests];
  assert.deepEqual(following.broken, [], 'the next turn broke a rule of the endpoint');
  checkFrames(next);
  checkAnswered(next, following, answered('All of it.'));
  const asked = following.requests.at(-1);
  assert.ok(asked);
  if (one.expect.type === 'answered') remembers(asked, contentOf(frames));
  client.check();
  await one.also?.({ stub: scene.stub, frames, requests, next: asked, tookMs });
}

/** What holds for the frames of every turn. */
export function checkFrames(frames: readonly Received[]): void {
  const end = frames.at(-1);
  assert.equal(frames.filter(isEnd).length, 1, 'the turn has not ended exactly once');
  assert.ok(end && isEnd(end), 'something came after the end');
  const info = end.data.execution_info;
  if (info)
    assert.ok(Number.isInteger(info.tokens_used) && info.tokens_used >= 0, `${info.tokens_used} tokens`);
  for (const { data } of frames) assert.ok(wellFormed(data), 'half of a surrogate pair in a frame');
}

export function checkAnswered(
  frames: readonly Received[],
  { requests }: Pick<Part, 'requests'>,
  expect: Answered,
): void {
  const end = frames.at(-1);
  assert.equal(end?.type, 'chat.response', JSON.stringify(end?.data));
  const { content, execution_info: info } = end.data;
  if (typeof expect.content === 'string') assert.equal(content, expect.content);
  else assert.match(content, expect.content);
  const finished = frames.filter(({ type }) => type === 'tool.finished');
  if (requests.length === 1 || !requests.some(({ body }) => body.messages.at(-1)?.role === 'tool'))
    assert.equal(deltas(frames), content, 'the deltas are not the answer');
  if (expect.results)
    assert.deepEqual(finished.map(({ data }) => data.result).sort(), [...expect.results].sort());
  counts(info.tokens_used, expect.tokens, 'tokens');
  counts(requests.length, expect.requests, 'requests');
}

function checkFailed(
  frames: readonly Received[],
  { requests }: Part,
  expect: Failed,
  lines: readonly LogLine[],
): void {
  const end = frames.at(-1);
  assert.equal(end?.type, 'error', JSON.stringify(end?.data));
  const { code, retryable, message } = end.data;
  assert.ok(expect.codes.includes(code), `${code}: ${message}`);
  if (expect.retryable !== undefined)
    assert.equal(retryable, expect.retryable, `retryable: ${code}, ${message}`);
  if (expect.message) assert.match(message, expect.message);
  if (expect.shown !== undefined) assert.equal(deltas(frames), expect.shown);
  assert.doesNotMatch(JSON.stringify(end), SAID, 'the error quotes what was said');
  counts(requests.length, expect.requests, 'requests');
  checkWarning(end, expect, lines);
}

/** The operator is told of every failure of a model: which task, which model, and why. */
function checkWarning(end: Received, { warning, once }: Failed, lines: readonly LogLine[]): void {
  const warnings = lines.filter(({ level, task_id }) => level === 'warn' && task_id === end.task_id);
  assert.ok(warnings.length > 0, 'no warning names the task');
  if (once) assert.equal(warnings.length, 1, JSON.stringify(warnings));
  assert.ok(warnings.every(({ model }) => typeof model === 'string' && model !== ''));
  for (const { host, tenant_id } of warnings) {
    assert.match(String(host), /^127\.0\.0\.1:\d+$/);
    assert.equal(typeof tenant_id, 'string');
  }
  if (warning) assert.match(JSON.stringify(warnings), warning);
}

function counts(found: number, wanted: Count | undefined, what: string): void {
  if (wanted === undefined) return;
  const [least, most] = typeof wanted === 'number' ? [wanted, wanted] : wanted;
  assert.ok(
    found >= least && found <= most,
    `${found} ${what}, not ${least === most ? least : `${least} to ${most}`}`,
  );
}

const contentOf = (frames: readonly Received[]): string => String(frames.at(-1)?.data.content ?? '');

/** The model is still given what was answered. */
export function remembers({ body }: Pick<StubRequest, 'body'>, content: string): void {
  if (content === '') return;
  const told = body.messages.filter(({ role }) => role === 'assistant').map((message) => message.content);
  assert.ok(told.includes(content), 'the next request has lost the answer');
}
