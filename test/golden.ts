import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect } from 'vitest'

/**
 * Compare a rendered text with the file `golden/<name>` beside a test; `directory` is the test's own
 * (`import.meta.dirname`). `UPDATE_GOLDEN=1` writes the file anew.
 */
export function expectGolden(directory: string, name: string, actual: string): void {
  const file = join(directory, 'golden', name)
  if (process.env.UPDATE_GOLDEN === '1') {
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, actual)
  }
  expect(actual, `${file}; UPDATE_GOLDEN=1 rewrites it`).toBe(readFileSync(file, 'utf8'))
}
