import { userDataMaxBytes } from '@berth/contract/instances/bounds.ts'

const base64Pattern = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** What is wrong with the user data of a request, or null. Standard base64 with padding (RFC 4648, section 4). */
export function userDataFault(userData: string): string | null {
  if (!base64Pattern.test(userData)) return 'must be base64 with padding and no line breaks (base64 -w0)'
  const bytes = Buffer.byteLength(userData, 'base64')
  return bytes > userDataMaxBytes ? `is ${bytes} bytes decoded; at most ${userDataMaxBytes} are allowed` : null
}
