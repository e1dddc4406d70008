import { defaultAgentSettings } from '@berth/agent/config.ts'
import { describe, expect, test } from 'vitest'
import { parseStepDeadlines } from './step-deadlines.ts'

describe('--step-deadlines', () => {
  test('sets the steps it names and leaves the others', () => {
    expect(parseStepDeadlines('boot=2.5, clean-up=90')).toEqual({
      ...defaultAgentSettings.deadlinesMs,
      boot: 2500,
      'clean-up': 90_000,
    })
  })

  test.each([
    '',
    'boot',
    'boot=',
    'boot=x',
    'boot=1e3',
    'schedule=5',
    'constructor=5',
    'boot=0',
    'boot=86401',
    'boot=-1',
  ])('refuses %j', (text) => {
    expect(() => parseStepDeadlines(text)).toThrow()
  })
})
