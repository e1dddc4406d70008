import { fewRandomBytes } from './random.ts'

/** Prefixes of the ids Berth makes; the prefix tells the kind of resource. */
export type IdPrefix = 'inst' | 'op' | 'vpc' | 'subnet' | 'sg' | 'key' | 'host' | 'pip'

/** Lower-case Crockford base32: no i, l, o, u. */
const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'

/** Pattern of an id that Berth made: prefix, a dash, 20 characters. */
export const generatedIdPattern = (prefix: IdPrefix): string => `^${prefix}-[0-9a-hjkmnp-tv-z]{20}$`

/** The same, or nothing at all. */
export const optionalIdPattern = (prefix: IdPrefix): string => `^(?:${prefix}-[0-9a-hjkmnp-tv-z]{20})?$`

/** Pattern of an id that a caller may choose for a VPC, subnet, security group, key or public address: `vpc-abc123`. */
export const chosenIdPattern = (prefix: IdPrefix): string => `^${prefix}-[a-z0-9](?:[a-z0-9-]{0,56}[a-z0-9])?$`

/** Pattern of the id of an image, which is its name. Also a file name, so it is narrow. */
export const imageIdPattern = '^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$'

/** Anything that may stand where a path takes an id; narrower checks belong to the resource. */
export const pathIdPattern = '^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$'

let lastTimeMs = 0
let lastRandom = 0n
const randomBits = 50n

/**
 * Make a new id: 10 characters of time (milliseconds UTC) and 10 random ones, so ids sort in the order they were
 * made in this process, also within one millisecond and when the clock steps back.
 */
export function newId<P extends IdPrefix>(prefix: P, nowMs: number): `${P}-${string}` {
  if (nowMs > lastTimeMs) {
    lastTimeMs = nowMs
    lastRandom = fewRandomBytes(8).readBigUInt64BE() >> (64n - randomBits + 1n) // top bit free, so increments cannot overflow
  } else {
    lastRandom += BigInt(1 + (fewRandomBytes(2).readUInt16BE() & 0x3ff))
  }
  return `${prefix}-${base32(BigInt(lastTimeMs), 10)}${base32(lastRandom, 10)}`
}

/** What tells one resource from another that has or had the same id: 20 random characters. */
export function newUid(): string {
  return base32(BigInt(`0x${fewRandomBytes(13).toString('hex')}`), 20)
}

/** The lowest `length` base32 digits of a number, most significant first. */
export function base32(value: bigint, length: number): string {
  let rest = value
  let text = ''
  for (let left = length; left > 0; left -= 5) {
    // five digits at a time as a small number, on which arithmetic is cheap
    let part = Number(rest & 0x1ffffffn)
    for (let i = 0; i < Math.min(5, left); i++) {
      text = `${alphabet[part & 31]}${text}`
      part >>= 5
    }
    rest >>= 25n
  }
  return text
}
