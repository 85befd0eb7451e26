/** Templates as edges see them: the built-in ones for reading, and a tenant's own. */
import type { NoticeEvent, Template, TemplateInput } from '../domain/agent-record.ts';
import { type ErrorData, type Reply, refusal } from '../domain/errors.ts';
import { readTemplate } from '../domain/template-rules.ts';
import { BUILT_IN_TEMPLATES, builtInTemplate, templateIssue } from '../domain/templates.ts';
import type { Tier } from '../domain/tiers.ts';
import type { Actor, TemplateManagement } from '../ports/management.ts';
import { broken, guarded, isoNow, type ManagementOptions, no, notify, ok, rulesOf } from './context.ts';
import { createKeyedQueue } from './keyed-queue.ts';

/** Templates one tenant may have of its own. */
const MAX_TEMPLATES = 1_000;

export function createTemplateManagement(options: ManagementOptions): TemplateManagement {
  const { templates, tiers, clock, newId, log } = options;
  const rules = rulesOf(options);
  const line = createKeyedQueue();

  const tierOf = (actor: Actor): Promise<Tier> => options.tierOf(actor.tenantId, actor.tier);

  function announce(actor: Actor, event: NoticeEvent, template: Template, more: object = {}): void {
    notify(options, { actor, taskId: newId() }, event, {
      template_id: template.id,
      template_name: template.name,
      slug: template.slug,
      version: template.version,
      ...more,
    });
  }

  /** A template that the tenant's tier includes. */
  async function find(actor: Actor, templateId: string): Promise<Reply<Template>> {
    const template = builtInTemplate(templateId) ?? (await templates.get(actor.tenantId, templateId));
    if (!template) return no(noTemplate());
    const issue = templateIssue(template, await tierOf(actor), tiers);
    return issue ? broken([issue]) : ok(template);
  }

  async function create(actor: Actor, raw: unknown): Promise<Reply<Template>> {
    const { input, issues } = readTemplate(raw, await tierOf(actor), rules);
    if (!input) return broken(issues);
    if (builtInTemplate(input.slug)) return no(slugTaken(input.slug));
    if ((await templates.list(actor.tenantId)).length >= MAX_TEMPLATES)
      return no(
        refusal('CONFLICT', {
          message: `There are ${MAX_TEMPLATES} templates, as many as a tenant may have.`,
        }),
      );
    const at = isoNow(clock);
    const template: Template = {
      ...fieldsFrom(input),
      id: newId(),
      tenant_id: actor.tenantId,
      version: 1,
      created_at: at,
      updated_at: at,
    };
    const outcome = await templates.save(actor.tenantId, template, 0);
    if (outcome !== 'saved') return no(slugTaken(input.slug));
    announce(actor, 'agent_template_created', template);
    return ok(template);
  }

  async function update(
    actor: Actor,
    templateId: string,
    raw: unknown,
    expected: number | undefined,
  ): Promise<Reply<Template>> {
    const current = await templates.get(actor.tenantId, templateId);
    if (!current) return no(noTemplate());
    const { input, issues } = readTemplate(raw, await tierOf(actor), rules);
    if (!input) return broken(issues);
    if (expected !== undefined && expected !== current.version) return no(stale(current.version));
    if (builtInTemplate(input.slug)) return no(slugTaken(input.slug));
    const fields = fieldsFrom(input);
    const changes = (['name', 'slug', 'description', 'agent'] as const).filter(
      (field) => plain(fields[field]) !== plain(current[field]),
    );
    if (changes.length === 0) return ok(current);
    const template = { ...current, ...fields, version: current.version + 1, updated_at: isoNow(clock) };
    const outcome = await templates.save(actor.tenantId, template, current.version);
    if (outcome === 'taken') return no(slugTaken(input.slug));
    if (outcome === 'stale')
      return no(stale((await templates.get(actor.tenantId, templateId))?.version ?? 0));
    announce(actor, 'template_updated', template, { changes });
    return ok(template);
  }

  const inLine = <T>(
    actor: Actor,
    templateId: string,
    operation: () => Promise<Reply<T>>,
  ): Promise<Reply<T>> =>
    builtInTemplate(templateId)
      ? Promise.resolve(no(immutable()))
      : line(`${actor.tenantId}/${templateId}`, () => guarded(log, operation));

  return {
    list: (actor) =>
      guarded(log, async () => {
        const tier = await tierOf(actor);
        const own = await templates.list(actor.tenantId);
        return ok([...BUILT_IN_TEMPLATES, ...own].filter((one) => templateIssue(one, tier, tiers) === null));
      }),
    get: (actor, templateId) => guarded(log, () => find(actor, templateId)),
    create: (actor, raw) => guarded(log, () => create(actor, raw)),
    update: (actor, templateId, raw, { version }) =>
      inLine(actor, templateId, () => update(actor, templateId, raw, version)),
    remove: (actor, templateId) =>
      inLine(actor, templateId, async () => {
        const current = await templates.get(actor.tenantId, templateId);
        if (!current || !(await templates.remove(actor.tenantId, templateId))) return no(noTemplate());
        announce(actor, 'template_updated', current, { deleted: true });
        return ok(null);
      }),
  };
}

/** For comparing: a database may give keys back in another order. */
const plain = (value: string | object): string =>
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

const immutable = (): ErrorData =>
  refusal('CONFLICT', {
    message: 'Built-in templates can not be changed; make one of your own: POST /api/templates.',
  });

const stale = (version: number): ErrorData =>
  refusal('CONFLICT', {
    message: `The template is at version ${version} now; read it again.`,
    details: { current_version: version },
  });

const slugTaken = (slug: string): ErrorData =>
  refusal('CONFLICT', {
    message: `Another template has the slug ${slug}.`,
    details: { field: 'slug', value: slug },
  });
