/** The clients of this node whose sessions live on others: keeps the state of each, and does what it decides. */
import { CLOSE, type Close, type ErrorData } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { Caller } from '../../src/domain/turn.ts';
import type { Boot, SessionKey } from '../../src/ports/cluster.ts';
import type { Attachment, CrossingFrame, FramesItem, LinkItem } from '../../src/ports/links.ts';
import type { Client, ResumePoint } from '../../src/ports/sessions.ts';
import {
  type FoundPlace,
  newRemoteClient,
  newRemoteWatcher,
  type RemoteClientEffect,
  type RemoteClientMessage,
  type RemoteClientState,
  remoteClient,
} from './gateway.ts';
import type { AttachBody } from './guests.ts';
import type { Links } from './links.ts';

export interface RemoteClientsDeps {
  readonly links: Pick<Links, 'ask' | 'send'>;
  readonly after: (ms: number, act: () => void) => void;
  /** Calls back once, perhaps at once. */
  readonly find: (caller: Caller, sessionId: SessionId, done: (place: FoundPlace) => void) => void;
  readonly moved: (key: SessionKey) => void;
  /** Never throws, and nobody waits for it. */
  readonly want: (key: SessionKey, owner: Boot) => void;
  readonly attachHere: (
    caller: Caller,
    sessionId: SessionId,
    client: Client,
    resume: ResumePoint | undefined,
  ) => void;
  /** A frame as edges send it. */
  readonly frameOf: (frame: CrossingFrame) => Frame;
  /** Sends `error`, and closes the client. */
  readonly refuse: (client: Client, error: ErrorData) => void;
}

/** Order: a client is given frames in the order in which its owner sent them, and none after it was closed. */
export interface RemoteClients {
  /** Attaches a client wherever its session is; it is told as by Directory.attach. */
  attach(caller: Caller, sessionId: SessionId, client: Client, resume: ResumePoint | undefined): void;
  /** An observer that goes with a turn which that owner is asked to take; returns what the owner is to know of it. */
  watch(caller: Caller, sessionId: SessionId, client: Client, taskId: TaskId, owner: Boot): AttachBody;
  /** What became of that turn: unless it was taken, the observer is forgotten. */
  watched(clientId: string, wasTaken: boolean): void;
  /** Whether there was such a client. */
  detach(clientId: string): boolean;
  /** An item of another node: for clients that this one does not know the sender is told so. */
  received(from: Boot, item: LinkItem): void;
  torn(from: Boot): void;
  /** That boot is dead. */
  lose(boot: Boot): void;
  /** That boot was not heard of for long. */
  silent(boot: Boot): void;
  /** Sends each of them a frame of this node's own. */
  tell(frame: () => Frame): void;
  /** Lets all of them go, to come back to another node. */
  close(): void;
  /** Boots that have clients of this node. */
  owners(): ReadonlySet<Boot>;
  size(): number;
}

/** A session's key, with who asks and how it wants its frames. */
interface RemoteClient {
  readonly caller: Caller;
  readonly sessionId: SessionId;
  readonly client: Client;
  readonly only: TaskId | undefined;
  state: RemoteClientState;
}

