/** Looks at one turn in full: a peer that sends less would not be a peer. */
import type { CommandOf, Reports } from './commands.ts';
import { encoded, openSession } from './session.ts';
import { KIND } from './socket.ts';

/** One turn on a session of its own, on the server that was opened last. Deltas must add up to the answer. */
export async function verify(target: CommandOf<'open'>): Promise<Reports['verify']> {
  const { dialect, port, tenant, query } = target;
  const report = { frames: 0, deltas: 0, bytes: 0, content: '' };
  let streamed = '';
  await new Promise<void>((resolve, reject) => {
    const opened = openSession(dialect, port, `/ws/${tenant}/verify${query}`, {
      frame(kind, bytes, start, end) {
        if (kind === KIND.ready) return;
        const text = bytes.toString('utf8', start, end);
        if (kind === KIND.error) reject(new Error(text));
        const frame = parsed(text);
        if (frame === undefined) return;
        report.frames += 1;
        report.bytes += end - start;
        const content = contentOf(frame);
        if (kind === KIND.delta) {
          report.deltas += 1;
          streamed += content;
        } else if (kind === KIND.response) {
          report.content = content;
          resolve();
        }
      },
      closed: () => reject(new Error('closed during its turn')),
    });
    opened.then((socket) => socket.write(encoded(dialect, 'chat.send', { message: 'Tell me.' })), reject);
    setTimeout(() => reject(new Error('no answer within 10 s')), 10_000).unref();
  });
  if (streamed !== report.content) throw new Error(`deltas do not add up: ${streamed} / ${report.content}`);
  return report;
}

function contentOf(frame: unknown): string {
  if (typeof frame !== 'object' || frame === null || !('data' in frame)) return '';
  const { data } = frame;
  if (typeof data !== 'object' || data === null || !('content' in data)) return '';
  return typeof data.content === 'string' ? data.content : '';
}

/** Our frame, or the argument of a Socket.IO event; undefined for what is neither. */
function parsed(text: string): unknown {
  if (text.startsWith('{')) return JSON.parse(text);
  if (!text.startsWith('42')) return undefined;
  const event: unknown = JSON.parse(text.slice(2));
  return Array.isArray(event) ? event[1] : undefined;
}
