/** What Linux says about a process from outside: CPU time and resident memory. */
import { readFileSync } from 'node:fs';

/** Ticks of /proc/<pid>/stat are a hundredth of a second on every Linux that Node runs on. */
const TICK_US = 10_000;

/** User and system time of all the process's threads so far, in µs; NaN where there is no /proc. */
export function cpuUs(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // Fields count from behind the command name, which may contain anything; utime and stime are 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_US;
  } catch {
    return Number.NaN;
  }
}

/** Resident memory in KiB; NaN where there is no /proc. */
export function rssKib(pid: number): number {
  try {
    const found = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(found?.[1] ?? Number.NaN);
  } catch {
    return Number.NaN;
  }
}

/** Processes that this one started and that still run; none where there is no /proc. */
export function childrenOf(pid: number): readonly number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