export function createRemoteClients(deps: RemoteClientsDeps): RemoteClients {
  const { links } = deps;
  const clients = new Map<string, RemoteClient>();

  function take(remote: RemoteClient, message: RemoteClientMessage): void {
    const [state, effects] = remoteClient(remote.state, message);
    remote.state = state;
    if (state.phase === 'gone' && clients.get(remote.client.id) === remote) clients.delete(remote.client.id);
    for (const effect of effects) carryOut(remote, effect);
  }

  function carryOut(remote: RemoteClient, effect: RemoteClientEffect): void {
    const { client, caller, sessionId, state } = remote;
    switch (effect.type) {
      case 'find':
        return deps.after(effect.afterMs, () => find(remote, effect.generation));
      case 'attach':
        return attach(remote, effect);
      case 'mend':
        return deps.after(effect.afterMs, () => take(remote, { type: 'due' }));
      case 'attachHere':
        return deps.attachHere(caller, sessionId, client, state.resume);
      case 'pass':
        for (const frame of effect.frames) client.send(deps.frameOf(frame));
        return;
      case 'detach':
        return links.send(effect.owner, detachItem(keyOf(remote), client.id));
      case 'moved':
        return deps.moved(keyOf(remote));
      case 'want':
        return deps.want(keyOf(remote), effect.owner);
      case 'refuse':
        return deps.refuse(client, effect.error);
      case 'close':
        return client.close(effect.close);
    }
  }

  function find(remote: RemoteClient, generation: number): void {
    if (remote.state.generation !== generation || remote.state.phase !== 'finding') return;
    deps.find(remote.caller, remote.sessionId, (place) => take(remote, { type: 'found', generation, place }));
  }

  function attach(
    remote: RemoteClient,
    { owner, generation, again }: Extract<RemoteClientEffect, { type: 'attach' }>,
  ): void {
    const body = bodyOf(remote, generation, again);
    links.ask(owner, 'attach', body, (outcome) => take(remote, { type: 'answered', generation, outcome }));
  }

  /** One frame may be for many. */
  function pass(from: Boot, { to, frames }: FramesItem): void {
    for (const [clientId, generation] of to) {
      const remote = clients.get(clientId);
      if (remote) take(remote, { type: 'frames', from, generation, frames });
    }
  }

  function release(from: Boot, to: readonly Attachment[], close: Close): void {
    for (const [clientId, generation] of to) {
      const remote = clients.get(clientId);
      if (remote) take(remote, { type: 'released', from, generation, close });
    }
  }

  const add = (remote: RemoteClient): void => void clients.set(remote.client.id, remote);

  return {
    attach(caller, sessionId, client, resume) {
      const remote = { caller, sessionId, client, only: resume?.taskId, state: newRemoteClient(resume) };
      add(remote);
      find(remote, remote.state.generation);
    },
    watch(caller, sessionId, client, taskId, owner) {
      const state = newRemoteWatcher(owner, { lastSeq: 0, epoch: undefined, taskId });
      const remote = { caller, sessionId, client, only: taskId, state };
      add(remote);
      return bodyOf(remote, state.generation, true);
    },
    watched(clientId, wasTaken) {
      const remote = clients.get(clientId);
      if (!remote) return;
      const { generation } = remote.state;
      if (wasTaken) take(remote, { type: 'answered', generation, outcome: { type: 'ok', value: null } });
      else take(remote, { type: 'left' });
    },
    detach(clientId) {
      const remote = clients.get(clientId);
      if (remote) take(remote, { type: 'left' });
      return remote !== undefined;
    },
    received(from, item) {
      if (item.kind === 'frames') pass(from, item);
      else if (item.kind === 'close') release(from, item.to, closeOf(item.code));
      else if (item.kind === 'guests')
        for (const { tenantId, sessionId, clientId } of item.clients)
          if (clients.get(clientId)?.state.owner !== from)
            links.send(from, detachItem({ tenantId, sessionId }, clientId));
    },
    torn(from) {
      for (const remote of clients.values()) take(remote, { type: 'torn', from });
    },
    lose(boot) {
      for (const remote of [...clients.values()]) take(remote, { type: 'lost', boot });
    },
    silent(boot) {
      for (const remote of [...clients.values()]) take(remote, { type: 'silent', boot });
    },
    tell(frame) {
      for (const { client } of clients.values()) client.send(frame());
    },
    close() {
      for (const remote of [...clients.values()]) {
        take(remote, { type: 'left' });
        remote.client.close(CLOSE.restart);
      }
    },
    owners: () =>
      new Set([...clients.values()].flatMap(({ state }) => (state.owner === undefined ? [] : [state.owner]))),
    size: () => clients.size,
  };
}

const keyOf = ({ caller, sessionId }: RemoteClient): { tenantId: TenantId; sessionId: SessionId } => ({
  tenantId: caller.tenantId,
  sessionId,
});

const detachItem = ({ tenantId, sessionId }: SessionKey, clientId: string): LinkItem => ({
  kind: 'detach',
  tenantId,
  sessionId,
  clientId,
});

/** What an owner is asked with. */
function bodyOf(remote: RemoteClient, generation: number, again: boolean): AttachBody {
  const { client, caller, sessionId, only, state } = remote;
  const { id: clientId, deltaWindowMs, reasoning } = client;
  return {
    caller,
    sessionId,
    clientId,
    generation,
    again,
    deltaWindowMs,
    reasoning,
    only,
    resume: state.resume,
  };
}

/** A code of the protocol's; whatever else a newer node may say, the client is to come back. */
const closeOf = (code: number): Close =>
  Object.values(CLOSE).find((close) => close.code === code) ?? CLOSE.restart;
