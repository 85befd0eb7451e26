/** The tool that gives the model the time, in any time zone. */
import { z } from 'zod';
import type { Clock } from '../../ports/telemetry.ts';
import { defineTool, type Tool } from './tool.ts';

const schema = z.strictObject({
  timezone: z.string().min(1).max(64).optional().describe('IANA name, e.g. Europe/Madrid. Default: UTC.'),
});

/** `current_time {timezone?}`: an ISO instant, and the wall clock of the zone in words. */
export function currentTime(clock: Clock): Tool {
  return defineTool({
    name: 'current_time',
    description: 'The current date and time, in UTC or in a time zone.',
    schema,
    async run({ timezone = 'UTC' }) {
      const now = new Date(clock.now());
      return `${now.toISOString()} (${timezone}: ${wallClock(now, timezone)})`;
    },
  });
}

function wallClock(now: Date, timeZone: string): string {
  try {
    return new Intl.DateTimeFormat('en-GB', { timeZone, dateStyle: 'full', timeStyle: 'long' }).format(now);
  } catch {
    throw new Error(`Unknown time zone "${timeZone}"; use an IANA name such as Europe/Madrid.`);
  }
}
