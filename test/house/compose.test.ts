/** What Dockerfile and docker-compose.yml name is there, and works as far as it can without an engine. */
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { ROLES } from '../../src/config.ts';
import { startRedisProcess } from '../../src/redis/process.ts';
import { CLOSE_GRACE_MS } from '../../src/workers/worker.ts';
import { loadAs, type Prepared, type Process, prepare, root, SECRETS } from '../ops/prepared.ts';

const read = (file: string): string => readFileSync(join(root, file), 'utf8');

interface Service {
  readonly image: string;
  readonly command?: readonly string[];
  readonly volumes?: readonly string[];
  readonly ports?: readonly string[];
  readonly networks: readonly string[];
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly secrets?: readonly (string | { readonly source: string; readonly target: string })[];
  readonly healthcheck: { readonly test: readonly string[] };
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly stop_grace_period?: string;
  readonly user?: string;
}

const compose = parse(read('docker-compose.yml'), { merge: true });
const services: Record<string, Service> = compose.services;
const service = (name: string): Service => {
  const found = services[name];
  if (found === undefined) throw new Error(`there is no service ${name}`);
  return found;
};
const version: string = JSON.parse(read('package.json')).version;

let prepared: Prepared;
beforeAll(async () => {
  prepared = await prepare();
});
afterAll(() => prepared.remove());

/** Where a path of docker-compose.yml is here: config/ is what prepare.mjs makes. */
const onDisk = (path: string): string =>
  path.startsWith('./config/') ? join(prepared.folder, path.slice('./config/'.length)) : join(root, path);

/** Name under /run/secrets: file on disk. */
function secretsOf(name: string): Map<string, string> {
  return new Map(
    (service(name).secrets ?? []).map((secret) => {
      const { source, target } = typeof secret === 'string' ? { source: secret, target: secret } : secret;
      return [target, onDisk(compose.secrets[source].file)];
    }),
  );
}

function loadedBy(name: string): Process {
  const mounts = (service(name).volumes ?? []).map((volume) => volume.split(':'));
  const file = mounts.find(([, inside]) => inside === '/etc/otp/otp.yaml')?.[0] ?? '';
  return loadAs(readFileSync(onDisk(file), 'utf8'), secretsOf(name));
}

