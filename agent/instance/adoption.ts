import type { Logger } from 'pino'
import type { SerialFollower } from '../console/serial-follower.ts'
import type { HostDriver, Vmm } from '../host-driver.ts'
import type { BoundedCalls } from './bounded-calls.ts'
import type { InstanceProgress } from './progress.ts'

export interface AdoptionOptions {
  driver: HostDriver
  progress: InstanceProgress
  calls: BoundedCalls
  serial: SerialFollower
  log: Logger
  /** Time that looking for a VMM may take. */
  timeoutMs: number
  /** The VMM is there, and is watched from now on. */
  onVmm: (vmm: Vmm) => void
  /** The VMM is gone that the record says ran. */
  onLost: (cause: 'crash' | 'host') => void
}

/** Find the VMM that an agent before this one has left running, or write down what its absence means. */
export async function adoptVmm(options: AdoptionOptions): Promise<void> {
  const { driver, progress, calls, serial, log, timeoutMs, onVmm, onLost } = options
  const { record } = progress
  if (record.power === 'absent') return
  const vmm = await calls.run({
    name: 'adoption',
    timeoutMs,
    work: () => driver.adopt(record.id),
    discard: async (late) => late?.detach(),
  })
  if (vmm !== null) {
    log.info('adopted the running VMM')
    onVmm(vmm)
    if (record.power === 'running') serial.start()
    return // what it does is noticed next; while it cannot be asked, it counts as what the record says
  }
  const sameBoot = record.host_boot_id === driver.hostBootId
  if (record.power === 'running') onLost(sameBoot ? 'crash' : 'host')
  else if (record.power !== 'off') progress.off('host')
  // neither the pause after a crash nor what the host could not do outlasts a restart of the host
  else if (record.host_boot_id !== '' && !sameBoot && (record.off_cause === 'crash' || record.failure !== null)) {
    onLost('host')
  }
}
