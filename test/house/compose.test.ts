import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string) => readFileSync(join(root, file), 'utf8');
const compose = parse(read('docker-compose.yml'));

describe('docker-compose.yml', () => {
  it('is valid, without a warning', async () => {
    const linter = join(root, 'node_modules/dclint/bin/dclint.cjs');
    await promisify(execFile)(process.execPath, [linter, '--max-warnings', '0', 'docker-compose.yml'], { cwd: root });
  });

  it('runs a Redis that keeps what it is told and evicts nothing', () => {
    const { command, volumes, ports } = compose.services.redis;
    const option = (name: string) => command[command.indexOf(name) + 1];
    expect(option('--appendonly')).toBe('yes');
    expect(option('--maxmemory-policy')).toBe('noeviction');
    expect(volumes).toContain('redis-data:/data');
    expect(ports).toBeUndefined();
  });

  it('starts the service when Redis is healthy, and asks it for its own health', () => {
    const { command, depends_on, healthcheck, environment } = compose.services.otp;
    expect(command).toEqual(['otp', 'serve', '--config', '/etc/otp/otp.yaml']);
    expect(depends_on.redis.condition).toBe('service_healthy');
    expect(compose.services.redis.healthcheck.test.join(' ')).toContain('redis-cli ping');
    expect(healthcheck.test.join(' ')).toContain('127.0.0.1:3001/healthz');
    expect(environment.REDIS_URL).toBe('redis://redis:6379');
  });

  it('publishes every port to this machine alone', () => {
    const ports = Object.values<{ ports?: string[] }>(compose.services).flatMap((service) => service.ports ?? []);
    expect(ports.length).toBeGreaterThan(0);
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
  });

  it('names a version of every image, and no host', () => {
    const images = Object.values<{ image?: string }>(compose.services).flatMap((service) => service.image ?? []);
    const bases = [...read('Dockerfile').matchAll(/^FROM (\S+)/gm)].map((match) => match[1] ?? '');
    for (const image of [...images, ...bases]) expect(image).toMatch(/^[a-z]+(\/[a-z]+)?:v?\d+\.\d+\.\d+/);
  });
});

describe('Prometheus', () => {
  it('scrapes the port that tells the metrics', () => {
    const { scrape_configs } = parse(read('ops/prometheus/prometheus.yml'));
    const targets = scrape_configs.flatMap((config: { static_configs: { targets: string[] }[] }) =>
      config.static_configs.flatMap((group) => group.targets),
    );
    expect(targets).toEqual(['otp:3001']);
    expect(compose.services.prometheus.volumes).toContain('./ops/prometheus:/etc/prometheus:ro');
  });
});

describe('Dockerfile', () => {
  let lines: string[];

  beforeAll(() => {
    lines = read('Dockerfile').split('\n');
  });

  it('builds in one stage and runs in another, not as root', () => {
    const lastStage = lines.slice(lines.findLastIndex((line) => line.startsWith('FROM ')));
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
});
