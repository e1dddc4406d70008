import type { ObservedCondition } from '@berth/contract/hosts/agent-protocol.ts'
import type { ReadyMarker } from '../console/ready-marker.ts'

/** Longest message; characters. It is the guest's own text, of which a marker may carry more. */
const maxMessage = 4096

/**
 * What a guest's mark says of it, as its condition `GuestReady` without the time. A guest is ready when all of its user
 * data was carried out; what was warned of meanwhile is in the message. Pure.
 */
export function guestCondition(marker: ReadyMarker): Omit<ObservedCondition, 'at'> {
  const { user_data: outcome, cause, output_tail: output, warnings = '' } = marker
  if (outcome === 'none') return { status: 'true', reason: '', message: '' }
  if (outcome === 'ok') {
    const message = warnings.trim() === '' ? '' : `with warnings: ${warnings}`
    return { status: 'true', reason: 'user_data_ok', message: message.slice(0, maxMessage) }
  }
  const ignored = cause === 'ignored'
  const what = ignored ? 'user_data, or a part of it, was not understood' : `user_data failed${withCode(marker)}`
  return {
    status: 'false',
    reason: ignored ? 'user_data_ignored' : 'user_data_failed',
    message: `${what}: ${output}`.slice(0, maxMessage),
  }
}

/** Shells tell of a signal as 128 and its number (POSIX, "Exit Status for Commands"). */
function withCode({ exit_code: code }: ReadyMarker): string {
  if (code === null) return ''
  return code > 128 && code <= 192 ? ` with exit code ${code} (signal ${code - 128})` : ` with exit code ${code}`
}
