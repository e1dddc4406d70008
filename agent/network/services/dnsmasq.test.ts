import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { expect, test } from 'vitest'
import { expectGolden } from '../../../test/golden.ts'
import { testNic } from '../../testing/nic.ts'
import { dnsmasqFaults, renderDnsmasqConfig, shortenLog, updateGuests } from './dnsmasq.ts'

const network: DesiredNetwork = {
  vpc_id: 'vpc-abc123',
  cidr: '10.0.0.0/16',
  subnets: [
    { id: 'subnet-a', cidr: '10.0.1.0/24', gateway: '10.0.1.1' },
    { id: 'subnet-b', cidr: '10.0.16.0/20', gateway: '10.0.16.1' },
    { id: 'subnet-c', cidr: '10.0.2.16/28', gateway: '10.0.2.17' },
  ],
}

test('the configuration of a VPC with three subnets', () => {
  const text = renderDnsmasqConfig('/run/berth/abc123/berth-abc123-x', network, [])
  expectGolden(import.meta.dirname, 'dnsmasq.conf', text)
})

test('the configuration of a VPC on a host that knows name servers', () => {
  const one = { ...network, subnets: network.subnets.slice(0, 1) }
  const text = renderDnsmasqConfig('/run/berth/abc123/berth-abc123-x', one, ['192.0.2.53', '198.51.100.53'])
  expectGolden(import.meta.dirname, 'dnsmasq-upstream.conf', text)
})

test('the netmask is that of each subnet, also of the largest and the smallest', () => {
  for (const [cidr, netmask] of [
    ['10.0.0.0/16', '255.255.0.0'],
    ['10.0.16.0/20', '255.255.240.0'],
    ['10.0.2.16/28', '255.255.255.240'],
  ]) {
    const subnets = [{ id: 'subnet-a', cidr: `${cidr}`, gateway: '10.0.0.1' }]
    expect(renderDnsmasqConfig('/x', { ...network, subnets }, [])).toContain(`,static,${netmask},1h\n`)
  }
})

const installed = spawnSync('dnsmasq', ['--version']).status === 0

test.skipIf(!installed)('dnsmasq reads it', () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  try {
    const file = join(directory, 'dnsmasq.conf')
    writeFileSync(file, renderDnsmasqConfig(directory, network, ['192.0.2.53']))
    const { status, stderr } = spawnSync('dnsmasq', ['--test', `--conf-file=${file}`], { encoding: 'utf8' })
    expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining('syntax check OK') })
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('guests that are missing, changed or gone are put right, and others are not read', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  const hosts = join(directory, 'hosts.d')
  const [kept, changed, gone, missing] = [testNic(1), testNic(2), testNic(3), testNic(4)]
  try {
    await updateGuests(directory, [kept, changed, gone], [kept, changed, gone])
    writeFileSync(join(hosts, kept.tap), 'as it is')
    const renamed = { ...changed, hostname: 'renamed' }
    await updateGuests(directory, [kept, renamed, missing], [renamed])
    expect(readdirSync(hosts).sort()).toEqual([kept.tap, changed.tap, missing.tap].sort())
    expect(readFileSync(join(hosts, kept.tap), 'utf8')).toBe('as it is')
    expect(readFileSync(join(hosts, changed.tap), 'utf8')).toBe(`${changed.ip} renamed\n`)
    await updateGuests(directory, [kept], [kept])
    expect(readFileSync(join(hosts, kept.tap), 'utf8')).toBe(`${kept.ip} ${kept.hostname}\n`)
    expect(readdirSync(join(directory, 'dhcp.d'))).toEqual([kept.tap])
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('a lease that keeps an address from its card is a fault, and the own one is not', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  const nic = testNic(1)
  const faults = async (mac: string, looked = [nic]) => {
    writeFileSync(join(directory, 'leases'), `1795000000 ${mac} ${nic.ip} * *\n`)
    return (await dnsmasqFaults('berth-abc123-x', directory, network, { nics: [nic], looked })).filter((fault) =>
      /keeps/.test(fault),
    )
  }
  try {
    expect(await faults('06:00:00:00:00:99')).toEqual([
      `it keeps ${nic.ip} for 06:00:00:00:00:99, which has it no more`,
    ])
    expect(await faults(nic.mac)).toEqual([])
    expect(await faults('06:00:00:00:00:99', [])).toEqual([]) // its tap is not there yet
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('a log is emptied when it has grown long, and left alone before', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  const log = join(directory, 'dnsmasq.log')
  try {
    await shortenLog(directory) // none yet
    for (const [bytes, left] of [
      [1024 * 1024, 1024 * 1024],
      [1024 * 1024 + 1, 0],
    ] as const) {
      writeFileSync(log, 'x'.repeat(bytes))
      await shortenLog(directory)
      expect(statSync(log).size).toBe(left)
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
})
