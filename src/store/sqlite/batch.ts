/** Carries out a batch of writes in one SQLite transaction. Runs in the worker: nothing here may be asynchronous. */
import type { DatabaseSync } from 'node:sqlite';
import { dayOf } from '../../domain/rate-limit.ts';
import {
  type AcceptedRow,
  type EncodedWrite,
  type OutgoingKey,
  OVER,
  type SessionRow,
  type StoredOutgoing,
} from '../encode.ts';
import { createStatements, type Statements } from './statements.ts';
import { createTouches, type Touches } from './touches.ts';

export type RunBatch = (writes: readonly EncodedWrite[]) => readonly number[];

interface BatchContext {
  readonly statements: Statements;
  readonly touches: Touches;
  /** Accepted turns by tenant and day, counted once a batch. */
  readonly used: Map<string, DailyCount>;
}

type DailyCount = Pick<AcceptedRow, 'tenant_id' | 'day'> & { used: number };
type Write<K extends EncodedWrite['kind']> = Extract<EncodedWrite, { kind: K }>;

/** Stores all writes or none. Outcomes as in encode.ts. */
export function createBatch(db: DatabaseSync): RunBatch {
  const statements = createStatements(db);
  const context: BatchContext = { statements, touches: createTouches(), used: new Map() };
  let version: unknown;

  /** Another process may have deleted sessions: SQLite tells whether one has written since the last batch. */
  function heedOthers(): void {
    const found = statements.all('dataVersion', {})[0]?.data_version;
    if (found !== version) context.touches.clear();
    version = found;
  }

  return (writes) => {
    db.exec('begin immediate');
    try {
      heedOthers();
      context.used.clear();
      const outcomes = writes.map((write) => apply(context, write));
      for (const count of context.used.values()) statements.run('count', count);
      db.exec('commit');
      return outcomes;
    } catch (error) {
      context.touches.clear();
      // SQLite has rolled back by itself after some failures, as after that of a full disk.
      if (db.isTransaction) db.exec('rollback');
      throw error;
    }
  };
}

function apply(context: BatchContext, write: EncodedWrite): number {
  const { statements } = context;
  switch (write.kind) {
    case 'accepted':
      return accept(context, write);
    case 'ended':
      return end(statements, write);
    case 'outgoing':
      return storeOutgoing(statements, write.outgoing);
    case 'sent':
      return markSent(statements, write.sent);
    case 'deleted':
      return deleteSession(context, write.row);
    case 'expired':
      return expire(context, write);
    case 'forgotten':
      return statements.run('forgotten', write.row);
    case 'probe':
      return statements.run('probe', {});
    case 'withdrawn':
      return withdraw(context, write);
    // Who has the database to itself gives nothing up.
    case 'released':
      return 1;
    case 'effects':
    case 'overtaken':
    case 'notified':
    case 'tier':
    case 'interrupted':
      statements.run(write.kind, write.row);
      return 1;
  }
}

function accept(context: BatchContext, { row, resumable }: Write<'accepted'>): number {
  const { statements, used } = context;
  if (row.most !== null && isOver(context, row)) {
    if (statements.all('known', row).length === 0) return OVER;
    return resumable ? statements.run('resume', row) : 0;
  }
  if (statements.run('accept', row) === 0) return resumable ? statements.run('resume', row) : 0;
  touch(context, row);
  const key = `${row.tenant_id} ${row.day}`;
  const count = used.get(key);
  if (count) count.used += 1;
  else used.set(key, { tenant_id: row.tenant_id, day: row.day, used: 1 });
  return 1;
}

/** Whether the tenant's day has no room left for one more. */
function isOver({ statements, used }: BatchContext, row: AcceptedRow): boolean {
  const stored = Number(statements.all('used', row)[0]?.used ?? 0);
  return (
    stored + (used.get(`${row.tenant_id} ${row.day}`)?.used ?? 0) >= (row.most ?? Number.POSITIVE_INFINITY)
  );
}

/** It is taken out of the count of its day, too. */
function withdraw({ statements, used }: BatchContext, { row }: Write<'withdrawn'>): number {
  if (statements.run('withdrawn', row) === 0) return 1;
  const day = dayOf(row.created_at);
  const count = used.get(`${row.tenant_id} ${day}`);
  if (count && count.used > 0) count.used -= 1;
  else statements.run('uncounted', { tenant_id: row.tenant_id, day });
  return 1;
}

function touch({ statements, touches }: BatchContext, row: AcceptedRow): void {
  const { tenant_id, session_id, asked_at } = row;
  if (touches.fresh(tenant_id, session_id, asked_at)) return;
  const changed = statements.run('touch', row) > 0;
  const lastAtMs = changed ? asked_at : Number(statements.all('touched', row)[0]?.last_at);
  touches.note(tenant_id, session_id, lastAtMs);
}

/** A turn that is not there (deleted meanwhile) is left alone; one that has ended is a duplicate. */
function end(statements: Statements, { row, outgoing }: Write<'ended'>): number {
  const missed = statements.run('end', row) === 0;
  if (missed && statements.all('known', row).length > 0) return 0;
  return storeOutgoing(statements, outgoing);
}

function storeOutgoing(statements: Statements, outgoing: readonly StoredOutgoing[]): number {
  for (const row of outgoing) statements.run('storeOutgoing', row);
  return 1;
}

/** Answers are remembered, the rest is deleted. */
function markSent(statements: Statements, sent: readonly OutgoingKey[]): number {
  for (const key of sent) if (statements.run('rememberSent', key) === 0) statements.run('deleteSent', key);
  return 1;
}

function deleteSession({ statements, touches }: BatchContext, key: SessionRow): number {
  statements.run('deleteTurns', key);
  statements.run('deleteSession', key);
  touches.drop(key.tenant_id, key.session_id);
  return 1;
}

/** `last_at` of a session may lag behind its messages: it is corrected where they are younger. */
function expire(context: BatchContext, { row: { before_ms, ...more } }: Write<'expired'>): number {
  const found = context.statements.all('oldSessions', { before_ms, ...more });
  for (const { tenant_id, session_id, last_at } of found) {
    const key = { tenant_id: String(tenant_id), session_id: String(session_id) };
    if (Number(last_at) < before_ms) deleteSession(context, key);
    else context.statements.run('correctAge', { ...key, last_at: Number(last_at) });
  }
  return found.length;
}
