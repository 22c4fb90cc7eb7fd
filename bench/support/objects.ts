/**
 * How much of a heap is the program's own: a snapshot of it, less what the engine makes for itself. Compiled code, the
 * tables by which it is thrown away again, and the shapes of objects go on growing for as long as something is compiled
 * anew, which under a steady load takes hours.
 */
import { readFileSync } from 'node:fs';

const OF_THE_ENGINE = ['code', 'hidden', 'object shape', 'synthetic'];

interface Snapshot {
  readonly snapshot: {
    readonly meta: { readonly node_fields: string[]; readonly node_types: [string[], ...unknown[]] };
  };
  readonly nodes: number[];
}

/** Bytes of strings, objects, closures and arrays in a file of `v8.writeHeapSnapshot`. */
export function objectBytesIn(file: string): number {
  const { snapshot, nodes } = JSON.parse(readFileSync(file, 'utf8')) as Snapshot;
  const { node_fields: fields, node_types: types } = snapshot.meta;
  const [type, size] = [fields.indexOf('type'), fields.indexOf('self_size')];
  let bytes = 0;
  for (let node = 0; node < nodes.length; node += fields.length) {
    const isOwn = !OF_THE_ENGINE.includes(types[0][nodes[node + type] ?? 0] ?? '');
    if (isOwn) bytes += nodes[node + size] ?? 0;
  }
  return bytes;
}
