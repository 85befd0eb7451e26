/** A tenant's own templates over a database. */
import { type Template, templateSchema } from '../domain/agent-record.ts';
import type { TemplateStore } from '../ports/management.ts';
import { lockTenant } from './agents.ts';
import { noteChange } from './changes.ts';
import type { Database } from './database.ts';
import { storeNotice } from './notices.ts';

/** Makes the store; `database` stays the caller's to close. Lists come oldest first. */
export function createTemplateStore(database: Database): TemplateStore {
  return {
    list: (tenantId) =>
      database.read(tenantId, async (db) => {
        const rows = await db
          .selectFrom('templates')
          .select('body')
          .where('tenant_id', '=', tenantId)
          .orderBy('created_at')
          .orderBy('template_id')
          .execute();
        return rows.map(templateOf);
      }),
    get: (tenantId, templateId) =>
      database.read(tenantId, async (db) => {
        const row = await db
          .selectFrom('templates')
          .select('body')
          .where('tenant_id', '=', tenantId)
          .where('template_id', '=', templateId)
          .executeTakeFirst();
        return row ? templateOf(row) : null;
      }),
    save: (tenantId, template, replaces, notice) =>
      database.write(tenantId, async (db) => {
        await lockTenant(db, database.kind, tenantId);
        const mine = db.selectFrom('templates').where('tenant_id', '=', tenantId);
        const stored = await mine.select('version').where('template_id', '=', template.id).executeTakeFirst();
        if ((stored?.version ?? 0) !== replaces) return 'stale';
        const other = await mine
          .select('template_id')
          .where('slug', '=', template.slug)
          .where('template_id', '!=', template.id)
          .executeTakeFirst();
        if (other) return 'taken';
        const row = {
          slug: template.slug,
          version: template.version,
          created_at: Date.parse(template.created_at),
          body: JSON.stringify(template),
        };
        await db
          .insertInto('templates')
          .values({ tenant_id: tenantId, template_id: template.id, ...row })
          .onConflict((conflict) => conflict.columns(['tenant_id', 'template_id']).doUpdateSet(row))
          .execute();
        const { id, version, slug } = template;
        await noteChange(db, database.kind, { tenantId, kind: 'template', id, version, slug });
        await storeNotice(db, database.kind, notice);
        return 'saved';
      }),
    remove: (tenantId, templateId, notice) =>
      database.write(tenantId, async (db) => {
        const { numDeletedRows } = await db
          .deleteFrom('templates')
          .where('tenant_id', '=', tenantId)
          .where('template_id', '=', templateId)
          .executeTakeFirst();
        if (numDeletedRows === 0n) return false;
        await noteChange(db, database.kind, { tenantId, kind: 'template', id: templateId });
        await storeNotice(db, database.kind, notice);
        return true;
      }),
  };
}

const templateOf = (row: { readonly body: string }): Template => templateSchema.parse(JSON.parse(row.body));
