/** Every fault that the model has found, told once more. */
import { expect, test } from 'vitest';
import { follow } from './explore.ts';
import { KNOWN_FAULTS } from './known-faults.ts';

for (const { says, mended, model, trace, is } of KNOWN_FAULTS) {
  test(`${mended ? 'no more' : 'still'}: ${says}`, async () => {
    const found = await follow(model, trace);
    if (mended) {
      expect(found?.report).toBeUndefined();
    } else {
      expect(found, 'this one is mended: say so in known-faults.ts').not.toBeNull();
      if (found) expect(is(found.violation), found.report).toBe(true);
    }
  });
}
