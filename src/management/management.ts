/** Agent management of a node, put together: rules from src/domain, its store, the live agents, and notices. */
import type { AgentManagement, TaskTaker, TemplateManagement } from '../ports/management.ts';
import { createAgentWriter } from './agent-writer.ts';
import { createAgentManagement, createValidate } from './agents.ts';
import { createBulk } from './bulk.ts';
import type { ManagementOptions } from './context.ts';
import { createTaskTaker } from './tasks.ts';
import { createTemplateManagement } from './templates.ts';

export type { ManagementOptions } from './context.ts';

interface Management {
  readonly agents: AgentManagement;
  readonly templates: TemplateManagement;
  readonly takeTask: TaskTaker;
  /** Begins no more items of bulk tasks and waits for those under way. Call it before the store is closed. */
  close(): Promise<void>;
}

export function createManagement(options: ManagementOptions): Management {
  const writer = createAgentWriter(options);
  const validate = createValidate(options);
  const bulk = createBulk(options, writer);
  return {
    agents: createAgentManagement(options, { writer, validate, bulk }),
    templates: createTemplateManagement(options),
    takeTask: createTaskTaker(options, { writer, validate }),
    close: () => bulk.close(),
  };
}
