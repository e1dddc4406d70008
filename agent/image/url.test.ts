import { expect, test } from 'vitest'
import { withoutUrlSecrets } from './url.ts'

test.each([
  ['https://host.example/a.qcow2?sig=secret', 'https://host.example/a.qcow2?…'],
  ['https://host.example/a.qcow2#secret', 'https://host.example/a.qcow2?…'],
  ['https://host.example?secret', 'https://host.example?…'],
  ['https://user:secret@host.example/a', 'https://host.example/a'],
  ['https://user:se@cret@host.example:8443/a', 'https://host.example:8443/a'],
  ['HTTPS://secret@host.example/a?secret', 'HTTPS://host.example/a?…'],
  ['ftp://u:secret@host.example/a;x?secret', 'ftp://host.example/a;x?…'],
  ['GET http://h/a?x=secret: HTTP status 404', 'GET http://h/a?…: HTTP status 404'],
  ['GET http://h/a?x=http://secret/b?secret:y: no byte', 'GET http://h/a?…: no byte'],
  ['(see http://h/a?secret), http://h/b#secret; then', '(see http://h/a?…), http://h/b?…; then'],
  ['GET http://h/a:b/c@2.qcow2: why?', 'GET http://h/a:b/c@2.qcow2: why?'],
  ['nothing of the kind: user@host?', 'nothing of the kind: user@host?'],
])('%s is told as %s', (text, told) => {
  expect(withoutUrlSecrets(text)).toBe(told)
})

test('a hostile text takes no time', () => {
  const text = `${'http://'.repeat(20_000)}${'?:'.repeat(20_000)} ${'a@'.repeat(50_000)}`
  const before = process.cpuUsage()
  withoutUrlSecrets(text)
  expect(process.cpuUsage(before).user).toBeLessThan(1_000_000)
})
