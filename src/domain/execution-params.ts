/** What an execution may be asked, on every wire: its own lower limits, and the bounds of a batch. */
import { z } from 'zod';
import { boundedRecord, requestObject } from './request-object.ts';

/** What a request asks of its own run, under the limits of tier, node and agent: it can only lower them. */
export interface Overrides {
  /** Takes away the tools that are false here; true adds none. */
  readonly tools?: Readonly<Record<string, boolean>>;
  readonly maxIterations?: number;
  readonly maxTimeMs?: number;
}

export const MAX_NAMED_TOOLS = 64;
const MAX_TOOL_NAME = 128;
export const MAX_BATCH_ITEMS = 100;
export const MAX_BATCH_CONCURRENCY = 20;
export const DEFAULT_BATCH_CONCURRENCY = 5;

/** `false` takes one of the agent's tools away for this run; `true` leaves it, and adds none. */
export const toolsConfigSchema = boundedRecord(
  z.string().min(1).max(MAX_TOOL_NAME),
  z.boolean(),
  MAX_NAMED_TOOLS,
);

/** Lower limits than the tier's for this run; `max_execution_time` in seconds. */
export const executionParamsSchema = requestObject({
  max_iterations: z.number().int().positive().optional(),
  max_execution_time: z.number().positive().optional(),
});

interface OwnLimits {
  readonly tools_config?: z.infer<typeof toolsConfigSchema> | undefined;
  readonly execution_params?: z.infer<typeof executionParamsSchema> | undefined;
}

/** What a request asks of its own run, or undefined. */
export function overridesOf({ tools_config, execution_params }: OwnLimits): Overrides | undefined {
  const { max_iterations, max_execution_time } = execution_params ?? {};
  const overrides: Overrides = {
    ...(tools_config === undefined ? {} : { tools: tools_config }),
    ...(max_iterations === undefined ? {} : { maxIterations: max_iterations }),
    ...(max_execution_time === undefined ? {} : { maxTimeMs: Math.ceil(max_execution_time * 1000) }),
  };
  return Object.keys(overrides).length === 0 ? undefined : overrides;
}
