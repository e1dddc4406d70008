import { rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { identifyProcess, waitForExit } from '@berth/agent/process.ts'
import { createBerthClient } from '@berth/sdk/client.ts'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type Logger, pino } from 'pino'
import { renderBanner } from './banner.ts'
import {
  type DataDirectory,
  DataDirectoryInUse,
  openDataDirectory,
  readHolder,
  runtimeDirectory,
} from './data-directory.ts'
import { type HypervisorName, type RunningDev, startDev } from './dev.ts'
import { removeRuntime } from './runtime.ts'

/** Exit code of a command that only root can run (sysexits.h, EX_NOPERM). */
const needsRoot = 77

interface DevFlags {
  listen: { host: string; port: number }
  dataDir: string
  hypervisor: HypervisorName
  imageCatalogue?: string
  allowPrivateImageSources: boolean
  logLevel: string
  down: boolean
  purge: boolean
}

/** `berth dev`: everything on this machine in one process. */
export function addDevCommand(program: Command): void {
  program
    .command('dev')
    .description('run server and agent for this machine in the foreground')
    .addOption(
      new Option('--listen <host:port>', 'address of the API; loopback only, it needs no token')
        .env('BERTH_LISTEN')
        .argParser(parseListen)
        .default({ host: '127.0.0.1', port: 7480 }, '127.0.0.1:7480'),
    )
    .addOption(
      new Option('--data-dir <dir>', 'where state, images and disks are kept')
        .env('BERTH_DATA_DIR')
        .default('./.berth'),
    )
    .addOption(
      new Option('--hypervisor <name>', 'simulated runs no real machines; it is for tests and development')
        .env('BERTH_HYPERVISOR')
        .choices(['qemu', 'simulated'])
        .default('qemu'),
    )
    .addOption(new Option('--image-catalogue <file>', 'images that can be had').env('BERTH_IMAGE_CATALOGUE'))
    .addOption(
      new Option('--allow-private-image-sources', 'download images also from loopback and link-local addresses')
        .env('BERTH_ALLOW_PRIVATE_IMAGE_SOURCES')
        .default(false),
    )
    .addOption(
      new Option('--log-level <level>', 'what is logged, as JSON on standard error')
        .env('BERTH_LOG_LEVEL')
        .choices(['debug', 'info', 'warn', 'error', 'silent'])
        .default('warn'),
    )
    .option('--down', 'stop a running berth dev, delete all instances and all it made on this machine', false)
    .option('--purge', 'with --down: remove database, keys and images as well', false)
    .addHelpText(
      'after',
      `\nExamples:\n  berth dev\n  berth dev --listen 127.0.0.1:8000 --data-dir /var/lib/berth\n  berth dev --down`,
    )
    .action(async (flags: DevFlags) => {
      process.exitCode = flags.down ? await down(flags) : await up(flags)
    })
}

async function up(flags: DevFlags): Promise<number> {
  if (!mayRun(flags)) return needsRoot
  const startedAt = performance.now()
  const data = await open(flags)
  if (data === null) return 1
  const stopping = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopping.abort(signal))
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
async function down(flags: DevFlags): Promise<number> {
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

function parseListen(text: string): { host: string; port: number } {
  const match = /^(127\.0\.0\.1|localhost|\[::1\]):(\d{1,5})$/.exec(text)
  const port = Number(match?.[2])
  if (match?.[1] === undefined || port > 65_535) {
    throw new InvalidArgumentError('must be 127.0.0.1:PORT, localhost:PORT or [::1]:PORT: there are no tokens yet.')
  }
  return { host: match[1] === '[::1]' ? '::1' : match[1], port }
}
