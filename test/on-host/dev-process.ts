import { type ChildProcess, spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { type BerthClient, createBerthClient, type Schemas } from '@berth/sdk/client.ts'

const root = join(import.meta.dirname, '../..')

/** Where `npm test` keeps the images that are built once. */
const testImages = join(root, '.berth-test/images')

export type InstanceDocument = Schemas['Instance']
export type WaitTarget = 'running' | 'ready' | 'stopped' | 'terminated'

/**
 * A real `berth dev` of this checkout, as a user starts it, on a data directory of its own. It survives being killed:
 * `start` brings it back on the same data.
 */
export class DevProcess {
  readonly data: string
  readonly #flags: readonly string[]
  #child: ChildProcess | null = null
  #output = ''
  url = ''
  client: BerthClient = createBerthClient('http://127.0.0.1:1')

  private constructor(data: string, flags: readonly string[]) {
    this.data = data
    this.#flags = flags
  }

  /** `images` are copied from the images of the test run. */
  static async open(options: { images?: readonly string[]; flags?: readonly string[] } = {}): Promise<DevProcess> {
    const data = await mkdtemp(join(tmpdir(), 'berth-on-host-'))
    await mkdir(join(data, 'images'), { mode: 0o700 })
    for (const id of options.images ?? ['micro']) {
      for (const file of [`${id}.qcow2`, `${id}.json`]) await copyOrExplain(file, join(data, 'images', file))
    }
    const dev = new DevProcess(data, options.flags ?? [])
    try {
      await dev.start()
      return dev
    } catch (error) {
      await rm(data, { recursive: true, force: true })
      throw error
    }
  }

  get pid(): number {
    const pid = this.#child?.pid
    if (pid === undefined) throw new Error('berth dev is not running')
    return pid
  }

  async start(): Promise<void> {
    const args = ['dev', '--data-dir', this.data, '--listen', '127.0.0.1:0', '--log-level', 'info', ...this.#flags]
    const child = spawn(join(root, 'berth'), args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child = child
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    let banner = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      banner += text
      const url = /API\s+(http:\S+)/.exec(banner)?.[1]
      if (url !== undefined) resolve(url)
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text
    })
    child.once('exit', (code, signal) => reject(new Error(`berth dev ended (${code ?? signal}): ${this.#output}`)))
    this.url = await promise
    this.client = createBerthClient(this.url)
  }

  /** Everything it logged so far, for the message of a failing test. */
  get log(): string {
    return this.#output
  }

  async end(signal: 'SIGINT' | 'SIGKILL'): Promise<number | null> {
    const child = this.#child
    if (child === null || child.exitCode !== null || child.signalCode !== null) return null
    const { promise, resolve } = Promise.withResolvers<number | null>()
    child.once('exit', (code) => resolve(code))
    child.kill(signal)
    return promise
  }

  /** Delete everything through `berth dev --down` and remove the data; gives what that printed. */
  async down(): Promise<string> {
    await this.end('SIGINT')
    const argv = [join(root, 'berth'), 'dev', '--down', '--purge', '--data-dir', this.data]
    const { stdout } = await runCommand(argv, { timeoutMs: 480_000 })
    await rm(this.data, { recursive: true, force: true })
    return stdout
  }

  async create(spec: Partial<Schemas['InstanceCreate']['spec']>, name?: string): Promise<string> {
    const body = {
      ...(name === undefined ? {} : { metadata: { name } }),
      spec: { type: 'micro', image: 'micro', ssh_key_ids: ['key-001'], subnet_id: 'subnet-def456', ...spec },
    }
    const { data, error } = await this.client.POST('/v1/instances', { body })
    if (data === undefined) throw new Error(`create failed: ${JSON.stringify(error)}`)
    return data.id
  }

  /** Import an image of the test run under another id, and wait until the server knows it. */
  async importImage(from: string, id: string, flags: readonly string[]): Promise<void> {
    const file = join(testImages, `${from}.qcow2`)
    const argv = [join(root, 'berth'), 'image', 'import', file, '--id', id, '--data-dir', this.data, ...flags]
    await runCommand(argv, { timeoutMs: 480_000 })
    for (let attempt = 0; attempt < 1200; attempt++) {
      const { data } = await this.client.GET('/v1/images/{id}', { params: { path: { id } } })
      if (data?.status.state === 'available') return
      await delay(50) // images have no wait of their own
    }
    throw new Error(`image ${id} did not appear within a minute`)
  }

  async get(id: string): Promise<InstanceDocument> {
    const { data, error } = await this.client.GET('/v1/instances/{id}', { params: { path: { id } } })
    if (data === undefined) throw new Error(`get failed: ${JSON.stringify(error)}`)
    return data
  }

  /** Wait for a state; throws with document, console and log when it is not reached. */
  async reach(id: string, target: WaitTarget, timeout = 480): Promise<InstanceDocument> {
    // fetch gives up after five minutes without an answer
    const query = { wait_for: target, timeout: Math.min(timeout, 240) }
    const { data, response } = await this.client.GET('/v1/instances/{id}', { params: { path: { id }, query } })
    const outcome = response.headers.get('berth-wait')
    if (data !== undefined && outcome === 'reached') return data
    if (outcome === 'timed-out' && timeout > query.timeout) return this.reach(id, target, timeout - query.timeout)
    const serial = await this.consoleLog(id)
    throw new Error(`${id} is not ${target} (${outcome}): ${JSON.stringify(data)}\n${serial.slice(-3000)}\n${this.log}`)
  }

  /** Wait until an instance's host has the groups and the public address that were asked for. */
  async inForce(id: string): Promise<void> {
    for (let attempt = 0; attempt < 1200; attempt++) {
      const { metadata, status } = await this.get(id)
      if (metadata.generation === status.observed_generation) return
      await delay(50) // observed_generation has no wait of its own
    }
    throw new Error(`what was asked of ${id} is not in force after a minute\n${this.log}`)
  }

  /** Wait until the status of an instance has a reason, "" for none. */
  async reasoned(id: string, reason: string): Promise<InstanceDocument> {
    for (let attempt = 0; attempt < 600; attempt++) {
      const instance = await this.get(id)
      if (instance.status.reason === reason) return instance
      await delay(50) // reasons have no wait of their own
    }
    throw new Error(
      `${id} has not got the reason "${reason}" in 30 s: ${JSON.stringify(await this.get(id))}\n${this.log}`,
    )
  }

  async operation(id: string): Promise<Schemas['Operation']> {
    const params = { path: { id }, query: { wait: 60 } }
    const { data } = await this.client.GET('/v1/operations/{id}', { params })
    if (data === undefined) throw new Error(`there is no operation ${id}`)
    return data
  }

  async act(id: string, action: 'start' | 'stop' | 'reboot', body: Schemas['PowerActionBody'] = {}): Promise<string> {
    const response = await fetch(`${this.url}/v1/instances/${id}/${action}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    const answer = Object(await response.json())
    if (response.status !== 202)
      throw new Error(`${action} was answered with ${response.status}: ${JSON.stringify(answer)}`)
    return String(answer.operation_id)
  }

  async delete(id: string): Promise<string> {
    const { data, error } = await this.client.DELETE('/v1/instances/{id}', { params: { path: { id } } })
    if (data === undefined) throw new Error(`delete failed: ${JSON.stringify(error)}`)
    return data.operation_id
  }

  async consoleLog(id: string): Promise<string> {
    return (await fetch(`${this.url}/v1/instances/${id}/console-log`)).text()
  }

  /** What the VMM of an instance has written that no agent has made room for yet; read without an agent. */
  async unheardSerial(id: string): Promise<string> {
    const directory = `/proc/${await this.qemuPid(id)}/fd`
    for (const fd of await readdir(directory)) {
      const target = await readlink(join(directory, fd)).catch(() => '')
      if (target.startsWith(`/${id}@`)) return readFile(join(directory, fd), 'latin1')
    }
    throw new Error(`the VMM of ${id} has no serial spool`)
  }

  /** Run a command in a guest through `berth ssh`, as a user does; gives its standard output. */
  async ssh(id: string, command: string): Promise<string> {
    const argv = [join(root, 'berth'), '--server', this.url, 'ssh', '--data-dir', this.data, id, '--', command]
    return (await runCommand(argv, { timeoutMs: 120_000 })).stdout.trim()
  }

  /** Pid of the QEMU process of an instance, or null. */
  async qemuPid(id: string): Promise<number | null> {
    return (await listProcesses()).find(({ argv }) => argv.includes(`guest=${id},`))?.pid ?? null
  }
}

/**
 * Everything of this host that an instance may leave behind, one line an object: processes, namespaces with their links
 * and rules, files of instances, sockets. Two equal snapshots mean that nothing was left.
 */
export async function hostSnapshot(dev: DevProcess): Promise<string[]> {
  const lines: string[] = []
  for (const { argv } of await listProcesses()) {
    if (/qemu-system|dnsmasq|nsenter/.test(argv)) lines.push(`process ${argv.slice(0, 120)}`)
  }
  const links = await runCommand(['ip', '-brief', 'link', 'show'])
  for (const link of links.stdout.trim().split('\n')) lines.push(`link ${link.split(' ')[0]}`)
  for (const name of await readdir('/run/netns')) {
    lines.push(`namespace ${name}`)
    const inside = ['nsenter', `--net=/run/netns/${name}`, '--']
    const { stdout } = await runCommand([...inside, 'nft', 'list', 'ruleset'])
    lines.push(...stdout.split('\n').map((line) => `${name} ${line.trim()}`))
  }
  lines.push(`host rules ${(await runCommand(['nft', 'list', 'ruleset'])).stdout.trim()}`)
  for (const directory of [join(dev.data, 'agent/instances'), '/run/berth']) {
    for (const entry of await readdir(directory, { recursive: true })) lines.push(`file ${directory}/${entry}`)
  }
  return lines.sort()
}

/** The processes that were started from this test host, with their arguments. */
export async function listProcesses(): Promise<{ pid: number; argv: string }[]> {
  const found: { pid: number; argv: string }[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry) || !(await sharesMounts(entry))) continue
    const text = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')
    if (text !== '') found.push({ pid: Number(entry), argv: text.replaceAll('\0', ' ') })
  }
  return found
}

/** Whether a process was started from this test host: it sees the same mounts. Others' machines are not our business. */
async function sharesMounts(pid: string): Promise<boolean> {
  const [own, theirs] = await Promise.all([
    readlink('/proc/self/ns/mnt'),
    readlink(`/proc/${pid}/ns/mnt`).catch(() => ''),
  ])
  return own === theirs
}

async function copyOrExplain(file: string, to: string): Promise<void> {
  await copyFile(join(testImages, file), to, constants.COPYFILE_FICLONE).catch((error: unknown) => {
    throw new Error(
      `the test image ${file} is missing; run npm test once, or: ./berth image build micro --data-dir .berth-test`,
      {
        cause: error,
      },
    )
  })
}
