import type { DesiredInstance } from '@berth/contract/hosts/agent-protocol.ts'
import type { Guest } from '../metadata/guest.ts'
import type { Nic } from '../network/nic.ts'
import { desiredInstance } from './desired-instance.ts'
import { testNic } from './nic.ts'

/** What an agent knows of a running instance in 10.0.0.0/16, but for what a test changes. */
export function testGuest(changes: Partial<DesiredInstance> = {}, nic: Partial<Nic> = {}): Guest {
  const instance = desiredInstance({ private_ip: '10.0.1.4', subnet_id: 'subnet-a', ...changes })
  return {
    instance,
    network: {
      vpc_id: instance.vpc_id,
      cidr: '10.0.0.0/16',
      subnets: [{ id: 'subnet-a', cidr: '10.0.1.0/24', gateway: '10.0.1.1' }],
    },
    image: {
      id: 'micro',
      title: 'Micro',
      min_disk_gb: 1,
      architecture: 'x86_64',
      default_user: 'root',
      network: 'static',
    },
    nic: testNic(0, { mac: instance.mac, ip: instance.private_ip, hostname: instance.hostname, ...nic }),
    startedAt: Date.parse('2026-03-04T05:06:07.890Z'),
  }
}
