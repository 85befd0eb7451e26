/** `nooble tenants set-tier`: an operator sets the tier of a tenant on a running node. */
import { tenantIdSchema } from '../domain/ids.ts';
import { TIERS, tierSchema } from '../domain/tiers.ts';
import { type CliDeps, usage } from './command.ts';
import { createNodeClient } from './node-client.ts';
import { allowOnly, type Parsed } from './options.ts';

/** Runs `tenants <verb>`; `parsed.words` begins with the verb. */
export async function tenantsCommand(deps: CliDeps, parsed: Parsed): Promise<void> {
  const [verb, tenant = '', name = '', ...more] = parsed.words;
  if (verb !== 'set-tier' || name === '' || more.length > 0)
    throw usage('`nooble tenants` takes: set-tier <tenant> <tier>.');
  allowOnly(parsed, ['url'], 'tenants set-tier');
  const tenantId = tenantIdSchema.safeParse(tenant);
  if (!tenantId.success) throw usage(`${tenant} is no tenant id.`);
  const tier = tierSchema.safeParse(name);
  if (!tier.success) throw usage(`${name} is no tier; there are ${TIERS.join(', ')}.`);
  const client = createNodeClient(deps, parsed, 'service');
  const path = `/internal/tenants/${encodeURIComponent(tenantId.data)}`;
  await client.ask(path, { method: 'PUT', body: { tier: tier.data } });
  deps.out(`${tenantId.data}: tier ${tier.data}`);
}
