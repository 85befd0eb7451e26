/** A tenant's own templates in plain Maps, for nodes without a database and for tests. */
import type { Template } from '../../../src/domain/agent-record.ts';
import type { TenantId } from '../../../src/domain/ids.ts';
import type { TemplateStore } from '../../../src/ports/management.ts';

/** Makes an empty store. Lists come oldest first. */
export function createMemoryTemplates(): TemplateStore {
  const tenants = new Map<TenantId, Map<string, Template>>();
  const templatesOf = (tenantId: TenantId): Map<string, Template> => tenants.get(tenantId) ?? new Map();
  return {
    list: async (tenantId) => [...templatesOf(tenantId).values()].sort(byAge),
    get: async (tenantId, templateId) => templatesOf(tenantId).get(templateId) ?? null,
    async save(tenantId, template, replaces) {
      const templates = templatesOf(tenantId);
      if ((templates.get(template.id)?.version ?? 0) !== replaces) return 'stale';
      for (const other of templates.values())
        if (other.id !== template.id && other.slug === template.slug) return 'taken';
      tenants.set(tenantId, templates.set(template.id, template));
      return 'saved';
    },
    remove: async (tenantId, templateId) => templatesOf(tenantId).delete(templateId),
  };
}

/** Oldest first; of the same age by id. */
export const byAge = (
  a: { readonly created_at: string; readonly id: string },
  b: { readonly created_at: string; readonly id: string },
): number => Date.parse(a.created_at) - Date.parse(b.created_at) || (a.id < b.id ? -1 : 1);
