/** Metrics of the nodes that share a database, as this one sees them. */
import { Gauge, type Registry } from 'prom-client';

export interface ClusterCounts {
  readonly state: string;
  readonly beat_age_ms: number;
  /** The others. */
  readonly members: readonly { readonly state: string }[];
}

/** `cluster` is asked at scrape time. */
export function registerCluster(registry: Registry, cluster: () => ClusterCounts | undefined): void {
  new Gauge({
    name: 'nooble_cluster_beat_age_seconds',
    help: 'Since the last beat that PostgreSQL answered; 0 where the node has its database to itself',
    registers: [registry],
    collect() {
      this.set((cluster()?.beat_age_ms ?? 0) / 1000);
    },
  });
  new Gauge({
    name: 'nooble_cluster_nodes',
    help: 'Nodes of the database that are not dead, this one among them, by state',
    labelNames: ['state'],
    registers: [registry],
    collect() {
      const { state, members } = cluster() ?? { state: 'live', members: [] };
      for (const each of ['live', 'draining']) this.set({ state: each }, 0);
      for (const one of [state, ...members.map((member) => member.state)]) this.inc({ state: one });
    },
  });
}
