/** Reads a V8 heap snapshot: how many objects of which shape there are, and how many bytes they take themselves. */
import { z } from 'zod';

const snapshotSchema = z.object({
  snapshot: z.object({
    meta: z.object({
      node_fields: z.array(z.string()),
      node_types: z.tuple([z.array(z.string())]).rest(z.unknown()),
      edge_fields: z.array(z.string()),
      edge_types: z.tuple([z.array(z.string())]).rest(z.unknown()),
    }),
  }),
  nodes: z.array(z.number()),
  edges: z.array(z.number()),
  strings: z.array(z.string()),
});

export interface Shape {
  readonly name: string;
  readonly count: number;
  readonly bytes: number;
}

/** Properties that name a plain object's shape. */
const NAMED_PROPERTIES = 8;

/** `json` is a .heapsnapshot. Most bytes first. Throws where it is none. */
export function shapes(json: string): Shape[] {
  const { snapshot, nodes, edges, strings } = snapshotSchema.parse(JSON.parse(json));
  const { node_fields, node_types, edge_fields, edge_types } = snapshot.meta;
  const field = (name: string): number => node_fields.indexOf(name);
  const [typeAt, nameAt, sizeAt, edgesAt] = [
    field('type'),
    field('name'),
    field('self_size'),
    field('edge_count'),
  ];
  const [edgeTypeAt, edgeNameAt] = [edge_fields.indexOf('type'), edge_fields.indexOf('name_or_index')];
  const property = edge_types[0].indexOf('property');

  const found = new Map<string, { count: number; bytes: number }>();
  let edge = 0;
  for (let node = 0; node < nodes.length; node += node_fields.length) {
    const count = nodes[node + edgesAt] ?? 0;
    const type = node_types[0][nodes[node + typeAt] ?? 0] ?? '';
    let name = `${type} ${strings[nodes[node + nameAt] ?? 0]}`;
    if (name === 'object Object') {
      const properties: string[] = [];
      for (let i = 0; i < count && properties.length < NAMED_PROPERTIES; i++) {
        const at = edge + i * edge_fields.length;
        const key = strings[edges[at + edgeNameAt] ?? 0] ?? '';
        if (edges[at + edgeTypeAt] === property && key !== '__proto__') properties.push(key);
      }
      name = `{ ${properties.join(', ')} }`;
    } else if (type.endsWith('string')) name = type;
    edge += count * edge_fields.length;
    const shape = found.get(name) ?? { count: 0, bytes: 0 };
    shape.count += 1;
    shape.bytes += nodes[node + sizeAt] ?? 0;
    found.set(name, shape);
  }
  return [...found].map(([name, shape]) => ({ name, ...shape })).sort((a, b) => b.bytes - a.bytes);
}
