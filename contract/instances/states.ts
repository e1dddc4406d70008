/** What the caller wants of an instance. */
export type DesiredPower = 'running' | 'stopped' | 'deleted'

/** What the VMM of an instance does; `absent` means that nothing of the instance is left on the host. */
export const observedPowers = ['starting', 'running', 'shutting_down', 'off', 'absent'] as const
export type ObservedPower = (typeof observedPowers)[number]

/** The public states; there is no other value. */
export const instanceStates = ['provisioning', 'running', 'stopping', 'stopped', 'terminated'] as const
export type InstanceState = (typeof instanceStates)[number]

/**
 * `status.state` from intent and report; `null` when no report has come yet. Nothing else decides it.
 *
 * | desired \ observed | null         | starting     | running  | shutting_down | off          | absent       |
 * |--------------------|--------------|--------------|----------|---------------|--------------|--------------|
 * | running            | provisioning | provisioning | running  | provisioning  | provisioning | provisioning |
 * | stopped            | stopped      | stopping     | stopping | stopping      | stopped      | stopped      |
 * | deleted            | terminated¹  | stopping     | stopping | stopping      | stopping     | terminated   |
 *
 * ¹ never placed; an instance that was placed but not reported yet still has to be looked for on its host, and is
 * `stopping` until the host reports that it is absent.
 */
export function instanceState(desired: DesiredPower, observed: ObservedPower | null, placed: boolean): InstanceState {
  switch (desired) {
    case 'running':
      return observed === 'running' ? 'running' : 'provisioning'
    case 'stopped':
      return observed === null || observed === 'off' || observed === 'absent' ? 'stopped' : 'stopping'
    case 'deleted':
      return observed === 'absent' || (observed === null && !placed) ? 'terminated' : 'stopping'
  }
}

/** The actions of the API on an instance, besides DELETE. */
export type InstanceAction = 'start' | 'stop' | 'reboot'

/** Which actions a caller may ask for, by what is desired now; shared by server and clients. */
export const permittedActions = {
  running: ['start', 'stop', 'reboot'],
  stopped: ['start', 'stop'],
  deleted: [],
} as const satisfies Record<DesiredPower, readonly InstanceAction[]>
