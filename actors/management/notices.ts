/** Carries notices from agent management to whoever listens in this process. */
import type { TenantNotice } from '../../src/domain/agent-record.ts';
import type { Notices } from '../../src/management-ports.ts';
import type { Log } from '../../src/ports.ts';

/** Listeners are called in the order in which they came, in the same tick as `publish`. */
export function createNotices(log: Log): Notices {
  const listeners = new Set<{ readonly hear: (notice: TenantNotice) => void }>();
  return {
    publish(notice) {
      for (const { hear } of [...listeners]) {
        try {
          hear(notice);
        } catch (error) {
          log.error({ err: error, event: notice.event }, 'a listener of notices failed');
        }
      }
    },
    listen(hear) {
      const listener = { hear };
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
