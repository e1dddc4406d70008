import { type ChildProcess, spawn } from 'node:child_process'
import { chown, link, mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SerialScanner } from '@berth/agent/console/ready-marker.ts'
import { readFrom } from '@berth/agent/console/serial-segments.ts'
import { diskFiles, ensureOverlay } from '@berth/agent/disk/disks.ts'
import { renderSeed, writeSeed } from '@berth/agent/disk/seed.ts'
import { qemuArgv } from '@berth/agent/qemu/argv.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { imageFile } from './berth-under-test.ts'
import type { BootTimes } from './figures.ts'

const uid = 1_899_999_000
const tap = 'vtbenchbare000'
const mac = '06:00:00:00:be:01'

/** QEMU without Berth: the flags are the agent's own, everything else is done by hand before the clock starts. */
export class BareMachine {
  readonly #work: string
  readonly #accelerator: 'kvm' | 'tcg'

  constructor(work: string, accelerator: 'kvm' | 'tcg') {
    this.#work = work
    this.#accelerator = accelerator
  }

  async boot(): Promise<BootTimes> {
    const directory = await mkdtemp(join(this.#work, 'bare-'))
    const runtime = join('/run/berth', 'bench')
    await mkdir(runtime, { recursive: true, mode: 0o700 })
    await chown(runtime, uid, uid)
    await prepareDisk(directory)
    await runCommand(['ip', 'tuntap', 'add', 'dev', tap, 'mode', 'tap', 'vnet_hdr', 'user', String(uid)])
    await runCommand(['ip', 'link', 'set', tap, 'mtu', '1450', 'up'])
    let child: ChildProcess | null = null
    try {
      const startedAt = performance.now()
      child = await start(directory, runtime, this.#accelerator)
      return await follow(diskFiles(directory).serialLog, startedAt)
    } finally {
      if (child !== null) await kill(child)
      await runCommand(['ip', 'link', 'del', tap])
      await rm(runtime, { recursive: true, force: true })
      await rm(directory, { recursive: true, force: true })
    }
  }
}

async function prepareDisk(directory: string): Promise<void> {
  const image = join(directory, 'image.qcow2')
  await link(imageFile('micro.qcow2'), image).catch(() => runCommand(['cp', imageFile('micro.qcow2'), image]))
  await ensureOverlay(directory, image, 2)
  const about = {
    id: 'inst-00000000000000000000',
    generation: 1,
    power: 'running',
    grace_seconds: 0,
    reboots: { count: 0, grace_seconds: 0 },
    hostname: 'bare',
    type: 'micro',
    image_id: 'micro',
    vcpus: 1,
    memory_mb: 256,
    disk_gb: 2,
    vpc_id: 'vpc-bench',
    subnet_id: 'subnet-bench',
    private_ip: '10.0.1.4',
    mac,
    security_groups: [],
    public_ip: '',
    bandwidth_mbps: 0,
    ssh_public_keys: [],
    user_data: '',
  } as const
  const seed = renderSeed(
    { ...about, security_groups: [], ssh_public_keys: [] },
    { prefixLength: 24, gateway: '10.0.1.1' },
    { network: 'static' },
    '',
  )
  await writeSeed(diskFiles(directory).seed, seed)
}

async function start(directory: string, runtimeDirectory: string, accelerator: 'kvm' | 'tcg'): Promise<ChildProcess> {
  const files = diskFiles(directory)
  const opened = await Promise.all([
    open(files.disk, 'r+'),
    open(files.base, 'r'),
    open(files.seed, 'r'),
    open(files.serialLog, 'a', 0o600),
  ])
  const argv = qemuArgv({
    id: 'bare',
    uuid: '00000000-0000-4000-8000-000000000001',
    accelerator,
    vcpus: 1,
    memoryMb: 256,
    tap,
    mac,
    serialNumber: '',
    runtimeDirectory,
    fds: { disk: 3, base: 4, seed: 5, serialLog: 6 },
  })
  const asUser = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--no-new-privs', '--', ...argv]
  const child = spawn('setpriv', asUser, { stdio: ['ignore', 'ignore', 'inherit', ...opened.map((file) => file.fd)] })
  await Promise.all(opened.map((file) => file.close()))
  return child
}

/** Read the serial log until the ready mark, looking every 2 ms. */
async function follow(serialLog: string, startedAt: number): Promise<BootTimes> {
  const scanner = new SerialScanner()
  let position = 0
  let kernel: number | null = null
  while (performance.now() - startedAt < 120_000) {
    const data = await readFrom(serialLog, position, 65_536)
    position += data.length
    const seen = scanner.scan(data)
    if (seen.kernel) kernel ??= performance.now() - startedAt
    if (seen.ready !== null) return { vmm: 0, kernel: kernel ?? Number.NaN, ready: performance.now() - startedAt }
    await delay(2)
  }
  throw new Error('bare QEMU was not ready within 120 s')
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const { promise, resolve } = Promise.withResolvers<void>()
  child.once('exit', () => resolve())
  child.kill('SIGKILL')
  await promise
}
