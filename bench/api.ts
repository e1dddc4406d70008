import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Bench } from './api/bench.ts'
import { measureCreates } from './api/creates.ts'
import { measureGet, measureList } from './api/reads.ts'
import { measureRunning } from './api/running.ts'
import { measureScale } from './api/scale.ts'
import { measureStreams } from './api/streams.ts'
import { runSuite, type Suite, suiteOptions } from './suite.ts'

const help = `What the API does under load, on loopback: the server is a process of its own with synchronous=FULL, this process is the
load, hosts are simulated in a third. Each figure is compared with something measured in turn in the same run.

  npm run bench:api -- [options]

  --only NAMES      of get,creates,running,list,scale,streams, with commas; all of them unless given
  --quick           short runs: good for a before and after, not for a figure
  --instances N     running instances in the database before, at least 1000; 100000 unless given
  --profile         print where the server's processor time went
  --check           exit with 1 when a limit is missed
  --help            print this`

const suite: Suite<Bench> = {
  help,
  measurements: {
    get: measureGet,
    creates: measureCreates,
    running: measureRunning,
    list: measureList,
    scale: measureScale,
    streams: measureStreams,
  },
}

const { values } = parseArgs({
  options: {
    ...suiteOptions(suite),
    instances: { type: 'string', default: '100000' },
    profile: { type: 'boolean', default: false },
  },
})
const instances = Number(values.instances)
if (!(Number.isInteger(instances) && instances >= 1000)) throw new Error('--instances takes a number of at least 1000')
await runSuite(suite, values, async (measure) => {
  const directory = await mkdtemp(join(tmpdir(), 'berth-bench-'))
  try {
    await measure({ directory, quick: values.quick, profile: values.profile, instances })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})
