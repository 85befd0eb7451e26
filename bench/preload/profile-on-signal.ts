/** Loaded before a server: the first SIGUSR2 starts a CPU profile, the second writes it to PROFILE_FILE. */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';

const SAMPLE_US = 200;
const session = new Session();
let profiling = false;

async function toggle(): Promise<void> {
  if (!profiling) {
    profiling = true;
    session.connect();
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: SAMPLE_US });
    await session.post('Profiler.start');
    process.send?.({ profile: 'started' });
    return;
  }
  const { profile } = await session.post('Profiler.stop');
  writeFileSync(process.env.PROFILE_FILE ?? 'server.cpuprofile', JSON.stringify(profile));
  profiling = false;
  session.disconnect();
  process.send?.({ profile: 'written' });
}

process.on('SIGUSR2', () => {
  toggle().catch((error: unknown) => console.error(error));
});
// The IPC channel alone must not keep a server alive that has drained.
process.channel?.unref();
