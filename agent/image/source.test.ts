import { forbiddenKind } from '@berth/contract/images/source.ts'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ImageDownloadError } from './download-error.ts'
import { parseSourceUrl } from './source.ts'

describe('the address of a source', () => {
  test.each([
    ['127.8.9.10', 'a loopback'],
    ['169.254.0.1', 'a link-local'],
    ['0.0.0.0', 'an unspecified'],
    ['239.1.2.3', 'a multicast'],
    ['255.255.255.255', 'a broadcast'],
    ['::1', 'a loopback'],
    ['::', 'an unspecified'],
    ['fe80::1234', 'a link-local'],
    ['febf::1', 'a link-local'],
    ['ff02::1', 'a multicast'],
    ['::ffff:169.254.169.254', 'a link-local'],
    ['64:ff9b::a9fe:a9fe', 'a link-local'],
    ['2002:7f00:1::1', 'a loopback'],
    ['::127.0.0.1', 'a loopback'],
    ['100.64.0.1', 'a shared'],
    ['100.127.255.255', 'a shared'],
    ['240.0.0.1', 'a reserved'],
    ['::ffff:100.64.0.1', 'a shared'],
    ['::ffff:0:127.0.0.1', 'a loopback'],
    ['64:ff9b:1::7f00:1', 'a loopback'],
    ['fe80::1%eth0', 'a link-local'],
    ['100.63.255.255', null],
    ['100.128.0.0', null],
    ['10.0.0.1', null],
    ['192.168.1.1', null],
    ['172.16.0.1', null],
    ['91.189.91.38', null],
    ['128.0.0.1', null],
    ['fd00::1', null],
    ['2001:67c:1562::28', null],
  ])('%s is %s address', (address, kind) => {
    expect(forbiddenKind(address, { allowPrivateSources: false })).toBe(kind)
    expect(forbiddenKind(address, { allowPrivateSources: true })).toBe(null)
  })

  test.each(['192.168.7.9', '::ffff:192.168.7.9', '::ffff:c0a8:709', '64:ff9b::c0a8:709', '2001:db8:0:0::7'])(
    '%s is one of the host that has it',
    (address) => {
      const ownAddresses = ['127.0.0.1', '192.168.7.9', '2001:db8::7', 'fe80::1']
      expect(forbiddenKind(address, { allowPrivateSources: false, ownAddresses })).toBe("this host's own")
      expect(forbiddenKind(address, { allowPrivateSources: false, ownAddresses: ['192.168.7.8'] })).toBe(null)
      expect(forbiddenKind(address, { allowPrivateSources: [address], ownAddresses })).toBe(null)
      expect(forbiddenKind(address, { allowPrivateSources: true, ownAddresses })).toBe(null)
    },
  )

  test('no loopback, link-local or shared IPv4 address gets through in any way to write it', () => {
    const address = fc
      .tuple(fc.constantFrom([127], [169, 254], [100, 100]), fc.array(fc.nat(255), { minLength: 3, maxLength: 3 }))
      .map(([prefix, rest]) => [...prefix, ...rest].slice(0, 4))
    const property = fc.property(address, (bytes) => {
      const dotted = bytes.join('.')
      const number = bytes.reduce((sum, byte) => sum * 256 + byte, 0)
      const hex = bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('')
      const forms = [dotted, String(number), `0x${hex}`, `0${number.toString(8)}`, `[::ffff:${dotted}]`]
      for (const form of forms) expect(() => parseSourceUrl(`http://${form}/`, false), form).toThrow(ImageDownloadError)
    })
    fc.assert(property)
  })
})
