import { expect, test } from 'vitest'
import { parseNameServers } from './name-servers.ts'

test('name servers are those of the lines that name an IPv4 address, in their order', () => {
  const text = [
    '# nameserver 192.0.2.1',
    'nameserver 192.0.2.2',
    'nameserver\t127.0.0.53 trailing',
    ' nameserver 192.0.2.3',
    'nameserver 2001:db8::1',
    'nameserver fe80::1%eth0',
    'search nameserver 192.0.2.4',
    'nameserver 192.0.2.5',
  ].join('\n')
  expect(parseNameServers(text)).toEqual(['192.0.2.2', '127.0.0.53', '192.0.2.5'])
  expect(parseNameServers('')).toEqual([])
})

test.each([
  '192.0.2.1,evil',
  '192.0.2.1\\nconf-script=/x',
  '#53',
  '192.0.2.1#53',
  '1.2.3',
  '0x7f.1',
  '192.0.2.256',
  '010.0.0.53',
])('%s is no address, and does not get into the configuration of dnsmasq', (address) => {
  expect(parseNameServers(`nameserver ${address}\n`)).toEqual([])
})
