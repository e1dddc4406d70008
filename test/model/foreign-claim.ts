import type { Observed, ObservedInstance } from '@berth/contract/hosts/agent-protocol.ts'
import { ApiError } from '@berth/server/api-error.ts'
import type { HostProcess } from './host-process.ts'
import { ServerGone } from './server-process.ts'
import type { World } from './world.ts'

/** What a host says of an instance that it does not hold. */
export interface Claim {
  pick: number
  power: ObservedInstance['power']
  failed: boolean
}

/** Have a host report, beside what is true of it, an instance of the other host; it must change nothing there. */
export async function claimForeign(world: World, claim: Claim): Promise<void> {
  await world.settle()
  const id = world.promises.pick(claim.pick)
  if (id === undefined) return
  for (const host of world.hosts) {
    const instance = world.server.stored.instance(id)
    const last = world.reports.get(host.id)
    if (instance === null || instance.host_id === host.id || last === undefined || !world.server.running) continue
    const before = world.server.stored.textOf(id)
    await deliver(world, host, last, claimOf(instance, claim))
    await world.settle()
    const after = world.server.stored.textOf(id)
    // placement is not the report's doing: a host that was heard again may take what waited
    if (after !== before && instance.host_id !== null) {
      world.violation(`${host.id} changed ${id} of ${instance.host_id}:\n${before}\n${after}`)
    }
    world.throwViolations()
  }
}

async function deliver(world: World, host: HostProcess, last: Observed, claim: ObservedInstance): Promise<void> {
  const instances = [...last.instances.filter((instance) => instance.id !== claim.id), claim]
  const sequence = last.sequence + 1
  try {
    await host.wire.deliver({ ...last, sequence, instances })
    world.reports.set(host.id, { ...last, sequence }) // what it says truly
  } catch (error) {
    // old is also the number of a report, or of a claim, that was taken while its answer was lost
    if (!(error instanceof ServerGone || isOld(error))) throw error
  }
}

function isOld(error: unknown): boolean {
  return error instanceof ApiError && error.code === 'stale_report'
}

function claimOf(instance: { id: string; generation: number; reboots: number }, claim: Claim): ObservedInstance {
  return {
    id: instance.id,
    generation: instance.generation,
    seen_generation: instance.generation,
    power: claim.power,
    off_cause: claim.power === 'off' ? 'guest' : '',
    reboots: instance.reboots,
    restarts: 0,
    started_at: null,
    conditions: {},
    timeline: {},
    steps: [],
    failure: claim.failed ? { code: 'foreign', message: 'none of its business', retryable: false } : null,
    network: { netns: '', interface: '' },
  }
}
