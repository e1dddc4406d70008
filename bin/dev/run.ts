import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { waitForExit } from '@berth/agent/sys/process.ts'
import type { HostOrphan } from '@berth/contract/hosts/agent-protocol.ts'
import { createBerthClient } from '@berth/sdk/client.ts'
import {
  type DataDirectory,
  DataDirectoryInUse,
  findHolder,
  isDataDirectory,
  openDataDirectory,
  purgeDataDirectory,
  runtimeDirectory,
} from '../data-directory.ts'
import { interruption } from '../process/interruption.ts'
import { createLogger } from '../process/log.ts'
import { removeRuntime } from '../process/runtime.ts'
import { standardError } from '../process/standard-error.ts'
import { renderBanner } from './banner.ts'
import { type RunningDev, startDev } from './dev.ts'
import type { DevFlags } from './flags.ts'

/** Exit code of a command that only root can run (sysexits.h, EX_NOPERM). */
const needsRoot = 77

/** Run server and agent until SIGINT or SIGTERM; gives the exit code. */
export async function up(flags: DevFlags): Promise<number> {
  if (!mayRun(flags)) return needsRoot
  const startedAt = performance.now()
  const data = await openDataDirectory(flags.dataDir, flags.hypervisor)
  process.stdout.on('error', () => undefined) // a terminal that has gone is no reason to end
  const stopping = interruption()
  const dev = await startDev(data, flags, logger(flags))
  const images = (await dev.driver.images()).filter((image) => image.state === 'available').map((image) => image.id)
  const seconds = (performance.now() - startedAt) / 1000
  process.stdout.write(
    renderBanner({
      url: dev.url,
      dataDirectory: data.path,
      database: flags.database,
      driver: dev.driver,
      images,
      publicPools: dev.publicPools,
      publicInterface: flags.publicInterface,
      seconds,
    }),
  )
  if (!stopping.aborted) {
    const { promise, resolve: stop } = Promise.withResolvers<void>()
    stopping.addEventListener('abort', () => stop())
    await promise
  }
  process.stdout.write('stopping; instances run on\n')
  await dev.stop()
  await data.release()
  return 0
}

/**
 * Delete every instance through the API, as a user would, then what belongs to no instance. Exit code 1 when deleting all
 * instances left anything of them behind, also when that is removed by now.
 */
export async function down(flags: DevFlags): Promise<number> {
  if (!mayRun(flags)) return needsRoot
  if (!(await isDataDirectory(flags.dataDir))) {
    process.stdout.write(`there is nothing of Berth in ${resolve(flags.dataDir)}\n`)
    return 0
  }
  await stopHolder(flags.dataDir)
  const data = await openWhenFree(flags)
  // without public addresses: none is handed out any more, and whose they are must keep nothing from going down
  const options = { ...flags, publicPool: [], listen: { host: '127.0.0.1', port: 0 } }
  const dev = await startDev(data, options, logger(flags))
  let left: HostOrphan[]
  try {
    await deleteAll(dev)
    const nothing = { instances: new Set<string>(), vpcs: new Set<string>() }
    left = await dev.driver.findOrphans(() => nothing, { signal: AbortSignal.timeout(60_000) })
  } finally {
    await dev.stop()
  }
  if (flags.hypervisor === 'qemu') await removeRuntime(data.installation, runtimeDirectory(data.installation))
  await data.release()
  if (flags.purge) await purgeDataDirectory(data.path)
  process.stdout.write(
    flags.purge ? `removed ${data.path}\n` : `everything is down; ${data.path} keeps database, keys and images\n`,
  )
  for (const { kind, name, detail } of left) process.stderr.write(`berth: ${kind} ${name} was left over: ${detail}\n`)
  return left.length === 0 ? 0 : 1
}

/** Throws when an answer is not what it should be: an error must not pass for "there are none". */
async function deleteAll(dev: RunningDev): Promise<void> {
  const client = createBerthClient(dev.url)
  for (;;) {
    const { data: list, error } = await client.GET('/v1/instances')
    if (list === undefined) throw new Error(`the instances cannot be listed: ${error.detail}`)
    if (list.items.length === 0) return
    for (const { id, metadata } of list.items) {
      process.stdout.write(`deleting ${id} (${metadata.name})\n`)
      const params = { path: { id }, query: { grace_seconds: 0 } }
      const deleted = await client.DELETE('/v1/instances/{id}', { params })
      if (deleted.data === undefined) throw new Error(`${id} cannot be deleted: ${deleted.error.detail}`)
    }
    for (const { id } of list.items) {
      const params = { path: { id }, query: { wait_for: 'terminated', timeout: 60 } } as const
      await client.GET('/v1/instances/{id}', { params })
    }
  }
}

async function stopHolder(dataDir: string): Promise<void> {
  const holder = await findHolder(dataDir)
  if (holder === null) return
  process.stdout.write(`stopping process ${holder.pid}${holder.url === '' ? '' : ` (${holder.url})`}\n`)
  process.kill(holder.pid, 'SIGTERM')
  if (!(await waitForExit(holder, 30_000))) throw new Error(`process ${holder.pid} does not stop`)
}

/** The kernel gives the lock of a process that has just ended free in its own time. */
async function openWhenFree(flags: DevFlags): Promise<DataDirectory> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await openDataDirectory(flags.dataDir, flags.hypervisor)
    } catch (error) {
      if (!(error instanceof DataDirectoryInUse) || attempt === 5) throw error
      await delay(100)
    }
  }
}

function logger(flags: DevFlags) {
  return createLogger(flags.logLevel, standardError())
}

function mayRun(flags: DevFlags): boolean {
  if (flags.hypervisor === 'simulated' || process.getuid?.() === 0) return true
  const berth = process.argv[1]?.replace(/bin\/berth\.ts$/, 'berth') ?? 'berth'
  process.stderr.write(
    `berth: QEMU instances need root for their networks and users. Run:\n\n  sudo ${berth} ${process.argv.slice(2).join(' ')}\n\n` +
      'or try the API without real machines: ./berth dev --hypervisor simulated\n',
  )
  return false
}
