import { findChecksum, parseChecksum } from '@berth/contract/images/checksum.ts'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

const a = 'a'.repeat(64)
const c = 'c'.repeat(64)
const b = 'b'.repeat(128)
const B = 'B'.repeat(128)
const path = '/images/bookworm/disk.img'

describe('a checksum file', () => {
  test.each([
    ['sha256sum', `${c}  other.img\n${a}  disk.img\n`, `sha256:${a}`],
    ['binary mode', `${a} *disk.img\r\n`, `sha256:${a}`],
    ['CRLF and a byte order mark', `\ufeff${a}  disk.img\r\n${c}  other.img\r\n`, `sha256:${a}`],
    ['upper case', `${a.toUpperCase()}  disk.img\n${c}  other.img\n`, `sha256:${a}`],
    ['one space, or a tab', `${a}\tdisk.img\n${c} other.img\n`, `sha256:${a}`],
    ['a folder here', `${a}  ./disk.img\n`, `sha256:${a}`],
    ['folders of the URL', `${c}  ./disk.img\n${a}  ./bookworm/disk.img\n`, `sha256:${a}`],
    ['a name with spaces', `${a}  my disk.img\n`, `sha256:${a}`, '/images/my disk.img'],
    ['an escaped name', `\\${a}  my\\\\disk.img\n`, `sha256:${a}`, '/images/my\\disk.img'],
    ['SHA-512', `${B}  disk.img\n`, `sha512:${b}`],
    ['both, the longer wins', `${a}  disk.img\n${b}  disk.img`, `sha512:${b}`],
    ['BSD', `# disk.img: 1 bytes\nSHA256 (disk.img) = ${a}\n`, `sha256:${a}`],
    ['BSD, SHA-512', `SHA512 (disk.img) = ${B}\r\n`, `sha512:${b}`],
    ['OpenSSL', `SHA2-256(disk.img)= ${a}\n`, `sha256:${a}`],
    ['OpenSSL before 3', `SHA512(disk.img)= ${b}\n`, `sha512:${b}`],
    [
      'signed',
      `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSHA256 (disk.img) = ${a}\n-----BEGIN`,
      `sha256:${a}`,
    ],
    ['nothing but the digest', `${a}\n`, `sha256:${a}`],
    ['the same twice', `${a}  disk.img\n${a} *disk.img\n`, `sha256:${a}`],
  ])('is understood: %s', (_, text, checksum, of = path) => {
    expect(findChecksum(text, of)).toEqual({ checksum })
  })

  test.each([
    ['another name', `${a}  disk.img.zst\n`, 'names no SHA-256 or SHA-512 of disk.img'],
    ['the end of another name', `${a}  bigdisk.img\n${c}  k.img\n`, 'names no SHA-256 or SHA-512 of disk.img'],
    ['another folder', `${a}  old/disk.img\n`, 'names no SHA-256 or SHA-512 of disk.img'],
    ['two that differ', `${a}  disk.img\n${c}  disk.img\n`, 'names different checksums of disk.img'],
    ['MD5', `${'a'.repeat(32)}  disk.img\n`, 'names no SHA-256 or SHA-512 of disk.img'],
    [
      'SHA3 and SHA-512/256, of 64 digits as well',
      `SHA3-256 (disk.img) = ${a}\nSHA512/256 (disk.img) = ${a}\n`,
      'names no',
    ],
    ['nothing', '', 'names no SHA-256 or SHA-512 of disk.img'],
  ])('gives no checksum with %s', (_, text, fault) => {
    expect(findChecksum(text, path)).toEqual({ fault: expect.stringContaining(fault) })
  })
})

describe('a checksum that a person gives', () => {
  test.each([
    [`sha512:${B}`, `sha512:${b}`],
    [`SHA512:${b}`, `sha512:${b}`],
    [`sha-256:${a}`, `sha256:${a}`],
    [`sha256=${a}`, `sha256:${a}`],
    [` sha256: ${a.toUpperCase()}\r\n`, `sha256:${a}`],
    [a, `sha256:${a}`],
    [B, `sha512:${b}`],
    [`${b} *renamed.qcow2`, `sha512:${b}`],
    [`\ufeff${a}  renamed.qcow2\r\n`, `sha256:${a}`],
    [`SHA512 (renamed.qcow2) = ${b}`, `sha512:${b}`],
    [`${c}  other.img\n${b}  disk.img\n`, `sha512:${b}`],
  ])('is taken as it is: %j', (text, checksum) => {
    expect(parseChecksum(text, path)).toEqual({ checksum })
  })

  test.each([
    ['', 'is empty'],
    [' \r\n', 'is empty'],
    ['a'.repeat(63), 'has 63 hexadecimal digits; sha256 has 64, sha512 has 128'],
    ['a'.repeat(32), 'has 32 hexadecimal digits, as MD5; sha256 has 64, sha512 has 128'],
    [`sha256:${b}`, 'has 128 hexadecimal digits; sha256 has 64'],
    [`sha512:${a}`, 'has 64 hexadecimal digits; sha512 has 128'],
    [`md5:${'a'.repeat(32)}`, 'names the algorithm md5; sha256 and sha512 are known'],
    [`SHA512/256 (disk.img) = ${a}`, 'names the algorithm SHA512/256; sha256 and sha512 are known'],
    [`${'a'.repeat(30)}g${'a'.repeat(33)}`, 'has a character that is no hexadecimal digit, in place 31'],
    ['sha256:', 'is none of sha256:HEX, sha512:HEX, and a line of a checksum file such as SHA512SUMS'],
    ['https://images.example/SHA256SUMS', 'names the algorithm https; sha256 and sha512 are known'],
    ['none', 'is none of sha256:HEX, sha512:HEX, and a line of a checksum file such as SHA512SUMS'],
    [`${c}  other.img\n${a}  another.img`, 'names no SHA-256 or SHA-512 of disk.img'],
  ])('is refused with what is wrong: %j', (text, fault) => {
    expect(parseChecksum(text, path)).toEqual({ fault })
  })

  test('is the same in each form that the tools write', () => {
    const hex = fc
      .constantFrom(64, 128)
      .chain((n) => fc.string({ unit: fc.constantFrom(...'0123456789abcdefABCDEF'), minLength: n, maxLength: n }))
    const property = fc.property(hex, (digits) => {
      const name = digits.length === 64 ? 'sha256' : 'sha512'
      const forms = [
        digits,
        `${name}:${digits}`,
        `${digits}  x`,
        `${digits} *x`,
        `${name.toUpperCase()} (x) = ${digits}`,
      ]
      for (const form of forms) {
        expect(parseChecksum(form, path)).toEqual({ checksum: `${name}:${digits.toLowerCase()}` })
      }
    })
    fc.assert(property, { numRuns: 200 })
  })

  test('of any text gives a checksum in the one form, or a fault', () => {
    const property = fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (text) => {
      const parsed = parseChecksum(text, path)
      if ('checksum' in parsed) expect(parsed.checksum).toMatch(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/)
      else expect(parsed.fault).toMatch(/^(?:is|has|names) /)
    })
    fc.assert(property, { numRuns: 500 })
  })
})
