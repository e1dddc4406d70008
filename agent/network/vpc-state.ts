import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import type { Abortable } from '../sys/run-command.ts'
import { untilAborted } from '../sys/until-aborted.ts'
import type { Nic } from './nic.ts'
import { NamespaceRules } from './ruleset/namespace-rules.ts'

/** What the agent knows of a VPC on its host. */
export interface VpcState {
  /** The VPC's own network; null until it was heard of. */
  network: DesiredNetwork | null
  /** The cards as they were asked for, by tap; `PublicAddresses` says which public address each has by now. */
  nics: Map<string, Nic>
  /** Namespace, uplink and DNS were made or looked at by this run of the agent. */
  prepared: boolean
  rules: NamespaceRules
  /** Changes of one VPC happen one after the other. */
  queue: Promise<unknown>
}

/** A VPC of which nothing is known yet. `onFaults` is called when other rules of it than before are not in force. */
export function newVpcState(onFaults: () => void): VpcState {
  return {
    network: null,
    nics: new Map(),
    prepared: false,
    rules: new NamespaceRules(onFaults),
    queue: Promise.resolve(),
  }
}

/** Work on a VPC when all before it is done. Who has not had its turn when its signal is aborted leaves the queue at once. */
export function inTurn<T>(
  vpc: VpcState,
  { signal }: Required<Abortable>,
  work: (vpc: VpcState) => Promise<T>,
): Promise<T> {
  let begun = false
  const mine = vpc.queue.then(() => {
    signal.throwIfAborted()
    begun = true
    return work(vpc)
  })
  vpc.queue = mine.then(
    () => undefined,
    () => undefined,
  )
  return untilAborted(mine, signal).catch((error) => (begun ? mine : Promise.reject(error)))
}
