/** A command that refuses what it was given without repeating it: a code or a password may stand in any of its words. */
import { type Argument, Command, InvalidArgumentError, type Option } from 'commander';

declare module 'commander' {
  // Commander has both, and its types leave them out.
  interface Command {
    unknownOption(flag: string): void;
    unknownCommand(): void;
  }
}

export class DiscreetCommand extends Command {
  override createCommand(name?: string): DiscreetCommand {
    return new DiscreetCommand(name);
  }

  override addOption(option: Option): this {
    this.#refuseDiscreetly(option, `option '${option.flags}'`);
    return super.addOption(option);
  }

  override addArgument(argument: Argument): this {
    this.#refuseDiscreetly(argument, `argument '${argument.name()}'`);
    return super.addArgument(argument);
  }

  /** The name alone is looked up, so that what is similar is found whatever stands behind it. */
  override unknownOption(flag: string): void {
    const name = nameIn(flag);
    const known = this.options.find(({ short, long }) => name === long || name === short);
    if (known === undefined) super.unknownOption(name);
    else if (known.required) this.error(`error: option '${known.flags}': a space or = must stand before its value`);
    else this.error(`error: option '${known.flags}': it takes no value`);
  }

  override unknownCommand(): void {
    this.args = this.args.map(nameIn);
    super.unknownCommand();
  }

  /** Says what was expected. Commander's own error would say what was given, too. */
  #refuseDiscreetly(target: Option | Argument, what: string): void {
    const parse = target.parseArg;
    if (parse === undefined) return;
    target.parseArg = (text, previous) => {
      try {
        return parse.call(target, text, previous) as typeof previous;
      } catch (error) {
        if (error instanceof InvalidArgumentError) this.error(`error: ${what}: ${error.message}`);
        throw error;
      }
    };
  }
}

/** `--otp` of `--otp=123456` and of `--otp123456`, `-o` of `-o123456`: only as far as a name can go. */
function nameIn(word: string): string {
  const [name = ''] = /^(?:--?|)[a-z]*(?:-[a-z]+)*/i.exec(word) ?? [];
  return /^-[^-]/.test(name) ? name.slice(0, 2) : name;
}
