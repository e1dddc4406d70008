import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { LabelSelectorError, matchesLabels, parseLabelSelector } from './label-selector.ts'

describe('a label selector', () => {
  test.each([
    ['', []],
    ['  ', []],
    ['a=b', [{ operator: 'in', key: 'a', values: ['b'] }]],
    ['a==b', [{ operator: 'in', key: 'a', values: ['b'] }]],
    ['a != b', [{ operator: 'not_in', key: 'a', values: ['b'] }]],
    ['a=', [{ operator: 'in', key: 'a', values: [''] }]],
    ['a', [{ operator: 'exists', key: 'a' }]],
    ['!a', [{ operator: 'absent', key: 'a' }]],
    ['! a', [{ operator: 'absent', key: 'a' }]],
    ['a in (x,y)', [{ operator: 'in', key: 'a', values: ['x', 'y'] }]],
    ['a in(x)', [{ operator: 'in', key: 'a', values: ['x'] }]],
    ['a in (x,x, )', [{ operator: 'in', key: 'a', values: ['x', ''] }]],
    ['a notin (x , y)', [{ operator: 'not_in', key: 'a', values: ['x', 'y'] }]],
    ['in in (in,notin)', [{ operator: 'in', key: 'in', values: ['in', 'notin'] }]],
    ['in', [{ operator: 'exists', key: 'in' }]],
    [
      'a=b,c!=d,e in (x,y),!f',
      [
        { operator: 'in', key: 'a', values: ['b'] },
        { operator: 'not_in', key: 'c', values: ['d'] },
        { operator: 'in', key: 'e', values: ['x', 'y'] },
        { operator: 'absent', key: 'f' },
      ],
    ],
    ['example.com/team=web-1', [{ operator: 'in', key: 'example.com/team', values: ['web-1'] }]],
  ])('%j parses', (text, expected) => {
    expect(parseLabelSelector(text)).toEqual(expected)
  })

  test.each([
    ',',
    'a,',
    ',a',
    'a b',
    'a=b=c',
    'a in',
    'a in x',
    'a in (x',
    'a in (x y)',
    'a in ()x',
    '!',
    '!a=b',
    'a>1',
    'a=ü',
    "a='b'",
    `${'k'.repeat(64)}=v`,
    `k=${'v'.repeat(64)}`,
    Array.from({ length: 33 }, (_, i) => `k${i}`).join(','),
    `a in (${Array.from({ length: 129 }, (_, i) => i).join(',')})`,
    'a'.repeat(5000),
  ])('%j is refused', (text) => {
    expect(() => parseLabelSelector(text)).toThrow(LabelSelectorError)
  })

  test('an error says what was expected and where', () => {
    expect(() => parseLabelSelector('a in (x y)')).toThrow('expected , or ), found "y" at 9')
  })

  test('any text either parses or is refused with its error, in time that follows its length', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'ab =!,()in\t\u{1f600}'), maxLength: 60 }), (text) => {
        try {
          parseLabelSelector(text)
        } catch (error) {
          expect(error).toBeInstanceOf(LabelSelectorError)
        }
      }),
      { numRuns: 2000 },
    )
  })
})

test('requirements are matched as Kubernetes does: != and notin hold without the key', () => {
  const match = (selector: string) => matchesLabels({ env: 'prod', empty: '' }, parseLabelSelector(selector))
  for (const selector of ['env=prod', 'env', 'empty=', 'empty in (a,)', 'env!=dev', 'x!=1', 'x notin (1)', '!x', '']) {
    expect(match(selector), selector).toBe(true)
  }
  for (const selector of ['env=dev', '!env', 'x', 'x=', 'env notin (prod)', 'env,x', '__proto__', 'toString']) {
    expect(match(selector), selector).toBe(false)
  }
})
