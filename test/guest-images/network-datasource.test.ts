import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess } from '../on-host/dev-process.ts'

const cloudConfig = `#cloud-config
write_files:
  - path: /etc/berth-test.conf
    content: |
      greeting: "hello: world"
runcmd:
  - [sh, -c, 'echo "ran as $(id -un)" > /var/tmp/runcmd']
`

/**
 * What cloud-init's own reader of EC2's interface makes of ours. It asks for tokens only where the machine calls itself
 * Amazon's, so that is said for it; all else is its code.
 */
const readAsEc2 = `
import json
from unittest import mock
from cloudinit import distros, helpers
from cloudinit.sources import DataSourceEc2 as ec2
paths = helpers.Paths({'cloud_dir': '/tmp/ec2', 'run_dir': '/tmp/ec2'})
distro = distros.fetch('debian')('debian', {}, paths)
with mock.patch.object(ec2, 'identify_platform', return_value=ec2.CloudNames.AWS):
    source = ec2.DataSourceEc2({'datasource': {'Ec2': {'max_wait': 10, 'timeout': 5}}}, distro, paths)
    assert source.get_data(), 'the data source was not found'
print(json.dumps({
    'instance_id': source.get_instance_id(),
    'hostname': str(getattr(source.get_hostname(), 'hostname', source.get_hostname())),
    'keys': source.get_public_ssh_keys(),
    'userdata': source.get_userdata_raw().decode(),
    'zone': source.availability_zone,
    'region': source.region,
    'identity': source.identity,
    'metadata': source.metadata,
    'network': source.network_config,
}))
`

describe('debian-12 without a seed disk', () => {
  let dev: DevProcess
  let id: string

  beforeAll(async () => {
    dev = await DevProcess.open({ images: ['debian-12'] })
    await dev.importImage('debian-12', 'debian-net', ['--datasource', 'network', '--default-user', 'debian'])
    const spec = { type: 'cx11', image: 'debian-net', user_data: Buffer.from(cloudConfig).toString('base64') }
    id = await dev.create(spec, 'net-1')
    await dev.reach(id, 'ready', 600)
  })

  afterAll(async () => {
    await dev.down()
  })

  test('an unmodified cloud-init configures it from the metadata service', async () => {
    expect(await dev.ssh(id, 'ls /sys/class/block')).not.toContain('vdb')
    expect(await dev.ssh(id, 'cloud-init status --wait --long')).toMatch(/^status: done$/m)
    expect(await dev.ssh(id, 'cloud-id')).toBe('nocloud')
    expect(await dev.ssh(id, 'cat /run/cloud-init/result.json')).toMatch(
      /DataSourceNoCloudNet .*http:\/\/169\.254\.169\.254/,
    )
  })

  test('hostname, key, files and commands are those of the request', async () => {
    expect(await dev.ssh(id, 'hostname')).toBe('net-1')
    expect(await dev.ssh(id, 'id -un')).toBe('debian')
    expect(await dev.ssh(id, 'cat /etc/berth-test.conf')).toBe('greeting: "hello: world"')
    expect(await dev.ssh(id, 'cat /var/tmp/runcmd')).toBe('ran as root')
  })

  test('only root of the guest can read the URL of its seed', async () => {
    expect(await dev.ssh(id, 'sudo cat /sys/class/dmi/id/product_serial')).toMatch(
      /^ds=nocloud;dsmode=net;s=http:.*\/nocloud\/\w{40}\/$/,
    )
    expect(await dev.ssh(id, 'cat /sys/class/dmi/id/product_serial 2>&1 || true')).toContain('Permission denied')
  })

  test("cloud-init's reader of EC2's interface takes ours for one", async () => {
    const script = Buffer.from(readAsEc2).toString('base64')
    const output = await dev.ssh(id, `echo ${script} | base64 -d | sudo python3 - 2>/dev/null`)
    const read = JSON.parse(output.split('\n').at(-1) ?? '')
    const { status, spec } = await dev.get(id)
    expect(read).toMatchObject({ instance_id: id, hostname: 'net-1', userdata: cloudConfig, region: 'berth-1' })
    expect(read.keys).toEqual([expect.stringMatching(/^ssh-ed25519 /)])
    expect(read.identity).toMatchObject({ instanceId: id, privateIp: status.private_ip, instanceType: 'cx11' })
    expect(read.metadata).toMatchObject({ 'local-ipv4': status.private_ip, placement: { 'host-id': status.host_id } })
    const [nic] = Object.values<{ 'subnet-ipv4-cidr-block': string }>(read.metadata.network.interfaces.macs)
    expect(nic).toMatchObject({ 'subnet-ipv4-cidr-block': '10.0.1.0/24', 'subnet-id': spec.subnet_id })
    expect(Object.keys(read.network.ethernets)).toHaveLength(1)
  })

  test('it boots again, and a stop and a start do not run its first boot anew', async () => {
    const before = await dev.ssh(id, 'cat /proc/sys/kernel/random/boot_id; stat -c %Y /var/tmp/runcmd')
    const operation = await dev.act(id, 'reboot')
    expect((await dev.operation(operation)).status).toBe('succeeded')
    await dev.reach(id, 'ready', 600)
    const after = await dev.ssh(id, 'cat /proc/sys/kernel/random/boot_id; stat -c %Y /var/tmp/runcmd')
    expect(after.split('\n')[0]).not.toBe(before.split('\n')[0])
    expect(after.split('\n')[1]).toBe(before.split('\n')[1])
  })
})
