import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createBerthClient } from '@berth/sdk/client.ts'
import { pino } from 'pino'
import { type DataDirectory, openDataDirectory } from '../bin/data-directory.ts'
import { type RunningDev, startDev } from '../bin/dev/dev.ts'
import type { BootTimes } from './figures.ts'

/** Image files of the test run; `npm test` builds them once. */
export const imageFile = (name: string) => join(import.meta.dirname, '../.berth-test/images', name)

/** Server and agent as `berth dev` runs them, on a data directory of their own. */
export class BerthUnderTest {
  readonly #data: DataDirectory
  readonly #dev: RunningDev

  private constructor(data: DataDirectory, dev: RunningDev) {
    this.#data = data
    this.#dev = dev
  }

  static async start(work: string): Promise<BerthUnderTest> {
    const path = join(work, 'data')
    await mkdir(join(path, 'images'), { recursive: true, mode: 0o700 })
    for (const name of ['micro.qcow2', 'micro.json']) await copyFile(imageFile(name), join(path, 'images', name))
    const data = await openDataDirectory(path, 'qemu')
    const options = {
      listen: { host: '127.0.0.1', port: 0 },
      hypervisor: 'qemu',
      allowPrivateImageSources: false,
    } as const
    const dev = await startDev(data, options, pino({ level: 'warn' }, pino.destination(2)))
    return new BerthUnderTest(data, dev)
  }

  get accelerator(): 'kvm' | 'tcg' {
    const { kind } = this.#dev.driver.accelerator
    if (kind === 'none') throw new Error('the simulated host cannot be measured')
    return kind
  }

  /** Create an instance, wait until it is ready, delete it. */
  async boot(): Promise<BootTimes> {
    const client = createBerthClient(this.#dev.url)
    const startedAt = Date.now()
    const { data: created, error } = await client.POST('/v1/instances', {
      body: { spec: { type: 'micro', image: 'micro', ssh_key_ids: ['key-001'], subnet_id: 'subnet-def456' } },
    })
    if (created === undefined) throw new Error(`create failed: ${JSON.stringify(error)}`)
    const path = { id: created.id }
    const { data } = await client.GET('/v1/instances/{id}', {
      params: { path, query: { wait_for: 'ready', timeout: 120 } },
    })
    const timeline = data?.status.boot_timeline
    if (timeline === undefined || timeline.guest_ready_at === '') throw new Error(`not ready: ${JSON.stringify(data)}`)
    await client.DELETE('/v1/instances/{id}', { params: { path, query: { grace_seconds: 0 } } })
    await client.GET('/v1/instances/{id}', { params: { path, query: { wait_for: 'terminated', timeout: 60 } } })
    return {
      vmm: Date.parse(timeline.vmm_started_at) - startedAt,
      kernel: Date.parse(timeline.kernel_at) - startedAt,
      ready: Date.parse(timeline.guest_ready_at) - startedAt,
    }
  }

  async stop(): Promise<void> {
    await this.#dev.stop()
    await this.#data.release()
  }
}
