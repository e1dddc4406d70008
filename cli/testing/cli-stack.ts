import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newId } from '@berth/contract/ids.ts'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import type { InstanceType } from '@berth/contract/instances/instance-types.ts'
import { type RunningServer, startServer } from '@berth/server/main.ts'
import { Command } from 'commander'
import { pino } from 'pino'
import { expect } from 'vitest'
import { addAskedFor } from '../command/on-demand.ts'
import { type CliIo, processIo, runProgram } from '../io.ts'
import { clientCommands, setUpProgram } from '../program.ts'
import { FakeHost } from './fake-host.ts'

const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ83ZrD9o2ZvWnVfEqzcu8AuHnIjGZ0NHHUwmB4DkNjb test'

const common = { min_disk_gb: 1, architecture: 'x86_64', network: 'static' } as const
const images: CatalogueImage[] = [
  { ...common, id: 'micro', title: 'Berth micro', default_user: 'root', recipe: 'micro' },
  {
    ...common,
    id: 'ubuntu-22.04',
    title: 'Ubuntu 22.04 LTS',
    default_user: 'ubuntu',
    source_url: 'https://cloud-images.example/jammy.img',
  },
]
const instanceTypes: InstanceType[] = [
  { id: 'micro', spec: { vcpus: 1, memory_mb: 256, disk_gb: 2, bandwidth_mbps: 1000 } },
  { id: 'cx31', spec: { vcpus: 2, memory_mb: 8192, disk_gb: 80, bandwidth_mbps: 2000 } },
]

/** How a command ended and what it wrote. */
export interface Run {
  argv: readonly string[]
  code: number
  stdout: string
  stderr: string
  /** The programs it ran on the terminal. */
  spawned: (readonly string[])[]
}

/** What a test changes of the process a command runs in. */
export interface RunOptions extends Partial<Omit<CliIo, 'stdout' | 'stderr' | 'readStdin'>> {
  tty?: boolean
  stdin?: string
  /** What happens before each request that waits, one entry a request; the request itself then waits no time. */
  onWait?: (() => Promise<unknown>)[]
  /** Called with all that was written to standard output, at each piece of it. */
  onOutput?: (stdout: string) => void
  /** The same of standard error. */
  onNote?: (stderr: string) => void
}

/**
 * A real server with a database of its own and a host that reports what the test says. Server, host and command line
 * share one clock, which stands still but for requests that wait: each takes as long as it says.
 */
export class CliStack {
  readonly directory: string
  readonly host: FakeHost
  readonly url: string
  readonly #server: RunningServer
  readonly #clock: { ms: number }

  private constructor(directory: string, host: FakeHost, server: RunningServer, clock: { ms: number }) {
    this.directory = directory
    this.host = host
    this.url = server.url
    this.#server = server
    this.#clock = clock
  }

  static async start(): Promise<CliStack> {
    const clock = { ms: Date.UTC(2026, 0, 2, 3, 4, 5) }
    const now = () => clock.ms
    const directory = await mkdtemp(join(tmpdir(), 'berth-cli-'))
    const host = new FakeHost(newId('host', clock.ms), now)
    const server = await startServer(
      {
        listen: { host: '127.0.0.1', port: 0 },
        database: join(directory, 'berth.db'),
        hosts: [{ hostId: host.id, credential: host.credential }],
        images,
        instanceTypes,
        publicPools: [{ name: 'default', cidr: '203.0.113.0/24' }],
        examplePublicKey: publicKey,
        now,
      },
      pino({ level: 'silent' }),
    )
    host.connect(server.url)
    await host.heartbeat()
    return new CliStack(directory, host, server, clock)
  }

  async stop(): Promise<void> {
    await this.#server.stop()
    await rm(this.directory, { recursive: true })
  }

  /** Let time pass for everybody. */
  advance(ms: number): void {
    this.#clock.ms += ms
  }

  get now(): number {
    return this.#clock.ms
  }

