import { expect } from 'vitest'
import type { Stack } from '../stack.ts'

/** A POST of `body` is refused for exactly the fields at these JSON pointers, and the list at `path` stays as it was. */
export async function expectInvalid(stack: Stack, path: string, body: unknown, pointers: string[]): Promise<void> {
  const before = (await stack.api('GET', path)).text
  const answer = await stack.api('POST', path, body)
  expect({ status: answer.status, code: answer.body.code }, answer.text).toEqual({
    status: 422,
    code: 'validation_failed',
  })
  expect(answer.headers['content-type']).toBe('application/problem+json')
  expect([...new Set(answer.body.errors.map((error) => error.pointer))]).toEqual(pointers)
  expect((await stack.api('GET', path)).text).toBe(before)
}
