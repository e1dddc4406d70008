import type { Server as HttpServer } from 'node:http'
import type { Server } from 'node:net'
import type { Logger } from 'pino'
import type { SeedFiles } from '../disk/seed.ts'
import type { Timers } from '../sys/timers.ts'
import { Admission } from './admission.ts'
import type { Guest, GuestDesk } from './guest.ts'
import { createMetadataServer, shareName } from './http.ts'
import type { MetadataKeys } from './keys.ts'
import { defaultMetadataLimits, type MetadataLimits } from './limits.ts'
import type { NamespaceListeners } from './listener.ts'

/** How often it is seen to that each VPC is served, milliseconds. */
const checkEveryMs = 5000

export interface MetadataServiceOptions {
  keys: MetadataKeys
  listeners: NamespaceListeners
  renderSeed: (guest: Guest) => SeedFiles
  limits?: MetadataLimits
  now: () => number
  timers: Timers
  log: Logger
}

interface ServedVpc {
  namespace: string
  server: HttpServer | null
  /** The namespace that `server` listens in. */
  listensIn: string | null
  /** What is to be done for the VPC is done one after the other. */
  queue: Promise<void>
  ending: AbortController
  /** The last attempt failed, which was logged. */
  failing: boolean
}

/** Before the agent works, nobody is known. */
const emptyDesk: GuestDesk = { hostId: '', find: () => null, ready() {}, count() {} }

/**
 * Serves metadata in the namespaces of this host's VPCs, all from this process. Level-triggered: which VPCs are to be
 * served is noted, and a listener that is not there, or is in a namespace that has gone, is opened anew.
 *
 * A socket keeps its namespace alive, with all that is in it, when its name has gone. So `close` is awaited before a
 * namespace is removed.
 */
export class MetadataService {
  readonly #options: MetadataServiceOptions
  readonly #limits: MetadataLimits
  readonly #admission: Admission
  readonly #vpcs = new Map<string, ServedVpc>()
  readonly #endChecks: () => void
  #desk: GuestDesk = emptyDesk

  constructor(options: MetadataServiceOptions) {
    this.#options = options
    this.#limits = options.limits ?? defaultMetadataLimits
    this.#admission = new Admission(this.#limits, () => options.timers.elapsedMs())
    this.#endChecks = options.timers.every(checkEveryMs, () => {
      this.#admission.prune()
      for (const [vpcId, vpc] of this.#vpcs) this.#look(vpcId, vpc)
    })
  }

  /** Answer from what this desk knows. */
  serve(desk: GuestDesk): void {
    this.#desk = desk
  }

  /** Have a VPC served in its namespace, soon. */
  open(vpcId: string, namespace: string): void {
    const vpc = this.#vpcs.get(vpcId) ?? {
      namespace,
      server: null,
      listensIn: null,
      queue: Promise.resolve(),
      ending: new AbortController(),
      failing: false,
    }
    this.#vpcs.set(vpcId, vpc)
    this.#look(vpcId, vpc)
  }

  /** Serve a VPC no more; resolves when nothing of the service is in its namespace. */
  async close(vpcId: string): Promise<void> {
    const vpc = this.#vpcs.get(vpcId)
    if (vpc === undefined) return
    this.#vpcs.delete(vpcId)
    vpc.ending.abort()
    await vpc.queue
    await dropServer(vpc)
  }

  /** End the connections of an address whose instance goes, before anyone else may get it. */
  disconnect(vpcId: string, address: string): void {
    this.#admission.destroy(shareName(vpcId, address))
  }

  /** Resolves when what was asked for until now has been tried. */
  async settled(): Promise<void> {
    await Promise.all([...this.#vpcs.values()].map((vpc) => vpc.queue))
  }

  async stop(): Promise<void> {
    this.#endChecks()
    await Promise.all([...this.#vpcs.keys()].map((vpcId) => this.close(vpcId)))
  }

  #look(vpcId: string, vpc: ServedVpc): void {
    vpc.queue = vpc.queue.then(async () => {
      if (vpc.ending.signal.aborted) return
      try {
        await this.#ensureServer(vpcId, vpc)
        if (vpc.failing) this.#options.log.info({ vpc_id: vpcId }, 'metadata is served again')
        vpc.failing = false
      } catch (error) {
        if (vpc.ending.signal.aborted) return
        if (!vpc.failing) this.#options.log.error({ err: error, vpc_id: vpcId }, 'metadata cannot be served')
        vpc.failing = true
      }
    })
  }

  async #ensureServer(vpcId: string, vpc: ServedVpc): Promise<void> {
    const { listeners, log, now, keys, renderSeed } = this.#options
    const namespace = await listeners.identify(vpc.namespace)
    if (vpc.server?.listening && vpc.listensIn === namespace) return
    await dropServer(vpc)
    if (namespace === null) return // it will be made, or is gone: nobody is there to ask
    const socket = await listeners.open(vpc.namespace, vpc.ending.signal)
    const desk = () => this.#desk
    const server = createMetadataServer({
      vpcId,
      sources: {
        keys,
        renderSeed,
        now,
        get desk() {
          return desk()
        },
      },
      admission: this.#admission,
      limits: this.#limits,
      log,
    })
    vpc.server = server
    vpc.listensIn = namespace
    await listen(server, socket)
  }
}

/** Take a listening socket over from another server; it is closed with this one. */
async function listen(server: HttpServer, socket: Server): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(socket, resolve)
  await promise.catch((error) => {
    socket.close()
    throw error
  })
  server.off('error', reject)
}

async function dropServer(vpc: ServedVpc): Promise<void> {
  const { server } = vpc
  vpc.server = null
  vpc.listensIn = null
  if (server === null) return
  const { promise, resolve } = Promise.withResolvers<void>()
  server.close(() => resolve())
  server.closeAllConnections()
  await promise
}
