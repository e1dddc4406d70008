import { rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { identifyProcess, waitForExit } from '@berth/agent/process.ts'
import { createBerthClient } from '@berth/sdk/client.ts'
import { type Logger, pino } from 'pino'
import { renderBanner } from './banner.ts'
import {
  type DataDirectory,
  DataDirectoryInUse,
  openDataDirectory,
  readHolder,
  runtimeDirectory,
} from './data-directory.ts'
import { type RunningDev, startDev } from './dev.ts'
import type { DevFlags } from './dev-command.ts'
import { removeRuntime } from './runtime.ts'

/** Exit code of a command that only root can run (sysexits.h, EX_NOPERM). */
const needsRoot = 77

/** Run server and agent until SIGINT or SIGTERM; gives the exit code. */
export async function up(flags: DevFlags): Promise<number> {
  if (!mayRun(flags)) return needsRoot
  const startedAt = performance.now()
  const data = await open(flags)
  if (data === null) return 1
  const stopping = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => stopping.abort(signal))
  const log = pino({ level: flags.logLevel }, pino.destination({ fd: 2, sync: true }))
  const dev = await startDev(data, flags, log)
  const images = (await dev.driver.images()).filter((image) => image.state === 'available').map((image) => image.id)
  const seconds = (performance.now() - startedAt) / 1000
  process.stdout.write(renderBanner({ url: dev.url, dataDirectory: data.path, driver: dev.driver, images, seconds }))
  if (!stopping.signal.aborted) {
    const { promise, resolve: stop } = Promise.withResolvers<void>()
    stopping.signal.addEventListener('abort', () => stop())
    await promise
  }
  process.stdout.write('stopping; instances run on\n')
  await dev.stop()
  data.release()
  return 0
}

/** Delete every instance through the API, as a user would, then what belongs to no instance. */
export async function down(flags: DevFlags): Promise<number> {
  if (!mayRun(flags)) return needsRoot
  await stopHolder(flags.dataDir)
  const data = await open(flags)
  if (data === null) return 1
  const log: Logger = pino({ level: flags.logLevel }, pino.destination({ fd: 2, sync: true }))
  const dev = await startDev(data, { ...flags, listen: { host: '127.0.0.1', port: 0 } }, log)
  try {
    await deleteAll(dev)
  } finally {
    await dev.stop()
  }
  if (flags.hypervisor === 'qemu') await removeRuntime(data.installation, runtimeDirectory(data.installation))
  data.release()
  if (flags.purge) await rm(data.path, { recursive: true, force: true })
  process.stdout.write(
    flags.purge ? `removed ${data.path}\n` : `everything is down; ${data.path} keeps database, keys and images\n`,
  )
  return 0
}

async function deleteAll(dev: RunningDev): Promise<void> {
  const client = createBerthClient(dev.url)
  for (;;) {
    const { data: list } = await client.GET('/v1/instances')
    const items = list?.items ?? []
    if (items.length === 0) return
    for (const { id, metadata } of items) {
      process.stdout.write(`deleting ${id} (${metadata.name})\n`)
      await client.DELETE('/v1/instances/{id}', { params: { path: { id }, query: { grace_seconds: 0 } } })
    }
    for (const { id } of items) {
      const params = { path: { id }, query: { wait_for: 'terminated', timeout: 60 } } as const
      await client.GET('/v1/instances/{id}', { params })
    }
  }
}

async function stopHolder(dataDir: string): Promise<void> {
  const holder = await readHolder(resolve(dataDir))
  const identity = holder === null ? null : await identifyProcess(holder.pid)
  if (holder === null || identity === null || !(await holdsLock(dataDir))) return
  process.stdout.write(`stopping process ${holder.pid} (${holder.url})\n`)
  process.kill(holder.pid, 'SIGTERM')
  if (!(await waitForExit(identity, 30_000))) throw new Error(`process ${holder.pid} does not stop`)
}

/** Whether somebody holds the data directory: a pid alone may be another process by now. */
async function holdsLock(dataDir: string): Promise<boolean> {
  try {
    const data = await openDataDirectory(dataDir)
    data.release()
    return false
  } catch (error) {
    if (error instanceof DataDirectoryInUse) return true
    throw error
  }
}

async function open(flags: DevFlags): Promise<DataDirectory | null> {
  // a predecessor that was told to stop may need a moment
  for (let attempt = 0; ; attempt++) {
    try {
      return await openDataDirectory(flags.dataDir)
    } catch (error) {
      if (!(error instanceof DataDirectoryInUse)) throw error
      if (attempt === 5) {
        process.stderr.write(`berth: ${error.message}\n`)
        return null
      }
      await delay(100)
    }
  }
}

function mayRun(flags: DevFlags): boolean {
  if (flags.hypervisor === 'simulated' || process.getuid?.() === 0) return true
  process.stderr.write(
    `berth: QEMU instances need root for their networks and users. Run:\n\n  sudo ${process.argv[1]?.replace(/bin\/berth\.ts$/, 'berth')} ${process.argv.slice(2).join(' ')}\n\nor try the API without real machines: ./berth dev --hypervisor simulated\n`,
  )
  return false
}
