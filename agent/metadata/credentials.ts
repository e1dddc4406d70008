import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { serviceAddress } from '../network/names.ts'

/** Longest and shortest life of a token, seconds (those of EC2's instance metadata service, version 2). */
export const tokenSeconds = { least: 1, most: 21_600 } as const

/**
 * A token by which one instance may read its metadata until `expiresAt` (seconds, Unix time):
 * `<expiry>.<random>.<MAC>`. The MAC is over both and the instance's id, so nothing has to be remembered: tokens outlive
 * the agent, and one of another instance is worth nothing.
 */
export function issueToken(key: Buffer, instanceId: string, expiresAt: number): string {
  const claims = `${expiresAt}.${randomBytes(12).toString('base64url')}`
  return `${claims}.${tokenMac(key, instanceId, claims)}`
}

/** Whether a token is this instance's and has not expired at `now` (seconds, Unix time). */
export function isToken(key: Buffer, instanceId: string, token: string, now: number): boolean {
  const [, claims, expiry, mac] = /^((\d{1,12})\.[A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{43})$/.exec(token) ?? []
  if (claims === undefined || mac === undefined) return false
  return isSame(mac, tokenMac(key, instanceId, claims)) && Number(expiry) > now
}

function tokenMac(key: Buffer, instanceId: string, claims: string): string {
  return createHmac('sha256', key).update(`${instanceId}\0${claims}`).digest('base64url')
}

/** The secret in the URL of an instance's seed: 160 bits, hexadecimal. Always the same for one instance. */
export function seedSecret(key: Buffer, instanceId: string): string {
  return createHmac('sha256', key).update(instanceId).digest('hex').slice(0, 40)
}

/** Whether a secret is that of this instance's seed. */
export function isSeedSecret(key: Buffer, instanceId: string, secret: string): boolean {
  return isSame(secret, seedSecret(key, instanceId))
}

/**
 * The serial number of a machine that finds its seed in the network. cloud-init reads it as it would read the kernel's
 * command line (https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html); in the guest only root can. Until
 * version 23 it has to be told that it needs the network for that (`dsmode`); later ones see it by the URL.
 */
export function seedSerialNumber(key: Buffer, instanceId: string): string {
  return `ds=nocloud;dsmode=net;s=http://${serviceAddress}/nocloud/${seedSecret(key, instanceId)}/`
}

/** Compares two texts of ASCII in a time that does not tell where they differ. */
function isSame(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)]
  return a.length === b.length && timingSafeEqual(a, b)
}
