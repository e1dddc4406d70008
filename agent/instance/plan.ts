import type { DesiredInstance, OffCause } from '@berth/contract/hosts/agent-protocol.ts'
import type { PanicPolicy } from '@berth/contract/instances/machine-troubles.ts'
import { staysOff } from './record.ts'

/** What the agent sees of an instance's VMM. */
export interface InstanceSituation {
  /**
   * `shutting_down`: it runs, but it was told to go; also when that was an agent before this one. `guest_failed`: its
   * guest has panicked or cannot go on for another reason, so only another boot helps.
   */
  vmm: 'none' | 'running' | 'guest_failed' | 'shutting_down' | 'guest_off'
  removed: boolean
  off_cause: OffCause
  off_generation: number
  reboots: number
  /** The host has given up under this generation, or null. */
  failed_generation: number | null
  restart_not_before: number
  /** Whether its network card is as the intent asks for it, as far as that may change while it runs. */
  nic_current: boolean
  /** Whether the card still has a public address that the intent does not give it. */
  address_stale: boolean
  /** Longest that a restart may have to wait; more than that means that the clock was set back. */
  longest_pause_ms: number
}

/**
 * What to do next for an instance:
 *
 * A shutdown that has begun is brought to its end whatever is desired by now. Otherwise:
 *
 * | desired | vmm none                                    | running                  | guest failed   | guest off |
 * |---------|---------------------------------------------|--------------------------|----------------|-----------|
 * | running | start; nothing when the guest went off      | reboot when asked, else  | reboot when    | quit      |
 * |         | under this intent or the host has given up; | change the network card  | asked, else by |           |
 * |         | wait after a crash under this intent        | when asked, else nothing | `on_panic`     |           |
 * | stopped | nothing                                     | shut down                | shut down      | quit      |
 * | deleted | remove                                      | shut down                | shut down      | quit      |
 *
 * A guest that failed is ended, unless `on_panic` is `none`; after `restart` that counts as a crash, after `stop` it is
 * off as if it had powered itself off. A VMM that does not answer counts as running: it may well do.
 *
 * In place of nothing, and of waiting, a machine that does not run gives up a public address that may be another's now.
 */
export type InstanceAction =
  | { kind: 'none' }
  | { kind: 'wait'; untilMs: number }
  | { kind: 'start' }
  | { kind: 'shutdown'; graceSeconds: number }
  | { kind: 'reboot'; count: number; graceSeconds: number }
  | { kind: 'network' }
  | { kind: 'quit' }
  | { kind: 'end_failed' }
  | { kind: 'remove' }

/** The next act that brings an instance nearer to what is desired. Pure. */
export function planInstance(desired: DesiredInstance, seen: InstanceSituation, nowMs: number): InstanceAction {
  if (seen.removed) return { kind: 'none' }
  if (seen.vmm === 'guest_off') return { kind: 'quit' }
  if (seen.vmm === 'shutting_down') return { kind: 'shutdown', graceSeconds: graceOf(desired) }
  switch (desired.power) {
    case 'deleted':
      return seen.vmm === 'none' ? { kind: 'remove' } : { kind: 'shutdown', graceSeconds: desired.grace_seconds }
    case 'stopped':
      return seen.vmm === 'none'
        ? withoutStaleAddress({ kind: 'none' }, seen)
        : { kind: 'shutdown', graceSeconds: desired.grace_seconds }
    case 'running':
      return seen.vmm === 'none'
        ? withoutStaleAddress(planAbsent(desired, seen, nowMs), seen)
        : planPresent(desired, seen)
  }
}

/** Seconds the guest gets to shut down under this intent. */
export function graceOf(desired: DesiredInstance): number {
  return desired.power === 'running' ? desired.reboots.grace_seconds : desired.grace_seconds
}

function withoutStaleAddress(action: InstanceAction, seen: InstanceSituation): InstanceAction {
  const idle = action.kind === 'none' || action.kind === 'wait'
  return idle && seen.address_stale ? { kind: 'network' } : action
}

/** What is done with a guest that cannot go on. */
export function panicPolicyOf(desired: DesiredInstance): PanicPolicy {
  return desired.on_panic ?? 'restart'
}

function planPresent(desired: DesiredInstance, seen: InstanceSituation): InstanceAction {
  const { count, grace_seconds: graceSeconds } = desired.reboots
  if (count > seen.reboots) return { kind: 'reboot', count, graceSeconds }
  if (seen.vmm === 'guest_failed' && panicPolicyOf(desired) !== 'none') return { kind: 'end_failed' }
  return seen.nic_current ? { kind: 'none' } : { kind: 'network' }
}

function planAbsent(desired: DesiredInstance, seen: InstanceSituation, nowMs: number): InstanceAction {
  if (seen.failed_generation === desired.generation) return { kind: 'none' }
  if (staysOff(seen.off_cause) && seen.off_generation === desired.generation) return { kind: 'none' }
  // whoever asks for a start after the crash does not wait for the pause that the crash brought
  const pauses = seen.off_cause === 'crash' && seen.off_generation === desired.generation
  const leftMs = seen.restart_not_before - nowMs
  if (pauses && leftMs > 0 && leftMs <= seen.longest_pause_ms) {
    return { kind: 'wait', untilMs: seen.restart_not_before }
  }
  return { kind: 'start' }
}
