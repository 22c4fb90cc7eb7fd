/** The manifests are what Kubernetes takes, name nothing that is not there, and start what they should. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { ROLES, type Role } from '../../src/config.ts';
import { newKey, writeKeySet } from '../../src/key-files.ts';
import { publicKeySet } from '../../src/producers/sealing.ts';
import { CLOSE_GRACE_MS } from '../../src/workers/worker.ts';
import { loadAs, type Process, root, SECRETS } from './prepared.ts';

const FOLDER = 'ops/kubernetes';
const read = (file: string): string => readFileSync(join(root, file), 'utf8');
const files = readdirSync(join(root, FOLDER)).filter((file) => file !== 'kustomization.yaml');
const kustomization = parse(read(`${FOLDER}/kustomization.yaml`));

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  // biome-ignore lint/suspicious/noExplicitAny: its shape is what the first test is about
  readonly [member: string]: any;
}

const manifests: { file: string; manifest: Manifest }[] = files.flatMap((file) =>
  parseAllDocuments(read(`${FOLDER}/${file}`)).map((document) => ({ file, manifest: document.toJS() as Manifest })),
);
const all = (kind: string): Manifest[] =>
  manifests.filter(({ manifest }) => manifest.kind === kind).map(({ manifest }) => manifest);
const one = (kind: string, name: string): Manifest => {
  const found = all(kind).find(({ metadata }) => metadata.name === name);
  if (found === undefined) throw new Error(`there is no ${kind} ${name}`);
  return found;
};
const podOf = (role: Role): Manifest['spec'] => one('Deployment', `otp-${role}`).spec.template.spec;
const containerOf = (role: Role): Manifest['spec'] => podOf(role).containers[0];

/** Secret: { key: file of config/secrets }, by the commands of docs/operations.md that make them. */
const secrets = new Map(
  [
    ...read('docs/operations.md').matchAll(
      /kubectl -n otp create secret generic (\S+)((?: \\\n)?(?:\s+--from-file=\S+(?: \\\n)?)+)/g,
    ),
  ].map(([, name = '', options = '']) => [
    name,
    new Map(
      [...options.matchAll(/--from-file=(?:([^=\s]+)=)?config\/secrets\/(\S+)/g)].map(([, key, file = '']) => [
        key ?? file,
        file,
      ]),
    ),
  ]),
);

