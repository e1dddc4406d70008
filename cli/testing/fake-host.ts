import type {
  Desired,
  DesiredInstance,
  HostOrphan,
  Observed,
  ObservedImage,
  ObservedInstance,
} from '@berth/contract/hosts/agent-protocol.ts'
import type { StepName } from '@berth/contract/operation-kinds.ts'

/** What a host says of an instance, as far as it differs from one that has not begun. */
export type InstanceReport = Partial<ObservedInstance>

/** A host that reports exactly what a test tells it to, over the agent's own routes. */
export class FakeHost {
  readonly id: string
  readonly credential: string
  readonly #now: () => number
  readonly #instances = new Map<string, ObservedInstance>()
  #images: ObservedImage[] = []
  #url = ''
  #sequence = 0
  #revision = 0
  #desired: Desired = { revision: 0, instances: [], networks: [], security_groups: [], images: [] }

  constructor(id: string, now: () => number) {
    this.id = id
    this.credential = `credential-of-${id}`
    this.#now = now
  }

  connect(url: string): void {
    this.#url = url
  }

  /** The intent for the instance with a name, or for the newest one, as soon as `done` holds of it. */
  async wanted(done: (instance: DesiredInstance) => boolean = () => true, hostname?: string): Promise<DesiredInstance> {
    for (;;) {
      const named = this.#desired.instances.filter((each) => hostname === undefined || each.hostname === hostname)
      const found = named.findLast(done)
      if (found !== undefined) return found
      const response = await this.#call(`/v1/agent/desired?since=${this.#revision}`)
      if (response.status !== 200) continue
      this.#desired = (await response.json()) as Desired
      this.#revision = this.#desired.revision
    }
  }

  /** Report an instance, the rest as before. */
  async report(instance: DesiredInstance, report: InstanceReport): Promise<void> {
    this.#instances.set(instance.id, {
      id: instance.id,
      generation: instance.generation,
      seen_generation: instance.generation,
      power: 'off',
      off_cause: '',
      reboots: instance.reboots.count,
      restarts: 0,
      started_at: null,
      conditions: {},
      timeline: {},
      steps: [],
      failure: null,
      network: { netns: '', interface: '' },
      ...report,
    })
    await this.heartbeat()
  }

  async reportImages(images: ObservedImage[]): Promise<void> {
    this.#images = images
    await this.heartbeat()
  }

  async reportOrphans(orphans: HostOrphan[]): Promise<void> {
    await this.heartbeat({ orphans: { age_ms: 0, found: orphans } })
  }

  async heartbeat(more: Partial<Observed> = {}): Promise<void> {
    const observed: Observed = {
      agent_session: 1,
      sequence: ++this.#sequence,
      revision: this.#revision,
      agent_version: '0.1.0',
      hostname: 'fake',
      hypervisor: 'qemu',
      accelerator: 'kvm',
      accelerator_reason: '/dev/kvm runs code',
      capacity: { vcpus: 64, memory_mb: 16_384, disk_gb: 1000 },
      images: this.#images,
      instances: [...this.#instances.values()],
      ...more,
    }
    await this.#call('/v1/agent/observed', observed)
  }

  async writeConsole(instanceId: string, text: string): Promise<void> {
    const chunk = { offset: 0, data: Buffer.from(text).toString('base64') }
    await this.#call('/v1/agent/console-logs', { chunks: [{ instance_id: instanceId, ...chunk }] })
  }

  /** A step as a host reports it: it began `ago` milliseconds before and took `took`, or still runs. */
  step(name: StepName, ago: number, took: number | null, more: Partial<ObservedInstance['steps'][number]> = {}) {
    const startedAt = this.#now() - ago
    return {
      name,
      status: took === null ? ('running' as const) : ('succeeded' as const),
      attempt: 1,
      started_at: startedAt,
      finished_at: took === null ? null : startedAt + took,
      error: null,
      ...more,
    }
  }

  /** The report of an instance whose CPUs run; its guest has said `guest`. */
  running(guest: 'unknown' | 'true' | 'false', message = ''): InstanceReport {
    const now = this.#now()
    const holds = { status: 'true', reason: '', message: '', at: now } as const
    const reason = { unknown: '', true: 'user_data_ok', false: 'user_data_failed' }[guest]
    return {
      power: 'running',
      started_at: now - 1500,
      conditions: {
        ImageReady: holds,
        DiskReady: holds,
        NetworkReady: holds,
        Booted: holds,
        GuestReady: { status: guest, reason, message, at: now },
      },
      timeline: {
        vmm_started_at: now - 1500,
        kernel_at: now - 1200,
        ...(guest === 'unknown' ? {} : { guest_ready_at: now }),
      },
      steps: [
        this.step('image', 6000, 100),
        this.step('disk', 5900, 200),
        this.step('network', 5700, 300),
        this.step('boot', 5400, 400),
      ],
      network: { netns: 'berth-abc123-0123456789ab', interface: 'vt0123456789ab' },
    }
  }

  async #call(path: string, body?: object): Promise<Response> {
    const response = await fetch(`${this.#url}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { authorization: `Bearer ${this.credential}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
    return response
  }
}
