import { mkdtempSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { AgentSettings } from '@berth/agent/config.ts'
import { hostIdOf, type RunningAgent, startAgent } from '@berth/agent/main.ts'
import { type FaultPoint, SimulatedHost, type SimulatedHostOptions } from '@berth/agent/simulated/host.ts'
import type { Host } from '@berth/contract/hosts/hosts.ts'
import type { OrphanList } from '@berth/contract/hosts/orphans.ts'
import { newId } from '@berth/contract/ids.ts'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import type { WaitTarget } from '@berth/contract/instances/bounds.ts'
import type {
  Accepted,
  Instance,
  InstanceCreated,
  InstanceList,
  InstanceSpecInput,
} from '@berth/contract/instances/instances.ts'
import type { Operation } from '@berth/contract/operations.ts'
import type { Problem } from '@berth/contract/problem.ts'
import type { PublicPoolConfig, Settings } from '@berth/server/config.ts'
import { type RunningServer, startServer } from '@berth/server/main.ts'
import SqliteDatabase from 'better-sqlite3'
import { type Logger, pino } from 'pino'
import { Registry } from 'prom-client'
import { loadInstanceTypes } from '../bin/catalogues.ts'
import { checkResponse } from './openapi/responses.ts'

/** `micro` fits on any disk, `ubuntu-22.04` needs 10 GiB. */
export const testImages: readonly CatalogueImage[] = [
  {
    id: 'micro',
    title: 'Micro',
    min_disk_gb: 1,
    architecture: 'x86_64',
    default_user: 'root',
    network: 'static',
    recipe: 'micro',
  },
  {
    id: 'ubuntu-22.04',
    title: 'Ubuntu 22.04',
    min_disk_gb: 10,
    architecture: 'x86_64',
    default_user: 'ubuntu',
    network: 'static',
    source_url: 'https://images.example/ubuntu-22.04.img',
  },
]

/** Bound of every wait for something that comes soon on an idle machine; one where eight others compute takes its time. */
const longestWaitSeconds = 60

const anywhere = { cidr: '0.0.0.0/0' }

/** A public key that belongs to nobody. */
export const testPublicKey =
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f nobody@test'

/** The real clock, moved ahead by hand. */
export class TestClock {
  #aheadMs = 0
  readonly now = () => Date.now() + this.#aheadMs

  advance(ms: number): void {
    this.#aheadMs += ms
  }
}

export interface StackOptions {
  settings?: Partial<Settings>
  /** The server's clock; the agent keeps the real one. */
  now?: () => number
  host?: SimulatedHostOptions
  /** The host itself, when it is a special one. */
  machine?: SimulatedHost
  agentSettings?: Partial<AgentSettings>
  images?: readonly CatalogueImage[]
  /** None unless given. */
  publicPools?: readonly PublicPoolConfig[]
  examplePublicKey?: string
  /** Where server and agent log, each with the field `process`; BERTH_TEST_LOG unless given. */
  log?: Logger
  /** What GET /metrics prints besides the figures of server and agent. */
  otherMetrics?: readonly Registry[]
  /** False: no agent until `startAgent`. */
  agent?: boolean
  /** Time that sweeps have before what is left over counts, milliseconds; a minute unless given. */
  patienceMs?: number
  /** A PostgreSQL database by its URL; an SQLite file of the stack's own unless given. */
  database?: string
}

/** What a server may be started with anew. */
type ChangeableOptions = Pick<StackOptions, 'images' | 'settings' | 'publicPools'>

export interface Answer<T> {
  status: number
  headers: IncomingHttpHeaders
  /** Parsed JSON; an empty object unless the answer is JSON. `T` is what the caller expects it to be. */
  body: T
  text: string
}

/** A header set to null is left out, also one that would be sent by default. */
export type RequestHeaders = Record<string, string | null>

/** Start a server and an agent on a simulated host, in a directory and on a port of their own. */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const stack = new Stack(options)
  try {
    await stack.startServer()
    if (options.agent !== false) stack.startAgent()
    return stack
  } catch (error) {
    await stack.close()
    throw error
  }
}

