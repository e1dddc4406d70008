import type { Desired, DesiredImage, DesiredInstance, DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { HostError } from '../host-driver.ts'

/** What an instance is to be, with what it refers to. */
export interface Intent {
  instance: DesiredInstance
  /** null when the desired state does not describe it; then the instance cannot start, but it can stop and go. */
  network: DesiredNetwork | null
  image: DesiredImage | null
}

/** The intent for an instance out of a whole desired state. */
export function intentOf(desired: Desired, instance: DesiredInstance): Intent {
  const network = desired.networks.find((candidate) => candidate.vpc_id === instance.vpc_id) ?? null
  const image = desired.images.find((candidate) => candidate.id === instance.image_id) ?? null
  return { instance, network, image }
}

/** A part of an intent that a start needs. Throws HostError with the code when the server has not described it. */
export function described<T>(part: T | null, code: string, what: string): T {
  if (part !== null) return part
  throw new HostError(code, `the server does not describe ${what}`, { retryable: true })
}
