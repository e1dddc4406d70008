import { expect, test } from 'vitest'
import { createLogger, errorFields } from './log.ts'

test('an error is logged with its words, its code and its causes, and nothing else that it carries', () => {
  const texts: string[] = []
  const log = createLogger('info', { write: (text) => void texts.push(text) })
  const refused = Object.assign(new Error('null value in column "mac"'), {
    code: '23502',
    detail: 'Failing row contains (inst-1, IyEvYmluL2Jhc2g).', // as PostgreSQL's client hands it on
  })
  log.error({ err: new Error('the write failed', { cause: refused }) }, 'request')
  expect(JSON.parse(texts.join(''))).toMatchObject({
    err: {
      type: 'Error',
      message: 'the write failed',
      cause: { code: '23502', message: 'null value in column "mac"' },
    },
  })
  expect(texts.join('')).toContain('log.test.ts') // the stack
  expect(texts.join('')).not.toContain('IyEv')
})

test('causes that go in a circle come to an end', () => {
  const error = new Error('one')
  error.cause = new Error('two', { cause: error })
  expect(JSON.stringify(errorFields(error)).match(/"message":"one"/g)).toHaveLength(3)
})