/** One server with one agent. The simulated host keeps its VMs while either is away. */
export class Stack {
  readonly host: SimulatedHost
  readonly hostId: string
  readonly credential = 'credential-of-the-host'
  /** A second host that is registered but never connects. */
  readonly otherHost = { hostId: newId('host', Date.now()), credential: 'credential-of-the-other-host' }
  /** Time that sweeps have before what is left over counts, milliseconds. */
  readonly patienceMs: number
  readonly #options: StackOptions
  readonly #directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  readonly #log: Logger
  readonly #agentMetrics = new Registry()
  readonly #releases: (() => void)[] = []
  #ledgerFile: string
  #server: RunningServer | null = null
  #agent: RunningAgent | null = null
  #port = 0
  #kills = 0

  constructor(options: StackOptions) {
    this.#options = options
    this.patienceMs = options.patienceMs ?? longestWaitSeconds * 1000
    this.#log = options.log ?? testLog()
    this.#ledgerFile = join(this.#directory, 'ledger.db')
    this.host = options.machine ?? new SimulatedHost(options.host)
    this.hostId = hostIdOf(this.#ledgerFile)
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** The server's SQLite file, for faults that a test puts into it. */
  get databaseFile(): string {
    return join(this.#directory, 'berth.db')
  }

  get port(): number {
    return this.#port
  }

  /** The database, as `Store.open` takes it: for tests that read or write behind the server's back. */
  get database(): string {
    return this.#options.database ?? join(this.#directory, 'berth.db')
  }

  /** Start the server, after the first time on the port it had before. */
  async startServer(changed: ChangeableOptions = {}): Promise<void> {
    const { settings, now, images = testImages, publicPools = [], examplePublicKey } = { ...this.#options, ...changed }
    this.#server = await startServer(
      {
        listen: { host: '127.0.0.1', port: this.#port },
        database: this.database,
        hosts: [{ hostId: this.hostId, credential: this.credential }, this.otherHost],
        images,
        instanceTypes: await loadInstanceTypes(),
        publicPools,
        otherMetrics: [this.#agentMetrics, ...(this.#options.otherMetrics ?? [])],
        // short, so that what time alone brings about comes soon after a test moved its clock
        settings: { controllerPeriodMs: 20, ...settings },
        ...(now === undefined ? {} : { now }),
        ...(examplePublicKey === undefined ? {} : { examplePublicKey }),
      },
      this.#log.child({ process: 'server' }),
    )
    this.#port = Number(new URL(this.#server.url).port)
  }

  async stopServer(): Promise<void> {
    await this.#server?.stop()
    this.#server = null
  }

  async restartServer(changed: ChangeableOptions = {}): Promise<void> {
    await this.stopServer()
    await this.startServer(changed)
  }

  startAgent(): void {
    const { agentSettings: settings } = this.#options
    this.#agent = startAgent(
      {
        ledgerFile: this.#ledgerFile,
        serverUrl: this.url,
        credential: this.credential,
        ...(settings === undefined ? {} : { settings }),
        registry: this.#agentMetrics,
      },
      this.host,
      this.#log.child({ process: 'agent' }),
    )
  }

  async stopAgent(): Promise<void> {
    await this.#agent?.stop()
    this.#agent = null
  }

  async restartAgent(): Promise<void> {
    await this.stopAgent()
    this.startAgent()
  }

  /**
   * Have the agent gone as by SIGKILL: the next one finds the ledger as it is now, without what the old one writes while
   * it ends. `end` lets calls return that the test holds on the host.
   */
  async killAgent(end: () => void = () => {}): Promise<void> {
    const frozen = join(this.#directory, `ledger-${++this.#kills}.db`)
    const ledger = new SqliteDatabase(this.#ledgerFile)
    ledger.prepare('vacuum into ?').run(frozen)
    ledger.close()
    const stopping = this.stopAgent()
    end()
    await stopping
    this.#ledgerFile = frozen
  }

  /** As SimulatedHost.hold, but `close` lets go of what the test has left held. */
  hold(point: FaultPoint, options: { deaf?: boolean } = {}): () => void {
    const release = this.host.hold(point, options)
    this.#releases.push(release)
    return release
  }

  /**
   * Make the resources the contract's example names, as a caller would; those that are there stay as they are. With
   * `whereFree` those that others are in the way of are left out.
   */
  async ensureExamples({ whereFree = false } = {}): Promise<void> {
    const { publicPools = [] } = this.#options
    const open = (port: number) => ({ protocol: 'tcp', port_from: port, port_to: port, remote: anywhere })
    const rules = (...ports: number[]) => [
      ...ports.map((port) => ({ direction: 'ingress', ...open(port), description: '' })),
      { direction: 'egress', protocol: 'any', remote: anywhere, description: 'everything out' },
    ]
    for (const [path, id, name, spec] of [
      ['vpcs', 'vpc-abc123', 'example', { cidr: '10.0.0.0/16' }],
      [
        'subnets',
        'subnet-def456',
        'example',
        { vpc_id: 'vpc-abc123', cidr: '10.0.1.0/24', auto_assign_public_ip: publicPools.length > 0 },
      ],
      ['security-groups', 'sg-web', 'web', { description: '', rules: rules(80, 443) }],
      ['security-groups', 'sg-ssh', 'ssh', { description: '', rules: rules(22) }],
      ['ssh-keys', 'key-001', 'example', { public_key: testPublicKey }],
    ] as const) {
      const { status, text } = await this.api('POST', `/v1/${path}`, { id, metadata: { name }, spec })
      if (status !== 201 && status !== 409 && !whereFree) throw new Error(`${path} ${id}: ${text}`)
    }
  }

  /**
   * One request. A string or buffer is sent as it is, anything else as JSON; `path` goes out untouched. Throws when
   * openapi.json does not allow the answer.
   */
  api<T = Problem>(
    method: string,
    path: string,
    body?: unknown,
    headers: RequestHeaders = {},
    options: { signal?: AbortSignal } = {},
  ): Promise<Answer<T>> {
    const payload = payloadOf(body)
    const all: Record<string, string | number | null> = {
      connection: 'close',
      ...(payload === null ? {} : { 'content-type': 'application/json', 'content-length': payload.byteLength }),
      ...headers,
    }
    const sent: OutgoingHttpHeaders = {}
    for (const [name, value] of Object.entries(all)) if (value !== null) sent[name] = value
    return new Promise((resolve, reject) => {
      const target = { host: '127.0.0.1', port: this.#port, method, path, headers: sent, ...options }
      const outgoing = request(target, (incoming) => {
        const chunks: Buffer[] = []
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () => {
          const text = Buffer.concat(chunks).toString()
          const received = { status: incoming.statusCode ?? 0, headers: incoming.headers, text }
          try {
            checkResponse(method, path, received)
            const json = /json/.test(incoming.headers['content-type'] ?? '') && text !== ''
            const parsed: T = JSON.parse(json ? text : '{}')
            resolve({ ...received, body: parsed })
          } catch (error) {
            reject(error)
          }
        })
      })
      outgoing.on('error', reject)
      outgoing.end(payload ?? undefined)
    })
  }

  /** A request as the host of this stack. */
  agentApi<T = Problem>(method: string, path: string, body?: unknown, credential = this.credential) {
    return this.api<T>(method, path, body, { authorization: `Bearer ${credential}` })
  }

  /** Create an instance of type and image micro; throws unless it was accepted. */
  async create(spec: Partial<InstanceSpecInput> = {}, metadata?: object): Promise<InstanceCreated> {
    const body = { ...(metadata === undefined ? {} : { metadata }), spec: { type: 'micro', image: 'micro', ...spec } }
    const answer = await this.api<InstanceCreated>('POST', '/v1/instances', body)
    if (answer.status !== 201) throw new Error(`create was answered with ${answer.status}: ${answer.text}`)
    return answer.body
  }

  /** An instance that is ready. */
  async createReady(spec: Partial<InstanceSpecInput> = {}, metadata?: object): Promise<Instance> {
    return this.reach((await this.create(spec, metadata)).id, 'ready')
  }

  async get(id: string): Promise<Instance> {
    return (await this.api<Instance>('GET', `/v1/instances/${id}`)).body
  }

  /** Wait for a target through the API; throws when it is not reached. */
  async reach(id: string, target: WaitTarget, timeoutSeconds = longestWaitSeconds): Promise<Instance> {
    const path = `/v1/instances/${id}?wait_for=${target}&timeout=${timeoutSeconds}`
    const answer = await this.api<Instance>('GET', path)
    if (answer.headers['berth-wait'] === 'reached') return answer.body
    throw new Error(`${target} of ${id}: ${answer.headers['berth-wait']}, ${answer.text}`)
  }

  async list(query = ''): Promise<Instance[]> {
    return (await this.api<InstanceList>('GET', `/v1/instances${query}`)).body.items
  }

  /** Start, stop or reboot; gives the operation's id and throws unless it was accepted. */
  async act(id: string, action: 'start' | 'stop' | 'reboot', body: object = {}): Promise<string> {
    return this.#accepted(await this.api<Accepted>('POST', `/v1/instances/${id}/${action}`, body))
  }

  async delete(id: string, query = ''): Promise<string> {
    return this.#accepted(await this.api<Accepted>('DELETE', `/v1/instances/${id}${query}`))
  }

  async operation(id: string, waitSeconds = 0): Promise<Operation> {
    return (await this.api<Operation>('GET', `/v1/operations/${id}?wait=${waitSeconds}`)).body
  }

  /** The operation once it has ended; throws when it does not end in time. */
  async ended(id: string, waitSeconds = longestWaitSeconds): Promise<Operation> {
    const operation = await this.operation(id, waitSeconds)
    if (operation.finished_at === null) throw new Error(`it did not end: ${JSON.stringify(operation)}`)
    return operation
  }

  /** Wait, through the operation's own changes, until a step of it runs. */
  async stepRuns(operationId: string, name: string, attempt = 1): Promise<Operation> {
    return until(
      () => this.operation(operationId),
      (operation) => {
        const step = operation.steps.find((candidate) => candidate.name === name)
        return step !== undefined && step.status === 'running' && step.attempt >= attempt
      },
    )
  }

  /** The host of this stack as the API shows it. */
  async hostDocument(): Promise<Host> {
    return (await this.api<Host>('GET', `/v1/hosts/${this.hostId}`)).body
  }

  /** Stop everything that runs and remove the directory. Throws when anything is left over. */
  async close(): Promise<void> {
    const left = this.#server === null ? [] : await leftOver(this).catch(() => []) // a test may have broken the server
    await this.#end()
    if (left.length > 0) throw new Error(`left over: ${left.map(({ kind, name }) => `${kind} ${name}`).join(', ')}`)
  }

  async #end(): Promise<void> {
    for (const release of this.#releases) release()
    await this.stopAgent()
    this.host.restart() // ends what the simulated guests have scheduled
    await this.stopServer()
    await rm(this.#directory, { recursive: true, force: true })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #accepted(answer: Answer<Accepted>): string {
    if (answer.status !== 202) throw new Error(`answered with ${answer.status}: ${answer.text}`)
    return answer.body.operation_id
  }
}

/** What is left over, once it has had the time that sweeps take. */
export async function leftOver(stack: Stack): Promise<OrphanList['items']> {
  const deadline = performance.now() + stack.patienceMs
  for (;;) {
    const { body, status } = await stack.api<OrphanList>('GET', '/v1/orphans')
    const items = status === 200 ? body.items : []
    if (items.length === 0 || performance.now() > deadline) return items
  }
}

/**
 * Read again and again until what is read is as wanted, for the few things the API has no wait for.
 */
export async function until<T>(read: () => T | Promise<T>, wanted: (value: T) => boolean): Promise<T> {
  const deadline = performance.now() + longestWaitSeconds * 1000
  for (;;) {
    const value = await read()
    if (wanted(value)) return value
    if (performance.now() > deadline)
      throw new Error(`it did not come within ${longestWaitSeconds} s: ${JSON.stringify(value)}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Nothing is written unless BERTH_TEST_LOG names a level: faults that a test makes are errors in the log. */
function testLog() {
  const level = process.env.BERTH_TEST_LOG
  return level === undefined ? pino({ level: 'silent' }, { write() {} }) : pino({ level })
}

function payloadOf(body: unknown): Buffer | null {
  if (body === undefined) return null
  if (Buffer.isBuffer(body)) return body
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
}
