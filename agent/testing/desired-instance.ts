import type { DesiredInstance } from '@berth/contract/hosts/agent-protocol.ts'

/** What is desired of an instance that shall run, but for what a test changes. */
export function desiredInstance(changes: Partial<DesiredInstance> = {}): DesiredInstance {
  return {
    id: 'inst-00000000000000000000',
    generation: 1,
    power: 'running',
    grace_seconds: 60,
    reboots: { count: 0, grace_seconds: 60 },
    hostname: 'web',
    type: 'micro',
    image_id: 'micro',
    vcpus: 1,
    memory_mb: 256,
    disk_gb: 2,
    vpc_id: 'vpc-a',
    subnet_id: 'subnet-a',
    private_ip: '10.0.0.4',
    mac: '06:00:00:00:00:01',
    security_groups: ['sg-default'],
    public_ip: '',
    bandwidth_mbps: 1000,
    ssh_public_keys: [],
    user_data: '',
    ...changes,
  }
}
