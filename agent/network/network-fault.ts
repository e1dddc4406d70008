import type { failureCatalogue } from '@berth/contract/errors.ts'

/** The reasons of `NetworkReady` for what of a card that is attached is not as it is asked for. */
export const networkFaults = [
  'rules_not_in_force',
  'public_address_taken',
] as const satisfies (keyof typeof failureCatalogue)[]

/** What of a card that is attached is not as it is asked for, and that its host goes on trying. */
export interface NetworkFault {
  reason: (typeof networkFaults)[number]
  /** For people: which group or address, and why. */
  message: string
}

/**
 * The one fault of a card to tell of, what lets nothing pass first; null when there is none. `rules` says which of its
 * groups are not in force, `takenBy` by whom its public `address` is led elsewhere on the host; null for neither. Pure.
 */
export function networkFault(
  address: string,
  { rules, takenBy }: { rules: string | null; takenBy: string | null },
): NetworkFault | null {
  if (rules !== null) return { reason: 'rules_not_in_force', message: rules }
  if (takenBy === null) return null
  return { reason: 'public_address_taken', message: `${address} is led elsewhere on this host, by ${takenBy}` }
}
