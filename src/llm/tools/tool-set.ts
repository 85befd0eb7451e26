/** The tools that every node has. */
import type { Clock } from '../../ports.ts';
import { createCalculator } from './calculator.ts';
import { currentTime } from './current-time.ts';
import type { ToolSet } from './tool.ts';

/** `current_time` and `calculator`. The calculator's worker starts with its first use. */
export function createTools(dependencies: { readonly clock: Clock }): ToolSet {
  const calculator = createCalculator();
  return { tools: [currentTime(dependencies.clock), calculator.tool], close: () => calculator.close() };
}
