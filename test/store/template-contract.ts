/** What every template store must do, whatever is behind it. */
import assert from 'node:assert/strict';
import type { Template } from '../../src/domain/agent-record.ts';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import type { TemplateStore } from '../../src/ports/management.ts';
import { type Over, overEach } from './records.ts';

const acme = tenantIdSchema.parse('acme');
const umbrella = tenantIdSchema.parse('umbrella');
const at = (second: number): string => new Date(1_700_000_000_000 + second * 1_000).toISOString();

const template = (id: string, more: Partial<Template> = {}): Template => ({
  id,
  tenant_id: acme,
  name: `Template ${id}`,
  slug: id,
  description: 'A \u0000 description.',
  agent: { type: 'rag', temperature: 1, system_prompt: 'Hello {{name}}' },
  version: 1,
  created_at: at(1),
  updated_at: at(more.version ?? 1),
  ...more,
});

export interface OpenTemplates {
  readonly templates: TemplateStore;
  close(): Promise<void>;
}

/** Runs the contract over stores that `open` makes; each test opens its own and closes it. */
export function templateContract(name: string, open: () => Promise<OpenTemplates>): void {
  const each = overEach(name, open);
  const over: Over<TemplateStore> = (sentence, body) => each(sentence, ({ templates }) => body(templates));

  over('templates are found by id and listed oldest first', async (store) => {
    assert.equal(await store.get(acme, 't1'), null);
    assert.equal(await store.save(acme, template('t2', { created_at: at(2) }), 0), 'saved');
    assert.equal(await store.save(acme, template('t1'), 0), 'saved');

    assert.deepEqual(await store.get(acme, 't1'), template('t1'));
    assert.deepEqual(await store.list(acme), [template('t1'), template('t2', { created_at: at(2) })]);
  });

  over('a template is changed where its version is the one that is replaced', async (store) => {
    await store.save(acme, template('t1'), 0);
    const changed = template('t1', { version: 2, slug: 'changed' });

    assert.equal(await store.save(acme, changed, 1), 'saved');
    assert.equal(await store.save(acme, template('t1', { version: 2 }), 1), 'stale');
    assert.equal(await store.save(acme, template('t1'), 0), 'stale');
    assert.equal(await store.save(acme, template('t9'), 1), 'stale');
    assert.deepEqual(await store.list(acme), [changed]);
  });

  over('a slug belongs to one template', async (store) => {
    await store.save(acme, template('t1', { slug: 'same' }), 0);
    assert.equal(await store.save(acme, template('t2', { slug: 'same' }), 0), 'taken');

    assert.equal(await store.remove(acme, 't1'), true);
    assert.equal(await store.save(acme, template('t2', { slug: 'same' }), 0), 'saved');
  });

  over('a removed template is gone', async (store) => {
    await store.save(acme, template('t1'), 0);

    assert.equal(await store.remove(acme, 't1'), true);
    assert.equal(await store.remove(acme, 't1'), false);
    assert.equal(await store.get(acme, 't1'), null);
  });

  over('another tenant with the same ids sees nothing and disturbs nothing', async (store) => {
    await store.save(acme, template('t1'), 0);
    assert.equal(await store.get(umbrella, 't1'), null);
    assert.deepEqual(await store.list(umbrella), []);
    assert.equal(await store.remove(umbrella, 't1'), false);

    const theirs = template('t1', { tenant_id: umbrella, name: 'theirs' });
    assert.equal(await store.save(umbrella, theirs, 0), 'saved');
    assert.equal((await store.get(acme, 't1'))?.name, 'Template t1');
  });
}
