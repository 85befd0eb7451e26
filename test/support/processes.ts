/** Servers and nodes in processes of their own: their ports, and their end by pid. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import type { TestContext } from 'node:test';

/** Has a server listen on a free port of loopback; resolves to it. */
export async function listen(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Ports of loopback that nobody listens on. Held all at once, so that they differ. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(servers.map(listen));
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}

export async function freePort(): Promise<number> {
  const [port = 0] = await freePorts(1);
  return port;
}

/** Ends a process that may have ended already, by default with -9; resolves once it is gone. */
export async function killed(
  child: ChildProcess | undefined,
  signal: NodeJS.Signals = 'SIGKILL',
): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'close');
  child.kill(signal);
  await gone;
}

/** A test file that breaks off must leave no process behind: `end` is called then, unless the returned function was. */
export function orphanGuard(end: () => void): () => void {
  process.once('exit', end);
  return () => void process.off('exit', end);
}

/** Ends a daemon of a test with it: no child that the test has left behind, but a process all the same. */
export function endsWith(t: TestContext, pid: number, signal: NodeJS.Signals): void {
  const end = () => process.kill(pid, signal);
  const release = orphanGuard(end);
  t.after(() => {
    release();
    end();
  });
}
