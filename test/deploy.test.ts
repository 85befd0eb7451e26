/** The files of `deploy/` fit the node: settings that it knows, probes that it answers, and time enough to drain. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';
import { parseSettings } from '../src/settings.ts';
import { startTestNode } from './support/node.ts';

const deployed = (path: string): string =>
  readFileSync(new URL(`../deploy/${path}`, import.meta.url), 'utf8');
// biome-ignore lint/suspicious/noExplicitAny: files of other people's formats
const yaml = (path: string): any => parse(deployed(path), { merge: true });

const SECRETS = {
  POSTGRES_PASSWORD: 'p',
  AUTH_JWT_SECRET: 'x'.repeat(32),
  OPENAI_API_KEY: '',
};

/** As compose fills in `${NAME}`, `${NAME:-default}` and `${NAME:?error}`. */
const filledIn = (text: string): string =>
  text.replace(/\$\{(\w+)(:[-?][^}]*)?\}/g, (_all, name: string) => {
    const value = Object.entries(SECRETS).find(([known]) => known === name)?.[1];
    assert.notEqual(value, undefined, `${name} is said in the file's first lines`);
    return value ?? '';
  });

function settingsOf(environment: Readonly<Record<string, string>>) {
  const parsed = parseSettings(environment);
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.problems.join('\n'));
  return parsed.settings;
}

const seconds = (duration: string): number => Number(/^(\d+)s$/.exec(duration)?.[1]);

test('compose: the nodes have settings that they start with, names of their own, and time to drain', () => {
  const { services } = yaml('compose.yaml');
  const nodes = Object.keys(services).filter((name) => name.startsWith('node'));
  assert.equal(nodes.length, 3);
  const ids = nodes.map((name) => {
    const { environment, stop_grace_period } = services[name];
    const entries = Object.entries<string>(environment).map(([key, value]) => [key, filledIn(value)]);
    const settings = settingsOf(Object.fromEntries(entries));
    assert.ok(seconds(stop_grace_period) * 1000 > settings.drainMs + 5_000, 'it may finish what runs');
    assert.match(settings.databaseUrl, /^postgres:\/\/nooble:p@postgres:/);
    return settings.nodeId;
  });
  assert.deepEqual(ids, nodes);
  const upstream = [...deployed('nginx-cluster.conf').matchAll(/^\s+server (\w+):(\d+) /gm)];
  assert.deepEqual(
    upstream.map(([, name]) => name),
    nodes,
    'nginx knows them all',
  );
  const port = /PORT=(\d+)/.exec(readFileSync(new URL('../Dockerfile', import.meta.url), 'utf8'))?.[1];
  for (const [, , at] of upstream) assert.equal(at, port);
});

test('the two files of nginx say the same but for the nodes', () => {
  const server = (path: string): string => {
    const text = deployed(path);
    return text
      .slice(text.indexOf('    server {'))
      .replace(/ +# A node that is away[\s\S]*?proxy_next_upstream[^\n]*\n\n/, '');
  };
  assert.equal(server('nginx-cluster.conf'), server('nginx.conf'));
});

test('kubernetes: what is applied is there, and pods are given settings, probes and time that fit', async (t) => {
  const { resources } = yaml('kubernetes/kustomization.yaml');
  const files = readdirSync(new URL('../deploy/kubernetes/', import.meta.url));
  assert.deepEqual([...resources, 'kustomization.yaml'].sort(), files.sort());
  const { spec } = yaml('kubernetes/deployment.yaml');
  const pod = spec.template.spec;
  const [container] = pod.containers;
  const environment = Object.fromEntries(
    container.env.map(({ name, value }: { name: string; value?: string }) => [name, value ?? 'pod-1']),
  );
  const secret = { DATABASE_URL: 'postgres://u:p@h/d', REDIS_URL: 'redis://h', ...SECRETS };
  const { drainMs, nodeId, access } = settingsOf({ ...secret, ...environment });
  assert.deepEqual([nodeId, access.mode], ['pod-1', 'jwt']);
  const preStop = Number(container.lifecycle.preStop.exec.command[1]);
  assert.ok(pod.terminationGracePeriodSeconds * 1000 > drainMs + preStop * 1000 + 10_000);
  assert.equal(container.ports[0].containerPort, settingsOf({}).port);
  const node = await startTestNode(t);
  for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe'])
    assert.equal((await node.ask(container[probe].httpGet.path)).status, 200);
  const labels = spec.template.metadata.labels;
  for (const path of ['service.yaml', 'disruption-budget.yaml']) {
    const { selector } = yaml(`kubernetes/${path}`).spec;
    assert.deepEqual(selector.matchLabels ?? selector, labels);
  }
});
