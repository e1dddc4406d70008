import type { GuestState } from '../host-driver.ts'

/**
 * What the guest does by QEMU's answer to `query-status` (RunState in the QMP reference). What is not named here is
 * somebody else's doing at the machine's QMP socket: the CPUs do not run.
 */
export function guestStateOf(answer: unknown): GuestState {
  switch (Reflect.get(Object(answer), 'status')) {
    case 'prelaunch': // about to run: it is started without -S
    case 'running':
      return 'running'
    case 'shutdown':
      return 'off'
    case 'guest-panicked':
      return 'guest_panicked'
    case 'internal-error':
      return 'internal_error'
    case 'suspended':
      return 'suspended'
    case 'io-error':
      return 'io_error'
    default:
      return 'paused'
  }
}

/** Why a guest waits for its disk, by QEMU's answer to `query-block`: for want of room, or for another error. */
export function diskTrouble(answer: unknown): 'storage_full' | 'io_error' {
  const devices = Array.isArray(answer) ? answer : []
  const full = devices.some((device: unknown) => Reflect.get(Object(device), 'io-status') === 'nospace')
  return full ? 'storage_full' : 'io_error'
}
