/** The tool calls of one run: which may run, which go back to the model as mistakes, and when that is enough. */
import { cut } from '../domain/cut.ts';
import { RefusalError, refusalError } from '../domain/errors.ts';
import { MAX_TOOL_RESULT_UNITS } from '../domain/frames.ts';
import type { Metrics } from '../ports/telemetry.ts';
import type { Run } from './run.ts';
import { parseArgs, type ToolCall } from './tool-calls.ts';
import type { Prepared, Tool, ToolDefinition } from './tools/tool.ts';

/** Messages with calls that could not be made (unknown tool, wrong arguments) that a run forgives. */
const MAX_MISTAKES = 2;
/** The same call in this many messages in a row leads nowhere. */
const MAX_REPEATS = 3;
const TOOL_DEADLINE_MS = 30_000;
/** UTF-16 units of a result that the model reads. */
const MAX_RESULT_UNITS = 20_000;

/** A call that passed the rules: a run of its tool, or a mistake for the model to read. */
export interface CheckedCall {
  readonly call: ToolCall;
  readonly args: unknown;
  readonly prepared: Prepared;
}

/** One run's use of tools. */
export interface ToolUse {
  /** The tools that the model may call. */
  readonly definitions: readonly ToolDefinition[];
  /** Judges the calls of one message, after which the model may be asked `callsLeft` times. Throws a RefusalError: TOOL_DENIED, TOOL_LOOP or MAX_ITERATIONS. */
  check(calls: readonly ToolCall[], callsLeft: number): readonly CheckedCall[];
  /** Performs a call and resolves to what the model reads; what a tool throws is read by the model too. */
  perform(checked: CheckedCall): Promise<string>;
}

/** `tools` by name are those of the node; the plan says which of them this run may use. */
export function createToolUse(run: Run, tools: ReadonlyMap<string, Tool>, metrics: Metrics): ToolUse {
  const allowed = run.plan.limits.tools;
  let mistakes = 0;
  let repeats: ReadonlyMap<string, number> = new Map();

  function judge(call: ToolCall): CheckedCall {
    const tool = tools.get(call.name);
    if (!tool)
      return mistaken(call, {}, `there is no tool of that name. Tools: ${allowed.join(', ') || 'none'}.`);
    if (!allowed.includes(call.name)) throw refusalError('TOOL_DENIED', { details: { tool: call.name } });
    const args = parseArgs(call.args);
    if (!args) return mistaken(call, {}, 'the arguments are not a JSON object.');
    return { call, args, prepared: tool.prepare(args) };
  }

  /** Counts how many messages in a row held each call. */
  function count(checked: readonly CheckedCall[]): void {
    const counted = new Map<string, number>();
    for (const { call, args } of checked) {
      const key = `${call.name} ${JSON.stringify(args)}`;
      counted.set(key, (repeats.get(key) ?? 0) + 1);
      if (counted.get(key) === MAX_REPEATS)
        throw loop(`The agent made the same call of ${printableName(call.name)} ${MAX_REPEATS} times.`);
    }
    repeats = counted;
  }

  return {
    definitions: allowed.flatMap((name) => tools.get(name)?.definition ?? []),
    check(calls, callsLeft) {
      const checked = calls.map(judge);
      if (checked.some(({ prepared }) => !prepared.ok)) mistakes += 1;
      if (mistakes > MAX_MISTAKES)
        throw loop('The agent kept calling tools that do not exist or with wrong arguments.');
      count(checked);
      if (callsLeft === 0)
        throw refusalError('MAX_ITERATIONS', { details: { max_iterations: run.plan.limits.maxIterations } });
      return checked;
    },
    perform: (checked) => perform(run, checked, tools.get(checked.call.name)?.effects ?? false, metrics),
  };
}

async function perform(
  run: Run,
  { call, args, prepared }: CheckedCall,
  hasEffects: boolean,
  metrics: Metrics,
): Promise<string> {
  if (!prepared.ok) return `Error: ${prepared.problem}`;
  await stored(run.accepted);
  if (run.over) return '';
  if (hasEffects) await stored(run.effects());
  if (run.over) return '';
  run.emit({ type: 'tool.started', data: { call_id: call.id, tool: call.name, args } });
  const startedAt = performance.now();
  const { ok, text } = await attempt(run, prepared.run);
  if (run.over) return '';
  const duration_ms = Math.round(performance.now() - startedAt);
  metrics.toolUsed(call.name, ok);
  const result = cut(text, MAX_TOOL_RESULT_UNITS);
  run.emit({
    type: 'tool.finished',
    data: { call_id: call.id, tool: call.name, ok, result, duration_ms },
  });
  return cut(ok ? text : `Error: ${text}`, MAX_RESULT_UNITS);
}

/** The turn is stored before its first tool, and the start of a tool with effects before the tool. */
async function stored(write: Promise<unknown>): Promise<void> {
  try {
    await write;
  } catch (error) {
    throw error instanceof RefusalError ? error : refusalError('STORE_UNAVAILABLE');
  }
}

/** Runs a tool under the run's signal and a deadline; one that heeds neither is left behind. */
async function attempt(
  run: Run,
  tool: Extract<Prepared, { ok: true }>['run'],
): Promise<{ ok: boolean; text: string }> {
  const { tenantId, sessionId, taskId, tier, agent } = run.plan;
  const plan = { tenantId, sessionId, taskId, tier, collections: agent.collections ?? [] };
  const own = new AbortController();
  let deadline: NodeJS.Timeout | undefined;
  let stop = (): void => {};
  const late = new Promise<never>((_, reject) => {
    const letGo = (reason: string): void => {
      reject(new Error(reason));
      own.abort();
    };
    stop = () => letGo('Cancelled.');
    const seconds = TOOL_DEADLINE_MS / 1000;
    deadline = setTimeout(() => letGo(`The tool took longer than ${seconds} s.`), TOOL_DEADLINE_MS);
  });
  run.signal.addEventListener('abort', stop, { once: true });
  try {
    const text = await Promise.race([tool({ ...plan, signal: own.signal }), late]);
    return { ok: true, text };
  } catch (error) {
    return { ok: false, text: error instanceof Error ? error.message : 'The tool failed.' };
  } finally {
    clearTimeout(deadline);
    run.signal.removeEventListener('abort', stop);
  }
}

const mistaken = (call: ToolCall, args: unknown, problem: string): CheckedCall => ({
  call,
  args,
  prepared: { ok: false, problem },
});

const loop = (message: string): RefusalError => refusalError('TOOL_LOOP', { message });

/** A tool's name as the model wrote it, for an error text. */
const printableName = (name: string): string => name.slice(0, 64).replace(/[^\w.-]/g, '?');
