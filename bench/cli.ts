import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { median } from './figures.ts'
import { runSuite, type Suite, suiteOptions } from './suite.ts'
import { type Figure, ms } from './table.ts'

const help = `Processor time of a command, user and system, with the shell that starts it; bare Node (\`node -e 0\`) is measured in turn.
The server that commands ask answers with an empty list.

  npm run bench:cli -- [options]

  --quick   short runs: good for a before and after, not for a figure
  --check   exit with 1 when a limit is missed
  --help    print this`

const berth = join(import.meta.dirname, '..', 'berth')

/** Hertz of the times in /proc (proc(5)): USER_HZ is 100 on all that Berth runs on. */
const ticksPerSecond = 100

/** Runs between two looks at the clock, which goes in steps of 10 ms. */
const runsPerBlock = 10

const limitMs = 150

interface Command {
  name: string
  argv: readonly [string, ...string[]]
  env?: Record<string, string>
  limited: boolean
}

const suite: Suite<{ quick: boolean }> = { help, measurements: { commands: measureCommands } }

const { values } = parseArgs({ options: suiteOptions(suite) })
await runSuite(suite, values, (measure) => measure(values))

async function measureCommands({ quick }: { quick: boolean }): Promise<Figure[]> {
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"items":[]}')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const env = { BERTH_SERVER: url }
  const bare: Command = { name: 'bare Node', argv: [process.execPath, '-e', '0'], limited: false }
  const commands: Command[] = [
    { name: 'berth instance list', argv: [berth, 'instance', 'list'], env, limited: true },
    { name: 'berth --help', argv: [berth, '--help'], limited: true },
    {
      name: 'completion of an option',
      argv: [berth, '__complete', 'bash', '--', 'instance', 'list', '--st'],
      limited: true,
    },
    {
      name: 'completion of an id',
      argv: [berth, '__complete', 'bash', '--', 'instance', 'show', ''],
      env,
      limited: true,
    },
    {
      name: 'berth instance list, nothing compiled yet',
      argv: [berth, 'instance', 'list'],
      env: { ...env, NODE_DISABLE_COMPILE_CACHE: '1' },
      limited: false,
    },
  ]
  try {
    for (const command of commands) await run(command) // fills the cache
    const times = new Map<Command, number[]>([bare, ...commands].map((command) => [command, []]))
    for (let round = 0; round < (quick ? 3 : 9); round++) {
      for (const [command, measured] of times) measured.push(await processorMs(command))
    }
    const medianOf = (command: Command) => median(times.get(command) ?? [])
    return commands.map((command) => ({
      name: `processor time of ${command.name}`,
      measured: ms(medianOf(command)),
      comparedWith: `bare Node ${ms(medianOf(bare))}`,
      ratio: medianOf(command) / medianOf(bare),
      limit: command.limited ? `≤ ${limitMs} ms` : '',
      met: !command.limited || medianOf(command) <= limitMs,
    }))
  } finally {
    server.close()
  }
}

/** Mean of a block of runs. */
async function processorMs(command: Command): Promise<number> {
  const before = ticksOfChildren()
  for (let n = 0; n < runsPerBlock; n++) await run(command)
  return ((ticksOfChildren() - before) / ticksPerSecond / runsPerBlock) * 1000
}

async function run({ name, argv, env = {} }: Command): Promise<void> {
  const [file, ...args] = argv
  const child = spawn(file, args, { stdio: 'ignore', env: { ...process.env, ...env } })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`${name} ended with ${code}`)
}

/** What this process's children that have ended, and theirs, have used: cutime and cstime of proc_pid_stat(5). */
function ticksOfChildren(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // from field 3 on
  return Number(fields[13]) + Number(fields[14])
}
