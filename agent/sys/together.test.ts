import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { together } from './together.ts'

test('gives what each brought', async () => {
  expect(await together(Promise.resolve(1), delay(1, 'two'))).toEqual([1, 'two'])
})

test('throws when one failed, once the others have ended', async () => {
  let ended = false
  const slow = delay(20).then(() => {
    ended = true
  })
  await expect(together(Promise.reject(new Error('first')), slow)).rejects.toThrow('first')
  expect(ended).toBe(true)
})
