import { mkdtempSync } from 'node:fs'
import { copyFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { hostIdOf } from '@berth/agent/main.ts'
import { Child } from './child.ts'

const root = join(import.meta.dirname, '../..')

/** `dev`: `berth dev`, server and agent in one process. `apart`: a process for each. */
export type Layout = 'dev' | 'apart'

export interface InstallationOptions {
  /** A temporary directory unless given. */
  data?: string
  /** Of the layout `apart`: where the agent keeps its ledger. */
  ledgerDirectory?: string
  /** Of the layout `dev`: what is logged, and to which file. */
  logLevel?: 'error' | 'debug'
  errorFile?: string
}

/** Longest a process may take from its start until it serves, milliseconds. */
const startMs = 60_000

/** Berth on a data directory and a port of its own, in real processes. */
export class Installation {
  readonly layout: Layout
  readonly data: string
  readonly url: string
  readonly databaseFile: string
  readonly ledgerFile: string
  readonly #server: Child
  readonly #agent: Child | null

  private constructor(layout: Layout, data: string, port: number, options: InstallationOptions) {
    this.layout = layout
    this.data = data
    this.url = `http://127.0.0.1:${port}`
    this.databaseFile = join(data, 'berth.db')
    if (layout === 'dev') {
      this.ledgerFile = join(data, 'agent/ledger.db')
      const flags = ['--hypervisor', 'simulated', '--data-dir', data, '--listen', `127.0.0.1:${port}`]
      // each instance gets an address, and hundreds are made: the default pool has 254 (RFC 2544 keeps these for tests)
      flags.push('--public-pool', 'default=198.18.0.0/16')
      const { logLevel = 'error', errorFile } = options
      this.#server = new Child([join(root, 'bin/berth.ts'), 'dev', ...flags, '--log-level', logLevel], errorFile)
      this.#agent = null
      return
    }
    this.ledgerFile = join(options.ledgerDirectory ?? data, 'ledger.db')
    const host = { hostId: hostIdOf(this.ledgerFile), credential: 'credential-of-the-host' }
    const server = { port, databaseFile: this.databaseFile, ...host }
    const agent = { ledgerFile: this.ledgerFile, serverUrl: this.url, credential: host.credential }
    this.#server = new Child([join(import.meta.dirname, 'server-process.ts'), JSON.stringify(server)])
    this.#agent = new Child([join(import.meta.dirname, 'agent-process.ts'), JSON.stringify(agent)])
  }

  /** A new one; nothing is started. */
  static async prepare(layout: Layout, options: InstallationOptions = {}): Promise<Installation> {
    const data = options.data ?? mkdtempSync(join(tmpdir(), 'berth-crash-'))
    return new Installation(layout, data, await freePort(), options)
  }

  get server(): Child {
    return this.#server
  }

  /** The agent's process, null when it is the server's. */
  get agent(): Child | null {
    return this.#agent
  }

  /** Start what does not run. */
  start(): void {
    if (!this.#server.running) this.#server.start()
    if (this.#agent?.running === false) this.#agent.start()
  }

  /** Resolves when the server serves; throws when it ends or takes too long. */
  async serves(): Promise<void> {
    const deadline = performance.now() + startMs
    for (;;) {
      const ready = await fetch(`${this.url}/readyz`, { signal: AbortSignal.timeout(startMs) }).catch(() => null)
      await ready?.body?.cancel()
      if (ready?.status === 200) return
      if (!this.#server.running) throw new Error(`the server ended by itself: ${this.#server.errors}`)
      if (performance.now() > deadline) throw new Error(`the server does not serve: ${this.#server.errors}`)
      await delay(20)
    }
  }

  /** SIGKILL to the server, and to the agent where it is a process of its own and should go too. */
  async kill(agentToo: boolean): Promise<void> {
    await Promise.all([this.#server.end('SIGKILL'), agentToo ? this.#agent?.end('SIGKILL') : null])
  }

  /** End in order; throws when a process fails in that. */
  async stop(): Promise<void> {
    for (const child of [this.#agent, this.#server]) {
      if (child === null) continue
      const code = await child.end('SIGTERM')
      if (code !== 0) throw new Error(`it ended with ${code}: ${child.errors}`)
    }
  }

  /** What the simulated host has left, or null when there is nobody to ask. */
  async leftovers(): Promise<string[] | null> {
    return this.#agent === null ? null : JSON.parse(await this.#agent.ask())
  }

  /** Copy the database as it lies on the disk while no server runs: opening it in place would recover it. */
  async copyDatabase(to: string): Promise<void> {
    await copyFile(this.databaseFile, to)
    for (const part of ['-wal']) {
      await copyFile(`${this.databaseFile}${part}`, `${to}${part}`).catch((error) => {
        if (Reflect.get(Object(error), 'code') !== 'ENOENT') throw error
      })
    }
  }

  /** Remove the data directory; nothing may run. */
  async remove(): Promise<void> {
    await rm(this.data, { recursive: true, force: true })
  }
}

async function freePort(): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const probe = createServer()
  probe.once('error', reject)
  probe.listen(0, '127.0.0.1', () => {
    const address = probe.address()
    probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
  })
  return promise
}
