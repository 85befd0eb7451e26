/** The tools of a node: those that it has itself, and those that its registry carries out for it. */
import type { Peers } from '../../ports/peers.ts';
import type { Clock } from '../../ports/telemetry.ts';
import { createCalculator } from './calculator.ts';
import { currentTime } from './current-time.ts';
import { ragQuery } from './rag-query.ts';
import { registryTool } from './registry-tool.ts';
import type { Tool, ToolSet } from './tool.ts';

export interface NodeTools extends ToolSet {
  /** One of the node's own tools. */
  own(name: string): Tool | undefined;
  /** A tool that the node does not have itself; undefined where no registry stands beside the node. */
  readonly registry: ((name: string) => Tool | undefined) | undefined;
}

/**
 * `current_time`, `calculator` and, where there are services to ask, `rag_query`; with an external registry every other
 * name is one of its tools. The calculator's worker starts with its first use.
 */
export function createTools({ clock, peers }: { readonly clock: Clock; readonly peers?: Peers }): NodeTools {
  const calculator = createCalculator();
  const tools = [currentTime(clock), calculator.tool, ...(peers ? [ragQuery(peers)] : [])];
  const byName = new Map(tools.map((tool) => [tool.name, tool]));
  return {
    tools,
    own: (name) => byName.get(name),
    registry: peers?.modes.tool_registry === 'redis' ? (name) => registryTool(name, peers) : undefined,
    close: () => calculator.close(),
  };
}

/**
 * Which tools a run knows, by name: the node's own, and of the registry's those that the run may use. A name that
 * a model made up is unknown here, and is not asked of the registry.
 */
export function createToolLookup(
  tools: ToolSet & Partial<Pick<NodeTools, 'registry'>>,
): (names: readonly string[]) => ReadonlyMap<string, Tool> {
  const own = new Map(tools.tools.map((tool) => [tool.name, tool]));
  const { registry } = tools;
  return (names) => {
    const others = registry ? names.filter((name) => !own.has(name)) : [];
    if (!registry || others.length === 0) return own;
    const known = new Map(own);
    for (const name of others) {
      const tool = registry(name);
      if (tool) known.set(name, tool);
    }
    return known;
  };
}
