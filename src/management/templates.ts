/** Templates as edges see them: the built-in ones for reading, and a tenant's own. */
import { isOfOtherVersion, withoutUnchanged } from '../domain/agent-draft.ts';
import type { NoticeEvent, Template, TemplateInput, TenantNotice } from '../domain/agent-record.ts';
import { type ErrorData, type Reply, refusal } from '../domain/errors.ts';
import { BUILT_IN_TEMPLATES, builtInTemplate, readTemplate, templateIssue } from '../domain/templates.ts';
import type { Tier } from '../domain/tiers.ts';
import type { Actor, TemplateManagement } from '../ports/management.ts';
import {
  broken,
  guarded,
  isoNow,
  type ManagementOptions,
  no,
  noticeOf,
  ok,
  rulesOf,
  slugTaken,
  stale,
} from './context.ts';
import { createKeyedQueue } from './keyed-queue.ts';

/** Templates one tenant may have of its own. */
const MAX_TEMPLATES = 1_000;

export function createTemplateManagement(options: ManagementOptions): TemplateManagement {
  const { templates, tiers, log } = options;
  const inOrder = createKeyedQueue();

  /** Runs a write to a template of the tenant's own, after those that were called before. */
  const write = <T>(
    actor: Actor,
    templateId: string,
    operation: () => Promise<Reply<T>>,
  ): Promise<Reply<T>> =>
    builtInTemplate(templateId)
      ? Promise.resolve(no(immutable()))
      : inOrder(`${actor.tenantId}/${templateId}`, () => guarded(log, operation));

  return {
    list: (actor) =>
      guarded(log, async () => {
        const tier = await tierOf(options, actor);
        const own = await templates.list(actor.tenantId);
        return ok([...BUILT_IN_TEMPLATES, ...own].filter((one) => templateIssue(one, tier, tiers) === null));
      }),
    get: (actor, templateId) =>
      guarded(log, async () => {
        const template = builtInTemplate(templateId) ?? (await templates.get(actor.tenantId, templateId));
        if (!template) return no(noTemplate());
        const issue = templateIssue(template, await tierOf(options, actor), tiers);
        return issue ? broken([issue]) : ok(template);
      }),
    create: (actor, raw) => guarded(log, () => create(options, actor, raw)),
    update: (actor, templateId, raw, { version }) =>
      write(actor, templateId, () => update(options, actor, templateId, raw, version)),
    remove: (actor, templateId) =>
      write(actor, templateId, async () => {
        const current = await templates.get(actor.tenantId, templateId);
        if (!current) return no(noTemplate());
        const notice = noticeAbout(options, actor, 'template_updated', current, { deleted: true });
        if (!(await templates.remove(actor.tenantId, templateId, notice))) return no(noTemplate());
        options.notices.publish(notice, true);
        return ok(null);
      }),
  };
}

async function create(options: ManagementOptions, actor: Actor, raw: unknown): Promise<Reply<Template>> {
  const { templates } = options;
  const { input, issues } = readTemplate(raw, await tierOf(options, actor), rulesOf(options));
  if (!input) return broken(issues);
  if (builtInTemplate(input.slug)) return no(slugTaken('template', input.slug));
  if ((await templates.list(actor.tenantId)).length >= MAX_TEMPLATES) return no(full());
  const at = isoNow(options.clock);
  const template: Template = {
    ...fieldsFrom(input),
    id: options.newId(),
    tenant_id: actor.tenantId,
    version: 1,
    created_at: at,
    updated_at: at,
  };
  const notice = noticeAbout(options, actor, 'agent_template_created', template);
  const outcome = await templates.save(actor.tenantId, template, 0, notice);
  if (outcome !== 'saved') return no(slugTaken('template', input.slug));
  options.notices.publish(notice, true);
  return ok(template);
}

async function update(
  options: ManagementOptions,
  actor: Actor,
  templateId: string,
  raw: unknown,
  expected: number | undefined,
): Promise<Reply<Template>> {
  const { templates } = options;
  const current = await templates.get(actor.tenantId, templateId);
  if (!current) return no(noTemplate());
  if (isOfOtherVersion(raw, current) || (expected !== undefined && expected !== current.version))
    return no(stale('template', current.version));
  const said = withoutUnchanged(raw, current, OWN);
  const { input, issues } = readTemplate(said, await tierOf(options, actor), rulesOf(options));
  if (!input) return broken(issues);
  if (builtInTemplate(input.slug)) return no(slugTaken('template', input.slug));
  const fields = fieldsFrom(input);
  const changes = (['name', 'slug', 'description', 'agent'] as const).filter(
    (field) => comparable(fields[field]) !== comparable(current[field]),
  );
  if (changes.length === 0) return ok(current);
  const updated_at = isoNow(options.clock);
  const template = { ...current, ...fields, version: current.version + 1, updated_at };
  const notice = noticeAbout(options, actor, 'template_updated', template, { changes });
  const outcome = await templates.save(actor.tenantId, template, current.version, notice);
  if (outcome === 'taken') return no(slugTaken('template', input.slug));
  if (outcome === 'stale') {
    const winner = await templates.get(actor.tenantId, templateId);
    return no(stale('template', winner?.version ?? 0));
  }
  options.notices.publish(notice, true);
  return ok(template);
}

const tierOf = (options: ManagementOptions, actor: Actor): Promise<Tier> =>
  options.tierOf(actor.tenantId, actor.tier);

const noticeAbout = (
  options: ManagementOptions,
  actor: Actor,
  event: NoticeEvent,
  template: Template,
  more: object = {},
): TenantNotice =>
  noticeOf(options, { actor, taskId: options.newId() }, event, {
    template_id: template.id,
    template_name: template.name,
    slug: template.slug,
    version: template.version,
    ...more,
  });

const OWN = ['id', 'tenant_id', 'version', 'created_at', 'updated_at'] as const;

/** A database may give keys back in another order. */
const comparable = (value: string | object): string =>
  JSON.stringify(
    typeof value === 'string' ? value : Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)),
  );

const fieldsFrom = ({ name, slug, description = '', agent }: TemplateInput) => ({
  name,
  slug,
  description,
  agent,
});

const noTemplate = (): ErrorData => refusal('NOT_FOUND', { message: 'There is no such template.' });

const full = (): ErrorData =>
  refusal('CONFLICT', { message: `There are ${MAX_TEMPLATES} templates, as many as a tenant may have.` });

const immutable = (): ErrorData =>
  refusal('CONFLICT', {
    message: 'Built-in templates can not be changed; make one of your own: POST /api/templates.',
  });