describe('docker-compose.yml', () => {
  it('is valid, without a warning', async () => {
    const linter = join(root, 'node_modules/dclint/bin/dclint.cjs');
    await promisify(execFile)(process.execPath, [linter, '--max-warnings', '0', 'docker-compose.yml'], { cwd: root });
  });

  it('gives no process more than it needs, and asks each for its health', () => {
    for (const [name, { read_only, cap_drop, security_opt, healthcheck }] of Object.entries(services)) {
      expect({ name, read_only, cap_drop, security_opt }).toEqual({
        ...{ name, read_only: true, cap_drop: ['ALL'], security_opt: ['no-new-privileges:true'] },
      });
      expect(healthcheck.test.length, name).toBeGreaterThan(1);
    }
  });

  it('runs every role as a service of one image, of the version of this package', () => {
    const serving = Object.entries(services).filter(([, { image }]) => image.startsWith('otp-pipeline:'));
    expect(serving.map(([, { image }]) => image)).toEqual(serving.map(() => `otp-pipeline:${version}`));
    const commands = serving.map(([, { command }]) => command);
    expect(commands.toSorted()).toEqual(
      ROLES.map((role) => ['otp', 'serve', '--config', '/etc/otp/otp.yaml', '--roles', role]).toSorted(),
    );
    expect(read('Dockerfile')).toContain(`ARG VERSION=${version}`);
  });

  it('mounts only what is in the tree or made by prepare.mjs, and nothing that can be written but volumes', () => {
    for (const [name, { volumes = [] }] of Object.entries(services)) {
      for (const volume of volumes) {
        const [source = '', , mode] = volume.split(':');
        if (source.startsWith('./')) expect([name, source, mode]).toEqual([name, source, 'ro']);
        if (source.startsWith('./')) expect(existsSync(onDisk(source)), `${name}: ${source}`).toBe(true);
        else expect(compose.volumes, `${name}: ${source}`).toHaveProperty(source);
      }
    }
  });

  it('has a file for every secret, that whoever runs in a container may read, in a folder that others may not open', () => {
    const files = Object.values<{ file: string }>(compose.secrets).map(({ file }) => onDisk(file));
    for (const file of files) expect(statSync(file).mode & 0o044, file).toBe(0o044);
    expect(statSync(prepared.secrets).mode & 0o077).toBe(0);
    expect(read('.gitignore')).toMatch(/^\/config\/$/m);
    const named = Object.keys(services).flatMap((name) => [...secretsOf(name).values()]);
    expect(new Set(named)).toEqual(new Set(files));
  });

  it('is configured so that every role starts, each with no more keys than it needs', () => {
    for (const role of ROLES) {
      const { config, opensCodes, opensDetails } = loadedBy(role);
      expect({ role, opensCodes, opensDetails, warnings: config.warnings }).toEqual({
        ...{ role, opensCodes: role === 'worker', opensDetails: role === 'intake', warnings: [] },
      });
      const { healthcheck, ports = [] } = service(role);
      expect(healthcheck.test.join(' ')).toContain(`127.0.0.1:${config.console.port}/healthz`);
      expect([config.intake.host, config.console.host]).toEqual(['0.0.0.0', '0.0.0.0']);
      const open = { intake: [config.intake.port], worker: [], console: [config.console.port] }[role];
      expect(ports.map((port) => Number(port.split(':').at(-1)))).toEqual(open);
    }
  });

  it('gives a worker the time that an attempt may take, and its outcome to be written', () => {
    const { config } = loadedBy('worker');
    const longest = Math.max(...config.partitions.map(({ timeoutMs }) => timeoutMs)) + CLOSE_GRACE_MS;
    expect(Number.parseInt(service('worker').stop_grace_period ?? '', 10) * 1_000).toBeGreaterThan(longest);
  });

  it('starts who needs Redis when Redis is healthy, in a network that has no way out', () => {
    const redis = loadedBy('worker').config.redis;
    const { hostname, port } = new URL(redis !== undefined && 'url' in redis ? redis.url.reveal() : '');
    expect([hostname, port]).toEqual(['redis', '6379']);
    expect(service('redis').ports).toBeUndefined();
    expect(service('redis').networks).toEqual(['store']);
    expect(compose.networks.store).toEqual({ internal: true });
    for (const role of ROLES) {
      expect(service(role).networks).toContain('store');
      expect(service(role).depends_on?.redis?.condition).toBe('service_healthy');
    }
    for (const { depends_on = {} } of Object.values(services)) {
      for (const [name, { condition }] of Object.entries(depends_on)) {
        expect([name, service(name).healthcheck !== undefined, condition]).toEqual([name, true, 'service_healthy']);
      }
    }
  });

  it('publishes every port to this machine alone', () => {
    const ports = Object.values(services).flatMap((each) => each.ports ?? []);
    expect(ports.length).toBeGreaterThan(0);
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
  });

  it('names a version of every image, and no host', () => {
    const images = Object.values(services).map(({ image }) => image);
    const bases = [...read('Dockerfile').matchAll(/^FROM (\S+)/gm)].map((match) => match[1] ?? '');
    for (const image of [...images, ...bases]) expect(image).toMatch(/^[a-z-]+(\/[a-z]+)?:v?\d+\.\d+\.\d+/);
  });
});