describe('the manifests', () => {
  it('are valid by the schemas of Kubernetes', () => {
    const require = createRequire(import.meta.url);
    for (const { file, manifest } of manifests) {
      const Model = require(`kubernetes-models/${manifest.apiVersion}/${manifest.kind}`)[manifest.kind];
      expect(() => new Model(manifest).validate(), `${file}: ${manifest.kind} ${manifest.metadata.name}`).not.toThrow();
    }
  });

  // A key that Kubernetes does not know is dropped by it in silence, and a schema allows it; a type does not.
  it('have no key that Kubernetes does not know', async () => {
    mkdirSync(join(root, '.cache'), { recursive: true });
    const folder = mkdtempSync(join(root, '.cache/kubernetes-'));
    try {
      const lines = manifests.map(
        ({ manifest }, index) =>
          `import type { I${manifest.kind} as T${index} } from 'kubernetes-models/${manifest.apiVersion}/${manifest.kind}';\n` +
          `export const manifest${index}: T${index} = ${JSON.stringify(manifest)};`,
      );
      writeFileSync(join(folder, 'manifests.ts'), lines.join('\n'));
      writeFileSync(
        join(folder, 'tsconfig.json'),
        JSON.stringify({
          compilerOptions: { strict: true, noEmit: true, skipLibCheck: true, module: 'nodenext', types: [] },
          files: ['manifests.ts'],
        }),
      );
      const compiler = join(root, 'node_modules/typescript/bin/tsc');
      const { stdout } = await promisify(execFile)(process.execPath, [compiler, '-p', folder]).catch(
        (error: { stdout: string }) => error,
      );
      expect(stdout).toBe('');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('are all in kustomization.yaml, but for the example', () => {
    expect(kustomization.resources.toSorted()).toEqual(files.filter((file) => file !== 'autoscaling.yaml').toSorted());
    expect(kustomization.namespace).toBe(all('Namespace')[0]?.metadata.name);
    const { name, newTag } = kustomization.images[0];
    expect(newTag).toBe(JSON.parse(read('package.json')).version);
    for (const role of ROLES) expect(containerOf(role).image).toBe(`${name}:${newTag}`);
  });
});

describe('each process', () => {
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'otp-kubernetes-'));
    for (const name of ['sealing', 'details']) {
      const keySet = { keys: [await newKey('otp')] };
      writeKeySet(join(folder, `${name}-keys.json`), keySet);
      writeKeySet(join(folder, `${name}-public-keys.json`), publicKeySet(keySet));
    }
    writeFileSync(join(folder, 'redis-password'), 'a-password-of-redis');
    writeFileSync(join(folder, 'cepta-secret-key'), 'what-cepta-gave');
    writeFileSync(join(folder, 'shop-api-key.hash'), `sha256:${'0'.repeat(64)}`);
    writeFileSync(join(folder, 'console-password.hash'), 'a-password-long-enough');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** As the pod of that role would start, with the secrets that are mounted to it. */
  function loadedBy(role: Role): Process {
    const { containers, volumes } = podOf(role);
    const mounted = (name: string) => containers[0].volumeMounts.find((mount: { name: string }) => mount.name === name);
    const volume = (name: string) => volumes.find((each: { name: string }) => each.name === name);
    expect(mounted('secrets')).toEqual({ name: 'secrets', mountPath: SECRETS, readOnly: true });
    const sources: { secret: { name: string } }[] = volume('secrets').projected.sources;
    const mountedFiles = sources.flatMap(({ secret }) => {
      const keys = secrets.get(secret.name);
      if (keys === undefined) throw new Error(`docs/operations.md makes no secret ${secret.name}`);
      return [...keys].map(([key, file]) => [key, join(folder, file)] as const);
    });
    expect(mountedFiles.length, 'no two files of one name').toBe(new Map(mountedFiles).size);
    const { mountPath } = mounted('configuration');
    expect(containers[0].args).toEqual(['otp', 'serve', '--config', `${mountPath}/otp.yaml`, '--roles', role]);
    const { name } = volume('configuration').configMap;
    return loadAs(one('ConfigMap', name).data['otp.yaml'], new Map(mountedFiles));
  }

  it.each(ROLES)('%s starts with its configuration, and with no more keys than it needs', (role) => {
    const { config, opensCodes, opensDetails } = loadedBy(role);
    expect({ opensCodes, opensDetails }).toEqual({ opensCodes: role === 'worker', opensDetails: role === 'intake' });
    expect(config.warnings).toEqual([]);
    expect([config.intake.host, config.console.host]).toEqual(['0.0.0.0', '0.0.0.0']);
  });

  it.each(ROLES)('%s listens where its probes, its service and its policies say', (role) => {
    const { config } = loadedBy(role);
    const { ports, startupProbe, livenessProbe, readinessProbe } = containerOf(role);
    const expected = [{ name: 'operator', containerPort: config.console.port }];
    if (role === 'intake') expected.unshift({ name: 'intake', containerPort: config.intake.port });
    expect(ports).toEqual(expected);
    for (const probe of [startupProbe, livenessProbe])
      expect(probe.httpGet).toEqual({ path: '/healthz', port: 'operator' });
    expect(readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'operator' });
    const named = new Set(ports.map(({ name }: { name: string }) => name));
    const used = [
      ...all('Service')
        .filter(({ metadata }) => metadata.name === `otp-${role}`)
        .flatMap(({ spec }) => spec.ports),
    ];
    expect(used.map(({ targetPort }) => targetPort).filter((name) => !named.has(name))).toEqual([]);
    expect(used.map(({ port }) => port)).toEqual({ intake: [3000], worker: [], console: [3001] }[role]);
  });

  it.each(ROLES)('%s runs with no right that it does not need', (role) => {
    const { securityContext, automountServiceAccountToken, containers } = podOf(role);
    expect(securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 1000, // the user node of the image
      seccompProfile: { type: 'RuntimeDefault' },
    });
    expect(automountServiceAccountToken).toBe(false);
    expect(containers).toHaveLength(1);
    expect(containers[0].securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
    expect(containers[0].resources).toMatchObject({
      requests: { cpu: expect.any(String) },
      limits: { memory: expect.any(String) },
    });
  });

  it('has the time that an attempt may take, and its outcome to be written', () => {
    const { config } = loadedBy('worker');
    const longest = Math.max(...config.partitions.map(({ timeoutMs }) => timeoutMs)) + CLOSE_GRACE_MS;
    expect(podOf('worker').terminationGracePeriodSeconds * 1_000).toBeGreaterThan(longest);
    const [, seconds] = containerOf('intake').lifecycle.preStop.exec.command;
    expect(podOf('intake').terminationGracePeriodSeconds).toBeGreaterThan(Number(seconds) + 4);
  });

  it.each(ROLES)('%s is reached and reaches as it should, and no further', (role) => {
    const labels: Record<string, string> = one('Deployment', `otp-${role}`).spec.template.metadata.labels;
    const selects = (wanted: Record<string, string> = {}): boolean =>
      Object.entries(wanted).every(([name, value]) => labels[name] === value);
    for (const kind of ['Deployment', 'PodDisruptionBudget'])
      expect(selects(one(kind, `otp-${role}`).spec.selector.matchLabels)).toBe(true);
    for (const service of all('Service'))
      expect(selects(service.spec.selector)).toBe(service.metadata.name === `otp-${role}`);
    const policies = all('NetworkPolicy').filter(({ spec }) => selects(spec.podSelector.matchLabels));
    expect(policies.filter(({ metadata }) => metadata.name === 'nothing')[0]?.spec.policyTypes).toEqual([
      'Ingress',
      'Egress',
    ]);
    type Rule = { from?: Peer[]; to?: Peer[]; ports: { port: string | number }[] };
    type Peer = { namespaceSelector?: { matchLabels: Record<string, string> }; ipBlock?: unknown };
    const told = (rules: Rule[] = []): string[] =>
      rules.flatMap(({ from, to, ports }) =>
        (from ?? to ?? []).flatMap(({ namespaceSelector }) =>
          ports.map(({ port }) => `${Object.values(namespaceSelector?.matchLabels ?? { _: 'internet' })[0]} ${port}`),
        ),
      );
    const [ingress, egress] = (['ingress', 'egress'] as const).map((way) =>
      [...new Set(policies.flatMap(({ spec }) => told(spec[way])))].toSorted(),
    );
    expect({ ingress, egress }).toEqual({
      ingress: {
        intake: ['ingress-nginx intake', 'monitoring operator'],
        worker: ['monitoring operator'],
        console: ['monitoring operator', 'operators operator'],
      }[role],
      egress: ['kube-system 53', 'redis 6379', ...(role === 'worker' ? ['internet 443'] : [])].toSorted(),
    });
  });

  it('can be scaled by the example', () => {
    for (const { spec } of all('HorizontalPodAutoscaler')) {
      expect(one(spec.scaleTargetRef.kind, spec.scaleTargetRef.name).spec.replicas).toBe(spec.minReplicas);
    }
  });
});
