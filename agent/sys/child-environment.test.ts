import { expect, test } from 'vitest'
import { childEnvironment } from './child-environment.ts'

test('a child is told where programs are and the time zone, and nothing else', () => {
  const ours = { PATH: '/opt/bin', TZ: 'Europe/Zurich', LANG: 'de_CH.UTF-8', BERTH_DATABASE: 'postgres://a:secret@b/c' }
  expect(childEnvironment(ours)).toEqual({ PATH: '/opt/bin', TZ: 'Europe/Zurich', LC_ALL: 'C' })
})

test('a child finds programs also when nobody says where they are', () => {
  expect(childEnvironment({})).toEqual({ PATH: expect.stringContaining('/usr/sbin:/usr/bin'), LC_ALL: 'C' })
})
