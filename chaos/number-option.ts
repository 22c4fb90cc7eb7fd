import { InvalidArgumentError } from 'commander';

/** What an option that takes a number is read by. */
export const numberFrom =
  (low: number, high: number, { whole = true } = {}) =>
  (text: string): number => {
    const number = Number(text);
    if (text.trim() !== '' && number >= low && number <= high && (!whole || Number.isInteger(number))) return number;
    throw new InvalidArgumentError(`must be a ${whole ? 'whole ' : ''}number from ${low} to ${high}.`);
  };
