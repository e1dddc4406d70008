import { createHash, createPublicKey } from 'node:crypto'
import { holdsPrivateKey, keyParts } from '@berth/contract/instances/public-key-text.ts'
import { longestPublicKey } from '@berth/contract/instances/ssh-keys.ts'

/** The types that OpenSSH has by default, with the curve of those that name one. */
const acceptedTypes = new Map<string, Curve | null>([
  ['ssh-ed25519', null],
  ['ssh-rsa', null],
  ['ecdsa-sha2-nistp256', { name: 'nistp256', jwk: 'P-256', bytes: 32 }],
  ['ecdsa-sha2-nistp384', { name: 'nistp384', jwk: 'P-384', bytes: 48 }],
  ['ecdsa-sha2-nistp521', { name: 'nistp521', jwk: 'P-521', bytes: 66 }],
  ['sk-ssh-ed25519@openssh.com', null],
  ['sk-ecdsa-sha2-nistp256@openssh.com', { name: 'nistp256', jwk: 'P-256', bytes: 32 }],
])

interface Curve {
  name: string
  jwk: string
  /** Of one coordinate. */
  bytes: number
}

/**
 * Sizes of an RSA modulus, in bits. sshd takes none below 1,024 (RequiredRSASize in sshd_config(5)); NIST SP 800-131A and
 * the crypto policies of distributions ask for 2,048. libcrypto verifies nothing above 16,384, and above 3,072 nothing
 * whose exponent has more than 64 bits (OPENSSL_RSA_MAX_MODULUS_BITS and its neighbours in openssl/rsa.h).
 */
const rsaBits = { least: 2048, most: 16_384, largeAbove: 3072, mostOfLargeExponent: 64 } as const

/** A public key in the one line that is stored and that guests get, or what is wrong with it. */
export type ParsedPublicKey = { line: string; fingerprint: string } | { fault: string }

/**
 * Read a public key as a file `.pub` or a line of authorized_keys has it: type, base64 of a blob that starts with the
 * type again (RFC 4253, section 6.6), comment. What sshd of a guest would not take is refused, as the instance could not
 * be entered with it: the answer to a create is the last moment at which anybody is there to hear of it. Pure.
 */
export function parsePublicKey(text: string): ParsedPublicKey {
  if (holdsPrivateKey(text)) return { fault: 'is a private key; give the .pub file' }
  if (text.includes('---- BEGIN SSH2 PUBLIC KEY')) {
    return { fault: 'is in the format of RFC 4716; `ssh-keygen -i -f FILE` prints it as one line' }
  }
  const { type, base64, line } = keyParts(text)
  if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(line)) return { fault: 'must be a single line without control characters' }
  if (line.length > longestPublicKey) return { fault: `is longer than ${longestPublicKey} characters` }
  const fault = typeFault(type)
  if (fault !== null) return { fault }
  const blob = Buffer.from(base64, 'base64')
  if (blob.toString('base64') !== base64) return { fault: 'is not valid base64' }
  const keyFault = blobFault(type, readFields(blob))
  if (keyFault !== null) return { fault: keyFault }
  return { line, fingerprint: `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}` }
}

function typeFault(type: string): string | null {
  if (acceptedTypes.has(type)) return null
  if (type.endsWith('-cert-v01@openssh.com'))
    return 'is a certificate; give the key that it was made for (the other .pub file)'
  if (type === 'ssh-dss') return 'is a DSA key, which sshd takes no more; make one with `ssh-keygen -t ed25519`'
  const names = [...acceptedTypes.keys()].join(', ')
  const options =
    /^(?:[a-z-]+=?"|[a-z-]+,|(?:no-)?(?:pty|port-forwarding|agent-forwarding|X11-forwarding|user-rc)$|restrict$)/i
  if (options.test(type)) return `must have no options before the type; it must start with one of ${names}`
  return `must start with one of ${names}`
}

/** The length-prefixed strings a blob consists of (RFC 4251, section 5), or none when it does not end with one. */
function readFields(blob: Buffer): Buffer[] {
  const fields: Buffer[] = []
  let position = 0
  while (position < blob.length) {
    if (position + 4 > blob.length) return []
    const end = position + 4 + blob.readUInt32BE(position)
    if (end > blob.length) return []
    fields.push(blob.subarray(position + 4, end))
    position = end
  }
  return fields
}

/** What is in a blob by type: RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4, OpenSSH's PROTOCOL.u2f. */
function blobFault(type: string, [named, ...fields]: readonly Buffer[]): string | null {
  const torn = `does not hold a whole key of type ${type}`
  if (named?.toString('latin1') !== type) return torn
  if (type === 'ssh-rsa') {
    const [exponent, modulus] = fields.map(readMpint)
    if (fields.length !== 2 || exponent == null || modulus == null) return torn
    return rsaFault(exponent, modulus)
  }
  const own = type.startsWith('sk-') ? fields.slice(0, -1) : fields
  const application = fields[own.length] ?? null
  if (application !== null && (application.length === 0 || application.includes(0))) return torn
  const curve = acceptedTypes.get(type) ?? null
  if (curve === null) return own.length === 1 && own[0]?.length === 32 ? null : torn
  const [curveName, point] = own
  if (own.length !== 2 || curveName?.toString('latin1') !== curve.name || point === undefined) return torn
  return isOnCurve(point, curve) ? null : `does not hold a point of the curve ${curve.name}`
}

/** A positive number in its shortest form (RFC 4251, section 5), or null. */
function readMpint(bytes: Buffer): bigint | null {
  const [first = 0x80, second = 0] = bytes
  if (first >= 0x80 || (first === 0 && second < 0x80)) return null
  return BigInt(`0x${bytes.toString('hex')}`)
}

function rsaFault(exponent: bigint, modulus: bigint): string | null {
  const bits = modulus.toString(2).length
  if (bits < rsaBits.least) {
    return (
      `is an RSA key of ${bits} bits; it must have at least ${rsaBits.least}: sshd takes none below 1024, and below ` +
      `${rsaBits.least} they count as broken. \`ssh-keygen -t ed25519\` makes a better one`
    )
  }
  if (bits > rsaBits.most) return `is an RSA key of ${bits} bits; sshd can check at most ${rsaBits.most}`
  if (modulus % 2n === 0n) return 'is no RSA key: its modulus is even'
  if (exponent % 2n === 0n || exponent === 1n || exponent >= modulus) {
    return 'is no RSA key: its exponent must be odd, above 1 and below the modulus'
  }
  if (bits > rsaBits.largeAbove && exponent.toString(2).length > rsaBits.mostOfLargeExponent) {
    return `has an exponent of more than ${rsaBits.mostOfLargeExponent} bits, with which sshd checks no key above ${rsaBits.largeAbove}`
  }
  return null
}

/** Whether bytes are an uncompressed point (SEC 1, section 2.3.3) of a curve: OpenSSH reads no others. */
function isOnCurve(point: Buffer, { jwk, bytes }: Curve): boolean {
  if (point[0] !== 4 || point.length !== 1 + 2 * bytes) return false
  const [x, y] = [point.subarray(1, 1 + bytes), point.subarray(1 + bytes)].map((half) => half.toString('base64url'))
  if (x === undefined || y === undefined) return false
  try {
    createPublicKey({ key: { kty: 'EC', crv: jwk, x, y }, format: 'jwk' })
    return true
  } catch {
    return false // libcrypto says no more than that it is invalid
  }
}
