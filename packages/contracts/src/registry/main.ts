import * as exported from '../index.ts';
import { breakage, staleness, write } from './committed.ts';
import { contractsIn } from './schema.ts';

// `make contracts` writes the schemas and docs/asyncapi.yaml; with --check it writes nothing and says what differs. It never writes over a
// schema whose readers would break: who had run it before the check would have hidden the change from it.

const contracts = contractsIn(exported);
const isCheck = process.argv.includes('--check');
const broken = breakage(contracts);
const problems = broken.length > 0 || !isCheck ? broken : staleness(contracts);

if (problems.length > 0) {
  console.error(problems.join('\n\n'));
  process.exitCode = 1;
} else if (isCheck) console.log(`${contracts.length} contracts are as committed, and their readers do not break`);
else {
  write(contracts);
  console.log(`Wrote the schemas of ${contracts.length} contracts and docs/asyncapi.yaml`);
}
