import { gunzipSync } from 'node:zlib'
import { userDataMaxBytes } from '@berth/contract/instances/bounds.ts'

/**
 * How user data begins that cloud-init reads, in lower case
 * (https://docs.cloud-init.io/en/latest/explanation/format.html). It looks past white space before them.
 */
const beginnings = ['#!', '#cloud-config', '#cloud-boothook', '#include', '#part-handler', '## template: jinja']

const known =
  'cloud-init knows #! scripts, #cloud-config, #include, #cloud-boothook, #part-handler, "## template: jinja", MIME ' +
  'messages, and all of these packed by gzip'

/**
 * Why a guest will most likely ignore these bytes as user data, or null when they have a form that cloud-init knows. It
 * is the guest that decides: an image may have a program of its own that reads them. Pure.
 */
export function userDataDoubt(bytes: Buffer): string | null {
  const packed = bytes[0] === 0x1f && bytes[1] === 0x8b
  const content = packed ? unpacked(bytes) : bytes
  if (content === null) return 'user data begins as gzip does and cannot be unpacked'
  if (/^(\ufeff|\ufffe)/.test(content.toString('utf16le', 0, 2))) return `user data is UTF-16; ${known}, in UTF-8`
  const text = content.toString('utf8')
  if (text.startsWith('\ufeff'))
    return 'user data begins with a byte order mark, which hides its first line from cloud-init'
  const start = text.trimStart()
  if (start === '' || hasKnownForm(start)) return misplaced(text, start)
  const decoded = /^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(start) ? Buffer.from(start, 'base64') : null
  if (decoded !== null && hasKnownForm(decoded.toString('utf8').trimStart())) {
    return 'user data is base64 already; give it as it is, it is encoded when it is sent'
  }
  if (/^#cloud-config/im.test(start)) return 'user data has #cloud-config, but not as its first line'
  return `user data has no form that cloud-init knows: ${known}`
}

function hasKnownForm(start: string): boolean {
  const lower = start.slice(0, 4096).toLowerCase()
  return beginnings.some((beginning) => lower.startsWith(beginning)) || lower.includes('mime-version:')
}

/** cloud-init finds a script behind white space and has it run, which the kernel refuses. */
function misplaced(text: string, start: string): string | null {
  return start.startsWith('#!') && !text.startsWith('#!')
    ? 'user data has white space before #!, so it will not run'
    : null
}

function unpacked(bytes: Buffer): Buffer | null {
  try {
    return gunzipSync(bytes, { maxOutputLength: 64 * userDataMaxBytes })
  } catch {
    return null
  }
}
