/**
 * Floor (a): uWebSockets.js sends the frames of a turn, built beforehand.
 * Argument `corked`: all in one write; `writes`: each in its own. With paced tokens each is its own anyway.
 */
import { type PeerSocket, serveUws } from './uws-server.ts';

const AT = '2026-01-01T00:00:00.000Z';
const TASK = '01890a5d-ac96-774b-bcce-b302099a8057';
const numbered = (type: string, seq: number, data: object): string =>
  JSON.stringify({ type, seq, ts: AT, task_id: TASK, data });

const [, tokens = '50', pace = '0'] = /^offline-(\d+)x(\w+)$/.exec(process.env.BENCH_MODEL ?? '') ?? [];
const words = Array.from({ length: Number(tokens) }, (_, i) => `tok${i + 1} `);
const frames: readonly string[] = [
  numbered('chat.accepted', 1, { status: 'processing', position: 0 }),
  numbered('execution.started', 2, { agent_id: 'default', agent_version: 1, model: 'offline-50x0' }),
  ...words.map((content, i) => numbered('chat.delta', i + 3, { content })),
  numbered('chat.response', words.length + 3, {
    content: words.join(''),
    role: 'assistant',
    execution_info: {
      execution_time_ms: 1,
      time_to_first_token_ms: 0,
      iterations: 1,
      tools_used: [],
      tokens_used: words.length,
      model: 'offline-50x0',
    },
  }),
];
const HEAD = 2;

function atOnce(socket: PeerSocket): void {
  for (const frame of frames) socket.send(frame);
}

function paced(socket: PeerSocket, at = 0): void {
  if (!socket.getUserData().open) return;
  if (at === 0) for (const frame of frames.slice(0, HEAD)) socket.send(frame);
  const frame = frames[at + HEAD];
  if (frame === undefined) return;
  socket.send(frame);
  setImmediate(paced, socket, at + 1);
}

const answer: (socket: PeerSocket) => void =
  pace === 'tick'
    ? (socket) => setImmediate(paced, socket)
    : process.argv[2] === 'corked'
      ? atOnce
      : // Behind a loop turn the handler's automatic cork is gone.
        (socket) => setImmediate(() => socket.getUserData().open && atOnce(socket));

serveUws({
  ready: JSON.stringify({ type: 'session.ready', data: {} }),
  message: answer,
});
