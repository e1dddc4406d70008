import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { overlap } from '@berth/contract/networks/cidr.ts'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { choosePublicPools, refuseTakenPools, takenNetworks } from './public-range.ts'

const route = (cidr: string) => ({ cidr, by: 'a route over eth0', berth: false })
const others = (cidr: string) => ({ cidr, by: 'installation bbbbbb of Berth', berth: true })

describe('the public range of an installation that names none', () => {
  let directory: string
  let file: string
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'berth-range-'))
    file = join(directory, 'public-range.json')
  })
  afterEach(() => rm(directory, { recursive: true }))

  const choose = async (installation: string, ...taken: Parameters<typeof refuseTakenPools>[1]) =>
    (await choosePublicPools(file, installation, taken))[0]?.cidr ?? ''

  test('has thousands of addresses, and is the same at the next start, also when a route has come meanwhile', async () => {
    const first = await choose('aaaaaa')
    expect(first).toMatch(/^198\.1[89]\.\d+\.0\/20$/)
    expect(await choose('aaaaaa', route('198.18.0.0/15'))).toBe(first)
  })

  test('is another where the host has a way to the first choice, or another installation an address of it', async () => {
    const wanted = await choose('aaaaaa')
    await rm(file)
    for (const taken of [
      route(wanted),
      route(wanted.replace('/20', '/32')),
      others(wanted.replace('.0/20', '.1/32')),
    ]) {
      const got = await choose('aaaaaa', taken)
      expect(overlap(got, wanted)).toBe(false)
      await rm(file)
    }
  })

  test('is not to be had where all of it is routed, nor once another installation has an address of it', async () => {
    await expect(choose('aaaaaa', route('198.18.0.0/15'))).rejects.toThrow('--public-pool')
    const noted = await choose('aaaaaa')
    await expect(choose('aaaaaa', others(noted.replace('.0/20', '.9/32')))).rejects.toThrow(
      /belongs to installation bbbbbb of Berth on this machine; delete .* or give one of the two another range/,
    )
  })

  test('is not guessed from a file that holds something else', async () => {
    await writeFile(file, '{"cidr":"none"}')
    await expect(choose('aaaaaa')).rejects.toThrow('remove it')
  })
})

test('a pool that is named may lie in a network of the host, but not have an address of another installation', () => {
  const pools = [{ name: 'office', cidr: '192.168.1.192/27' }]
  refuseTakenPools(pools, [route('192.168.1.0/24'), others('192.168.1.7/32')])
  expect(() => refuseTakenPools(pools, [others('192.168.1.200/32')])).toThrow('public pool office=192.168.1.192/27')
})

test('what the host has a way to is told by whose it is; its default route and our own uplinks are not', () => {
  const links = [
    { ifname: 'vu-ours', ifalias: 'berth-aaaaaa' },
    { ifname: 'vu-theirs', ifalias: 'berth-bbbbbb' },
    { ifname: 'eth0' },
  ]
  const routes = [
    { dst: 'default', dev: 'eth0' },
    { dst: '192.168.1.0/24', dev: 'eth0' },
    { dst: '198.18.0.1', dev: 'vu-ours' },
    { dst: '198.18.0.2', dev: 'vu-theirs' },
    { dst: '198.18.0.3', type: 'blackhole' },
  ]
  expect(takenNetworks('aaaaaa', JSON.stringify(links), JSON.stringify(routes))).toEqual([
    { cidr: '192.168.1.0/24', by: 'a route over eth0', berth: false },
    { cidr: '198.18.0.2/32', by: 'installation bbbbbb of Berth', berth: true },
    { cidr: '198.18.0.3/32', by: 'a route over no device', berth: false },
  ])
  expect(takenNetworks('aaaaaa', '', '')).toEqual([])
})
