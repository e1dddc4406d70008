import type { DesiredInstance } from '@berth/contract/host.ts'
import { expect, test } from 'vitest'
import { wantsSamePower } from './instance-intent.ts'

const running: DesiredInstance = {
  id: 'inst-01m86wyw1g9szgvf1ss4',
  generation: 4,
  power: 'running',
  grace_seconds: 60,
  reboots: { count: 1, grace_seconds: 60 },
  hostname: 'web',
  image_id: 'micro',
  vcpus: 1,
  memory_mb: 256,
  disk_gb: 2,
  vpc_id: 'vpc-a',
  subnet_id: 'subnet-a',
  private_ip: '10.0.0.4',
  mac: '06:00:00:00:00:01',
  ssh_public_keys: [],
  user_data: '',
}

test('the same power is wanted by the very next intent that neither stops, starts nor reboots', () => {
  const same = (next: Partial<DesiredInstance>, before: Partial<DesiredInstance> = {}) =>
    wantsSamePower({ ...running, ...before }, { ...running, generation: 5, ...next })
  expect(same({})).toBe(true)
  expect(same({ hostname: 'other' })).toBe(true)
  expect(same({ generation: 6 })).toBe(false) // stopped and started again in between, perhaps
  expect(same({ generation: 4 })).toBe(false)
  expect(same({ reboots: { count: 2, grace_seconds: 60 } })).toBe(false)
  expect(same({ power: 'stopped' })).toBe(false)
  expect(same({}, { power: 'stopped' })).toBe(false)
  expect(same({ power: 'stopped' }, { power: 'stopped' })).toBe(false)
})
