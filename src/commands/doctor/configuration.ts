import { type Config, ConfigError, loadConfig } from '../../config.ts';
import { counted, type Finding, fault, ok, warning } from './finding.ts';

/** Without a configuration nothing else can be checked: then `config` is null. */
export function checkConfiguration(file: string | undefined): { config: Config | null; findings: Finding[] } {
  try {
    const config = loadConfig({ file });
    const warnings = config.warnings.map((text) => warning('configuration', ...split(text)));
    const names = config.partitions.map(({ name }) => name);
    const many = `${counted(names.length, 'partition')} (${names.join(', ')})`;
    return {
      config,
      findings: [ok('configuration', `${config.file} is sound, with ${many}`), ...warnings],
    };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const remedy = 'mend it in the configuration: docs/configuration.md has every key';
    const findings = error.faults.map(({ key, message }) => fault('configuration', `${key}: ${message}`, remedy));
    return { config: null, findings };
  }
}

/** A warning may end in what to do, after a semicolon. */
function split(text: string): [finding: string, remedy: string] {
  const at = text.lastIndexOf('; ');
  return at === -1 ? [text, 'choose a longer one'] : [text.slice(0, at), text.slice(at + 2)];
}
