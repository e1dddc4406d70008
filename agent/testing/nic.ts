import type { Nic } from '../network/nic.ts'

/** A card of 10.0.1.0/24 that carries sg-web, but for what a test changes. `number` is from 0 to 245. */
export function testNic(number: number, changes: Partial<Nic> = {}): Nic {
  const hex = number.toString(16).padStart(2, '0')
  return {
    tap: `vt${String(number).padStart(12, '0')}`,
    mac: `06:00:00:00:00:${hex}`,
    ip: `10.0.1.${number + 4}`,
    gateway: '10.0.1.1',
    hostname: `web-${number}`,
    uid: 1_900_000_000 + number,
    security_groups: ['sg-web'],
    public_ip: '',
    bandwidth_mbps: 1000,
    ...changes,
  }
}
