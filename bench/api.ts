import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { measureCreates } from './api/creates.ts'
import { type Bench, type Figure, renderTable } from './api/figure.ts'
import { measureGet, measureList } from './api/reads.ts'
import { measureScale } from './api/scale.ts'
import { measureStreams } from './api/streams.ts'

const help = `What the API does under load, on loopback: the server is a process of its own with synchronous=FULL, this process is the
load, hosts are simulated in a third. Each figure is compared with something measured in turn in the same run.

  npm run bench:api -- [options]

  --only NAMES      of get,creates,list,scale,streams, with commas; all of them unless given
  --quick           short runs: good for a before and after, not for a figure
  --instances N     running instances in the database before; 100000 unless given
  --profile         print where the server's processor time went
  --check           exit with 1 when a limit is missed
  --help            print this`

const measurements: Record<string, (bench: Bench) => Promise<Figure[]>> = {
  get: measureGet,
  creates: measureCreates,
  list: measureList,
  scale: measureScale,
  streams: measureStreams,
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: Object.keys(measurements).join(',') },
    instances: { type: 'string', default: '100000' },
    quick: { type: 'boolean', default: false },
    profile: { type: 'boolean', default: false },
    check: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(help)
  process.exit(0)
}
const names = values.only.split(',')
const unknown = names.filter((name) => measurements[name] === undefined)
if (unknown.length > 0)
  throw new Error(`there is no ${unknown.join(', ')}; there are ${Object.keys(measurements).join(', ')}`)

const directory = await mkdtemp(join(tmpdir(), 'berth-bench-'))
const bench: Bench = { directory, quick: values.quick, profile: values.profile, instances: Number(values.instances) }
const figures: Figure[] = []
try {
  for (const name of names) {
    console.error(`measuring ${name} …`)
    figures.push(...((await measurements[name]?.(bench)) ?? []))
  }
} finally {
  await rm(directory, { recursive: true, force: true })
}
console.log(renderTable(figures))
if (values.check && figures.some((figure) => !figure.met)) process.exitCode = 1
