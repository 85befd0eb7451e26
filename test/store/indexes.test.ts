/** No query of the stores reads a whole table: SQLite says of each how it would find its rows. */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { openStores } from '../../src/store/open.ts';
import { quiet } from '../support/quiet.ts';
import { temporary } from '../support/temporary.ts';

const KEY = "tenant_id = 'a'";
const QUERIES: Readonly<Record<string, string>> = {
  'a page of a session': `select * from turns where ${KEY} and session_id = 's' and seq < 9 order by seq desc limit 9`,
  'its interrupted turns': `select * from turns where ${KEY} and session_id = 's' and untold = 1 order by seq`,
  'a turn': `select * from turns where ${KEY} and task_id = 't'`,
  'a deleted session': `delete from turns where ${KEY} and session_id = 's'`,
  'turns to interrupt': `update turns set status = 'failed' where finished_at is null`,
  'sessions to expire': 'select * from sessions where last_at < 9 order by last_at limit 9',
  'sessions of a tenant': `select * from sessions where ${KEY} and session_id > 's' order by session_id limit 9`,
  'agents by creation': `select * from agents where ${KEY} and deleted = 0 order by created_at, agent_id`,
  'an agent by slug': `select * from agents where ${KEY} and slug = 's' and deleted = 0`,
  'versions of an agent': `select * from agent_versions where ${KEY} and agent_id = 'a' order by version desc`,
  'deliveries of a webhook': `select * from deliveries where ${KEY} and webhook_id = 'w' order by created_at desc`,
  'old deliveries of a webhook': `select * from deliveries where ${KEY} and webhook_id = 'w'
    and settled_at is not null and settled_at < 9 order by settled_at, delivery_id limit 9`,
  'too many deliveries of a webhook': `select * from deliveries where ${KEY} and webhook_id = 'w'
    and settled_at is not null order by settled_at, delivery_id limit 9`,
  'how many deliveries a webhook has': `select count(*) from deliveries where ${KEY} and webhook_id = 'w'`,
  'settled deliveries to delete': `delete from deliveries where ${KEY} and delivery_id in ('a', 'b')
    and settled_at is not null`,
  'webhooks behind another': `select * from webhooks where (tenant_id, webhook_id) > ('a', 'w')
    order by tenant_id, webhook_id limit 9`,
  'an answer to an action': `select * from outgoing where ${KEY} and answers = 'r' order by seq limit 1`,
  'unsent messages': 'select * from outgoing where unsent = 1 and seq > 9 order by seq limit 9',
  'a sent answer': `update outgoing set unsent = 0 where ${KEY} and id = 'i' and answers is not null`,
  'a sent message': `delete from outgoing where ${KEY} and id = 'i' and answers is null`,
  'answers to forget': `select seq from outgoing where unsent = 0 and created_at < 9 order by created_at limit 9`,
  'due deliveries': `select * from deliveries where status = 'pending' and due_at <= 9 order by due_at`,
};

test('every query finds its rows by an index', async (t) => {
  const { path, database } = temporary(t);
  const stores = await openStores({ url: database, log: quiet });
  await stores.close();
  const db = new DatabaseSync(path('nooble.db'));
  try {
    for (const [name, query] of Object.entries(QUERIES)) {
      const plan = db.prepare(`explain query plan ${query}`).all();
      const steps = plan
        .map((step) => String(step.detail))
        .filter((step) => !/LAST TERM OF ORDER BY/.test(step));
      assert.ok(
        steps.every((step) =>
          /^SEARCH .* USING .*(INDEX|PRIMARY KEY)|^SCAN \w+ USING INDEX \w+_un/.test(step),
        ),
        `${name}: ${steps.join('; ')}`,
      );
    }
    for (const name of ['old deliveries of a webhook', 'too many deliveries of a webhook']) {
      const [step] = db.prepare(`explain query plan ${QUERIES[name]}`).all();
      assert.match(String(step?.detail), /deliveries_settled/, `${name}: nothing is sorted`);
    }
    const unsent = db.prepare(`explain query plan ${QUERIES['unsent messages']}`).all();
    assert.match(String(unsent[0]?.detail), /outgoing_unsent/, 'those that were sent are not looked at');
  } finally {
    db.close();
  }
});
