/** What becomes of a client whose session another node has. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newRemoteClient, type RemoteClientMessage, remoteClient } from '../../../actors/cluster/gateway.ts';
import type { CrossingFrame } from '../../../src/ports/links.ts';

const frame = (type: string, seq?: number, data: object = {}): CrossingFrame => ({
  ...{ type, seq, atMs: 0, taskId: undefined, text: JSON.stringify({ data }) },
});
const ready = (seq: number, recovered?: boolean): CrossingFrame =>
  frame('session.ready', undefined, { epoch: 'e', seq, ...(recovered === undefined ? {} : { recovered }) });

function client() {
  let state = newRemoteClient(undefined);
  return {
    state: () => state,
    take(message: RemoteClientMessage): readonly string[] {
      const [next, effects] = remoteClient(state, message);
      state = next;
      return effects.map(({ type }) => type);
    },
    frames(generation: number, ...frames: readonly CrossingFrame[]): readonly string[] {
      return this.take({ type: 'frames', from: 2, generation, frames });
    },
    found() {
      return this.take({ type: 'found', generation: state.generation, place: { at: 'there', owner: 2 } });
    },
  };
}

test('a gap is mended from what the client has, and it sees nothing of it', () => {
  const remote = client();
  const { take, state } = remote;
  assert.deepEqual(remote.found(), ['attach']);
  assert.deepEqual(
    take({ type: 'frames', from: 2, generation: 1, frames: [ready(5), frame('chat.delta', 6)] }),
    ['pass'],
  );
  assert.deepEqual(take({ type: 'torn', from: 2 }), ['mend']);
  assert.deepEqual(take({ type: 'torn', from: 2 }), [], 'a second gap before it begins');
  assert.deepEqual(take({ type: 'frames', from: 2, generation: 1, frames: [frame('chat.delta', 8)] }), []);
  assert.deepEqual(take({ type: 'due' }), ['attach']);
  const { generation, resume } = state();
  assert.deepEqual(resume, { epoch: 'e', lastSeq: 6 });
  assert.deepEqual(take({ type: 'frames', from: 2, generation, frames: [ready(8, true)] }), []);
  assert.deepEqual(state().resume, { epoch: 'e', lastSeq: 6 }, 'what its owner gave out it does not have');
  assert.deepEqual(take({ type: 'frames', from: 2, generation, frames: [frame('chat.delta', 7)] }), ['pass']);
  assert.deepEqual(take({ type: 'answered', generation, outcome: { type: 'lost', why: 'silent' } }), []);
  assert.deepEqual(take({ type: 'lost', boot: 2 }), ['moved', 'close']);
  assert.deepEqual(take({ type: 'left' }), []);
});

test('before it was greeted its owner is looked for again, five times, and then it is refused', () => {
  const remote = client();
  for (let n = 0; n < 5; n += 1) {
    assert.deepEqual(remote.found(), ['attach']);
    const { generation } = remote.state();
    assert.deepEqual(remote.take({ type: 'answered', generation, outcome: { type: 'notMine' } }), [
      'moved',
      'find',
    ]);
  }
  remote.found();
  const { generation } = remote.state();
  assert.deepEqual(remote.take({ type: 'answered', generation, outcome: { type: 'notMine' } }), [
    'moved',
    'refuse',
  ]);
});

test('an owner that can not be reached is asked for its session through the database', () => {
  const remote = client();
  remote.found();
  const { generation } = remote.state();
  const lost = { type: 'lost', why: 'away' } as const;
  assert.deepEqual(remote.take({ type: 'answered', generation, outcome: lost }), [
    'detach',
    'want',
    'moved',
    'find',
  ]);
});
