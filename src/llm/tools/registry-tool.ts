/** Tools that the node does not have: the external tool registry carries them out. */
import { readToolResult } from '../../domain/peer-replies.ts';
import type { Peers } from '../../ports/peers.ts';
import { askPeer, type Tool, type ToolContext } from './tool.ts';

/** What chat completion endpoints take as a function's name; another one would spoil every call of its agent. */
const NAME = /^[A-Za-z0-9_-]{1,64}$/;

/**
 * A tool of the registry, by its name alone; undefined for a name that no endpoint takes. The registry knows its
 * arguments and checks them. It may do anything, so that a turn that has begun it does not run again.
 */
export function registryTool(name: string, peers: Peers): Tool | undefined {
  if (!NAME.test(name)) return undefined;

  async function execute(args: object, context: ToolContext): Promise<string> {
    const data = { tool: name, args, task_id: context.taskId, session_id: context.sessionId };
    const reply = await askPeer(peers, 'tool.execute', data, context);
    const result = readToolResult(reply);
    if (result === null) throw new Error('The tool answered nothing that can be read.');
    return result;
  }

  return {
    name,
    effects: true,
    definition: {
      type: 'function',
      function: {
        name,
        description: `The tool ${name.replaceAll(/[_-]+/g, ' ')}.`,
        parameters: { type: 'object', properties: {}, additionalProperties: true },
      },
    },
    prepare: (args) =>
      typeof args === 'object' && args !== null && !Array.isArray(args)
        ? { ok: true, run: (context) => execute(args, context) }
        : { ok: false, problem: 'the arguments are not a JSON object.' },
  };
}