  /** Run `berth` with these arguments. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<Run> {
    const { tty = false, stdin = '', onWait = [], onOutput = () => {}, onNote = () => {}, ...given } = options
    const run: Run = { argv, code: -1, stdout: '', stderr: '', spawned: [] }
    const steps = [...onWait]
    const written = (stream: 'stdout' | 'stderr', tell: (all: string) => void) => (text: string) => {
      run[stream] += text
      tell(run[stream])
    }
    const io: CliIo = {
      env: { BERTH_SERVER: this.url },
      readStdin: async () => Buffer.from(stdin),
      now: () => this.#clock.ms,
      pause: async (ms) => this.advance(ms),
      signal: new AbortController().signal,
      spawnInherit: async (command) => {
        run.spawned.push(command)
        return 0
      },
      isRoot: true,
      argv: ['berth', ...argv],
      netnsDirectory: join(this.directory, 'netns'),
      ...given,
      fetch: async (input, init) => {
        const request = new Request(input, init)
        const send = given.fetch ?? fetch
        const url = new URL(request.url)
        const parameter = ['wait', 'timeout'].find((name) => url.searchParams.has(name))
        if (parameter === undefined) return send(request, init)
        await steps.shift()?.()
        this.advance(Number(url.searchParams.get(parameter)) * 1000)
        url.searchParams.set(parameter, '0')
        return send(new Request(url, request), init)
      },
      stdout: { write: written('stdout', onOutput), isTTY: tty, columns: 80, rows: 24 },
      stderr: { write: written('stderr', onNote), isTTY: tty, columns: 80 },
    }
    const program = new Command('berth').showHelpAfterError('(run with --help to see how)')
    setUpProgram(program, io)
    run.code = await runProgram(program, clientCommands(io), ['node', 'berth', ...argv], io)
    return run
  }

  /** Create an instance and give its id. */
  async create(name: string, ...more: string[]): Promise<string> {
    const argv = [
      'instance',
      'create',
      '--name',
      name,
      '--type',
      'micro',
      '--image',
      'micro',
      '--no-wait',
      '-o',
      'json',
    ]
    const run = await this.run([...argv, ...more])
    expect(run.stderr).toContain('creating')
    return JSON.parse(run.stdout).id
  }

  /** Create an instance that runs, its guest ready. */
  async createReady(name: string, ...more: string[]): Promise<string> {
    const id = await this.create(name, ...more)
    await this.host.report(await this.host.wanted((each) => each.id === id), this.host.running('true'))
    return id
  }
}

/** Every client command that has no commands of its own, as the words that call it; hidden ones are left out. */
export async function leafCommands(): Promise<string[][]> {
  const io = processIo()
  const program = setUpProgram(new Command('berth'), io)
  await addAskedFor(program, clientCommands(io), [])
  const leaves = (command: Command, words: string[]): string[][] => {
    const visible = command.createHelp().visibleCommands(command)
    const own = visible.filter((each) => each.name() !== 'help')
    return own.length === 0 ? [words] : own.flatMap((each) => leaves(each, [...words, each.name()]))
  }
  return leaves(program, [])
}

/**
 * Compare runs with cli/golden/<name>.txt, ids and ports replaced by others of the same width. UPDATE_GOLDEN=1 writes
 * the file instead.
 */
export async function expectGolden(name: string, ...runs: readonly Run[]): Promise<void> {
  const text = normalise(runs.map(transcript).join('\n'))
  const file = join(import.meta.dirname, '..', 'golden', `${name}.txt`)
  if (process.env.UPDATE_GOLDEN === '1') await writeFile(file, text)
  const golden = await readFile(file, 'utf8').catch(() => '')
  expect(text, `${file} is different; UPDATE_GOLDEN=1 rewrites it`).toBe(golden)
}

function transcript({ argv, code, stdout, stderr }: Run): string {
  const out = stdout === '' ? '' : `--- standard output\n${stdout}`
  const err = stderr === '' ? '' : `--- standard error\n${stderr}`
  return `$ berth ${argv.join(' ')}\n${out}${err}--- exit code ${code}\n`.replaceAll('\u001b', '<ESC>')
}

function normalise(text: string): string {
  const seen = new Map<string, string>()
  const counts = new Map<string, number>()
  return text
    .replaceAll(/\b(inst|op|host|key|vpc|subnet|pip)-[0-9a-hjkmnp-tv-z]{20}\b/g, (id, prefix: string) => {
      const known = seen.get(id)
      if (known !== undefined) return known
      const count = (counts.get(prefix) ?? 0) + 1
      counts.set(prefix, count)
      const shown = `${prefix}-${String(count).padStart(20, '0')}`
      seen.set(id, shown)
      return shown
    })
    .replaceAll(/"[0-9a-hjkmnp-tv-z]{20}\.(\d+)"/g, '"00000000000000000000.$1"')
    .replaceAll(/\breq-[0-9a-f]{20}\b/g, 'req-00000000000000000000')
    .replaceAll(/127\.0\.0\.1:\d{4,5}\b(?<!:7480)/g, '127.0.0.1:PORT')
}