describe('the Redis of docker-compose.yml', () => {
  it('runs with ops/redis/redis.conf, which keeps what it is told, evicts nothing and asks for a password', async () => {
    const [, file] = service('redis').command ?? [];
    expect(service('redis').volumes).toContain(`./ops/redis/redis.conf:${file}:ro`);
    const [include = '', ...lines] = read('ops/redis/redis.conf')
      .split('\n')
      .filter((line) => !/^(#|dir |$)/.test(line));
    const secret = secretsOf('redis').get(include.replace(`include ${SECRETS}/`, ''));
    const folder = mkdtempSync(join(tmpdir(), 'otp-redis-conf-'));
    const password = readFileSync(join(prepared.secrets, 'redis-password'), 'utf8');
    expect(readFileSync(secret ?? '', 'utf8')).toBe(`requirepass ${password}\n`);
    const server = await startRedisProcess({ dir: folder, appendonly: false, password, configuration: lines });
    const redis = new Redis(server.url);
    try {
      const setting = async (name: string): Promise<string> => ((await redis.config('GET', name)) as string[])[1] ?? '';
      expect(await setting('appendonly')).toBe('yes');
      expect(await setting('appendfsync')).toBe('everysec');
      expect(await setting('save')).toBe('');
      expect(await setting('maxmemory-policy')).toBe('noeviction');
      expect(Number(await setting('maxmemory'))).toBeGreaterThan(0);
      expect(await setting('hash-max-listpack-value')).toBe('1024');
    } finally {
      redis.disconnect();
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('Prometheus', () => {
  it('scrapes every process of every role on the port that tells the metrics', () => {
    const { scrape_configs, alerting, rule_files } = parse(read('ops/prometheus/prometheus.yml'));
    expect(scrape_configs).toHaveLength(1);
    const [{ job_name, dns_sd_configs }] = scrape_configs;
    expect(job_name).toBe('otp');
    expect(dns_sd_configs[0].names.toSorted()).toEqual(ROLES.toSorted());
    expect(dns_sd_configs[0].port).toBe(loadedBy('console').config.console.port);
    for (const role of ROLES) expect(service(role).networks).toContain('watch');
    expect(service('prometheus').networks).toContain('watch');
    expect(service('prometheus').volumes).toContain('./ops/prometheus:/etc/prometheus:ro');
    expect(rule_files).toEqual(['rules/*.yml']);
    expect(alerting.alertmanagers[0].static_configs[0].targets).toEqual(['alertmanager:9093']);
    expect(service('alertmanager').networks).toContain('watch');
  });
});

describe('Dockerfile', () => {
  const lines = read('Dockerfile').split('\n');
  const lastStage = lines.slice(lines.findLastIndex((line) => line.startsWith('FROM ')));

  it('builds in one stage and runs in another, not as root', () => {
    expect(lines.filter((line) => line.startsWith('FROM '))).toHaveLength(2);
    expect(lastStage).toContain('USER node');
    expect(lastStage.join('\n')).not.toContain('npm');
  });

  it('copies nothing that is not there', () => {
    const copied = lines
      .filter((line) => /^COPY (?!--from)/.test(line))
      .flatMap((line) => line.split(' ').slice(1, -1));
    expect(copied.length).toBeGreaterThan(0);
    expect(copied.filter((file) => !existsSync(join(root, file)))).toEqual([]);
    const allowed = read('.dockerignore').split('\n');
    for (const file of copied) expect(allowed).toContain(`!${file}`);
  });

  it('is healthy exactly while /healthz answers well', async () => {
    const [, command = ''] = /^HEALTHCHECK [^[]*CMD (\[.*\])$/m.exec(read('Dockerfile').replace(/\\\n\s*/g, '')) ?? [];
    const [node, ...args]: string[] = JSON.parse(command);
    expect(node).toBe('node');
    expect(service('intake').healthcheck.test.at(-1)).toBe(
      args.at(-1)?.replace("' + (process.env.CONSOLE_PORT || 3001) + '", '3001'),
    );
    let status = 200;
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url ?? '');
      response.writeHead(status).end();
    });
    await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
    const { port } = server.address() as AddressInfo;
    const exitCode = async (): Promise<number | null> =>
      await new Promise((ended) => {
        const child = spawn(process.execPath, args, { env: { CONSOLE_PORT: String(port) }, stdio: 'ignore' });
        child.once('exit', ended);
      });
    expect(await exitCode()).toBe(0);
    status = 503;
    expect(await exitCode()).toBe(1);
    expect(asked).toEqual(['/healthz', '/healthz']);
    await new Promise((closed) => server.close(closed));
    expect(await exitCode()).toBe(1);
  });

  it('starts the process itself, which SIGTERM ends in order', async () => {
    expect(lastStage.join('\n')).toContain('ln -s /app/dist/cli.js /usr/local/bin/otp');
    const folder = mkdtempSync(join(tmpdir(), 'otp-image-'));
    try {
      symlinkSync(join(root, 'dist/cli.js'), join(folder, 'otp'));
      const child = spawn(join(folder, 'otp'), ['sandbox', '--json'], { stdio: ['ignore', 'pipe', 'inherit'] });
      const ended = new Promise((done) => child.once('exit', (code, signal) => done(code ?? signal)));
      const line = await new Promise<string>((ready) => createInterface({ input: child.stdout }).once('line', ready));
      const { control } = JSON.parse(line) as { control: { url: string } };
      // An answer: it has gone on since that line, to where it listens to signals.
      expect((await fetch(`${control.url}/providers`)).status).toBe(200);
      child.kill('SIGTERM');
      expect(await ended).toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 60_000);
});
