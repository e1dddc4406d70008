import type { DesiredInstance, DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import type { ReadyMarker } from '../console/ready-marker.ts'
import type { Nic } from '../network/nic.ts'

/** What the agent knows of an instance that asks for its metadata. */
export interface Guest {
  instance: DesiredInstance
  network: DesiredNetwork
  image: CatalogueImage
  /** Its card as it is attached, which may be behind what is desired. */
  nic: Nic
  /** When its machine was started, milliseconds UTC; null while it is off. */
  startedAt: number | null
}

/** What becomes of a request, in figures: which part was asked for and the status it was answered with. */
export type CountRequest = (part: RequestPart, status: number) => void

/** The parts of the service that figures tell apart. */
export const requestParts = ['token', 'meta-data', 'user-data', 'dynamic', 'nocloud', 'ready', 'other'] as const
export type RequestPart = (typeof requestParts)[number]

/** What the metadata service asks of the agent. */
export interface GuestDesk {
  /** Id of this host. */
  hostId: string
  /**
   * The instance that has this address in this VPC now; null when there is none, when more than one claims it, and while
   * the agent does not know all of what there is to tell.
   */
  find(vpcId: string, address: string): Guest | null
  /** The guest of an instance says that its first boot is over. */
  ready(instanceId: string, marker: ReadyMarker): void
  count: CountRequest
}
