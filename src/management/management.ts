/** Agent management of a node, put together: rules from src/domain, its store, the live agents, and notices. */
import type { AgentManagement, Notices, TaskTaker, TemplateManagement } from '../ports/management.ts';
import type { Log } from '../ports/telemetry.ts';
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

/** Listeners are called in the order in which they came, in the same tick as `publish`. */
export function createNotices(log: Log): Notices {
  const listeners = new Map<symbol, Parameters<Notices['listen']>[0]>();
  return {
    publish(notice, stored = false) {
      for (const listener of [...listeners.values()]) {
        try {
          listener(notice, stored);
        } catch (error) {
          log.error({ err: error, event: notice.event }, 'a listener of notices failed');
        }
      }
    },
    listen(listener) {
      const key = Symbol(); // one listener may listen twice
      listeners.set(key, listener);
      return () => void listeners.delete(key);
    },
  };
}
