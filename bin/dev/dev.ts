import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { AgentSettings } from '@berth/agent/config.ts'
import type { HostDriver } from '@berth/agent/host-driver.ts'
import { ImageStore } from '@berth/agent/image/store.ts'
import { hostIdOf, type RunningAgent, startAgent } from '@berth/agent/main.ts'
import { QemuHost } from '@berth/agent/qemu/host.ts'
import { SimulatedHost } from '@berth/agent/simulated/host.ts'
import type { PublicPoolConfig } from '@berth/server/config.ts'
import { type RunningServer, startServer } from '@berth/server/main.ts'
import type { Logger } from 'pino'
import { Registry } from 'prom-client'
import { loadImageCatalogue, loadInstanceTypes } from '../catalogues.ts'
import { type DataDirectory, dataPaths, type HypervisorName, runtimeDirectory } from '../data-directory.ts'
import { processMetrics } from '../process/metrics.ts'
import { ensureExampleKey } from './example-key.ts'
import { expectAnnouncing } from './public-network.ts'
import { choosePublicPools, readTakenNetworks, refuseTakenPools, simulatedPublicPools } from './public-range.ts'

export interface DevOptions {
  listen: { host: string; port: number }
  hypervisor: HypervisorName
  /** URL of a PostgreSQL database; SQLite in the data directory unless given. */
  database?: string
  allowPrivateImageSources: boolean
  imageCatalogue?: string
  /** Chosen by `choosePublicPools` unless given. */
  publicPool?: readonly PublicPoolConfig[]
  /** Interface that public addresses are announced on; without it only this host reaches them. */
  publicInterface?: string
  stepDeadlines?: AgentSettings['deadlinesMs']
  agentSettings?: Partial<AgentSettings>
}

export interface RunningDev {
  url: string
  driver: HostDriver
  publicPools: readonly PublicPoolConfig[]
  /** Stop server and agent; VMs run on. */
  stop(): Promise<void>
}

/**
 * Server and agent of this machine in one process. The agent has no other way to the server than a fleet's has: it
 * speaks HTTP over loopback, with a credential that lives in memory.
 */
export async function startDev(data: DataDirectory, options: DevOptions, log: Logger): Promise<RunningDev> {
  const paths = dataPaths(data.path)
  const hostId = hostIdOf(paths.ledger)
  const credential = randomBytes(32).toString('base64url')
  const [images, instanceTypes] = await Promise.all([loadImageCatalogue(options.imageCatalogue), loadInstanceTypes()])
  const publicPools = await publicPoolsOf(data, options)
  const driver = await openDriver(data, options, log)
  const agentMetrics = new Registry()
  let server: RunningServer | null = null
  let agent: RunningAgent | null = null
  const stop = async () => {
    await agent?.stop()
    await server?.stop()
  }
  try {
    server = await startServer(
      {
        listen: options.listen,
        database: options.database ?? paths.database,
        hosts: [{ hostId, credential }],
        images,
        instanceTypes,
        settings: { allowPrivateImageSources: options.allowPrivateImageSources },
        publicPools,
        examplePublicKey: await ensureExampleKey(paths.keys),
        otherMetrics: [agentMetrics, processMetrics()],
      },
      log.child({ process: 'server' }),
    )
    const { stepDeadlines, agentSettings } = options
    agent = startAgent(
      {
        ledgerFile: paths.ledger,
        serverUrl: server.url,
        credential,
        registry: agentMetrics,
        settings: { ...agentSettings, ...(stepDeadlines === undefined ? {} : { deadlinesMs: stepDeadlines }) },
      },
      driver,
      log.child({ process: 'agent' }),
    )
    await data.noteUrl(server.url)
    return { url: server.url, driver, publicPools, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function publicPoolsOf(data: DataDirectory, options: DevOptions): Promise<readonly PublicPoolConfig[]> {
  const { publicPool: named, hypervisor } = options
  if (hypervisor === 'simulated') return named ?? simulatedPublicPools
  const taken = await readTakenNetworks(data.installation)
  if (named === undefined) return choosePublicPools(dataPaths(data.path).publicRange, data.installation, taken)
  refuseTakenPools(named, taken)
  return named
}

async function openDriver(data: DataDirectory, options: DevOptions, log: Logger): Promise<HostDriver> {
  if (options.hypervisor === 'simulated') return new SimulatedHost()
  const { publicInterface: announceOn } = options
  if (announceOn !== undefined) await expectAnnouncing(announceOn)
  const paths = dataPaths(data.path)
  const images = new ImageStore({
    directory: paths.images,
    log,
    clock: { now: Date.now },
    allowPrivateSources: options.allowPrivateImageSources,
  })
  return QemuHost.open({
    installation: data.installation,
    dataDirectory: paths.agent,
    runtimeDirectory: runtimeDirectory(data.installation),
    guestDirectory: join(import.meta.dirname, '../../agent/guest'),
    imagesDirectory: paths.images,
    images,
    ...(announceOn === undefined ? {} : { announceOn }),
    log,
  })
}
