/** Times how long a new version of an agent takes to reach a session whose turns never pause. */
import { Agent, request } from 'node:http';
import { z } from 'zod';
import { quantiles, recording } from '../kit/numbers.ts';
import type { CommandOf, Reports } from './commands.ts';
import { encoded, openSession } from './session.ts';
import { KIND } from './socket.ts';

const TIMEOUT_MS = 10_000;

const agentSchema = z.object({ version: z.number() });
const startedSchema = z.object({ data: z.object({ agent_version: z.number() }) });

/** A session that says one thing after another to an agent, and tells which version each turn runs. */
interface Chatter {
  /** Resolves with the first turn that runs this version, or a newer one; to the time since `sinceMs`. */
  runs(version: number, sinceMs: number): Promise<number>;
  /** From now on whatever is sent must run this version. */
  expect(version: number): void;
  /** Turns begun, and those of them that ran less than was expected. */
  readonly counts: { turns: number; stale: number };
  stop(): Promise<void>;
}

/** Patches one version after another; the first `warm` are not counted. */
export async function update(command: CommandOf<'update'>): Promise<Reports['update']> {
  const { count, warm } = command;
  const answered = recording();
  const inForce = recording();
  const connection = new Agent({ keepAlive: true, maxSockets: 1 });
  const chatter = await chat(command);
  try {
    let version = await patch(command, connection, 'Version 0.');
    chatter.expect(version);
    for (let i = 0; i < warm + count; i++) {
      const fromMs = performance.now();
      const running = chatter.runs(version + 1, fromMs);
      // Whichever fails first is told; the other must not end the process.
      running.catch(() => undefined);
      version = await patch(command, connection, `You are version ${i}.`);
      const answeredMs = performance.now() - fromMs;
      chatter.expect(version);
      const inForceMs = await running;
      if (i < warm) continue;
      answered.add(answeredMs);
      inForce.add(inForceMs);
    }
    return {
      answeredMs: quantiles(answered.values()),
      inForceMs: quantiles(inForce.values()),
      ...chatter.counts,
    };
  } finally {
    await chatter.stop();
    connection.destroy();
  }
}

async function chat({ port, tenant, session, agentId }: CommandOf<'update'>): Promise<Chatter> {
  const said = encoded('json', 'chat.send', { message: 'Go on.', agent_id: agentId });
  const counts = { turns: 0, stale: 0 };
  let expected = 0;
  let sentExpecting = 0;
  let going = true;
  let awaited: { version: number; resolve: () => void; reject: (error: Error) => void } | undefined;
  let closed: (() => void) | undefined;
  const gone = new Promise<void>((resolve) => {
    closed = resolve;
  });
  const send = (): void => {
    sentExpecting = expected;
    socket.write(said);
  };
  const socket = await openSession('json', port, `/ws/${tenant}/${session}`, {
    frame(kind, bytes, start, end) {
      if (kind === KIND.started) {
        const { agent_version } = startedSchema.parse(JSON.parse(bytes.toString('utf8', start, end))).data;
        counts.turns += 1;
        if (agent_version < sentExpecting) counts.stale += 1;
        if (awaited && agent_version >= awaited.version) awaited.resolve();
      } else if (kind === KIND.response && going) send();
      else if (kind === KIND.response) socket.close();
      else if (kind === KIND.error) {
        going = false;
        awaited?.reject(new Error(bytes.toString('utf8', start, end)));
        socket.close();
      }
    },
    closed: () => closed?.(),
  });
  send();
  return {
    counts,
    expect(version) {
      expected = version;
    },
    runs: (version, sinceMs) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no turn with version ${version}`)), TIMEOUT_MS);
        awaited = {
          version,
          reject,
          resolve() {
            clearTimeout(timer);
            awaited = undefined;
            resolve(performance.now() - sinceMs);
          },
        };
      }),
    stop() {
      going = false;
      return gone;
    },
  };
}

/** Resolves to the version that the answer names, once it is read in full. */
function patch(
  { port, tenant, agentId }: CommandOf<'update'>,
  connection: Agent,
  prompt: string,
): Promise<number> {
  const body = JSON.stringify({ system_prompt: prompt });
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        ...{ host: '127.0.0.1', port, path: `/api/agents/${agentId}`, method: 'PATCH', agent: connection },
        headers: {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(body),
          'x-tenant-id': tenant,
        },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.once('error', reject);
        response.once('end', () => {
          const text = Buffer.concat(chunks).toString();
          if (response.statusCode === 200) resolve(agentSchema.parse(JSON.parse(text)).version);
          else reject(new Error(`PATCH: ${response.statusCode} ${text}`));
        });
      },
    );
    sent.once('error', reject);
    sent.end(body);
  });
}
