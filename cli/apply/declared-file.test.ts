import { describe, expect, test } from 'vitest'
import { parseDeclared } from './declared-file.ts'

const parse = (text: string) => parseDeclared(text, 'f.yaml')

describe('a declared file', () => {
  test('knows the line of each part of each document', () => {
    const text =
      '# shop\nkind: Vpc\nspec:\n  cidr: 10.0.0.0/8\n---\n# nothing\n---\nspec:\n  rules:\n    - a: 1\n    - b: 2\n'
    const [first, second] = parse(text)
    expect(first).toMatchObject({ line: 2, value: { kind: 'Vpc', spec: { cidr: '10.0.0.0/8' } } })
    expect([first?.lineOf('/spec/cidr'), first?.lineOf('/spec/vpc_id'), first?.lineOf('/metadata')]).toEqual([4, 3, 2])
    expect([second?.lineOf('/spec/rules/1/b'), second?.lineOf('/spec/rules/7')]).toEqual([11, 9])
  })

  test('may be JSON, indented with tabs', () => {
    const [document] = parse('{\n\t"a~b/c": {\n\t\t"x": [1, 2]\n\t}\n}\n')
    expect(document?.value).toEqual({ 'a~b/c': { x: [1, 2] } })
    expect(document?.lineOf('/a~0b~1c/x/1')).toBe(3)
  })

  test('may share parts by aliases', () => {
    expect(parse('a: &l {x: y}\nb: *l\n')[0]?.value).toEqual({ a: { x: 'y' }, b: { x: 'y' } })
  })

  test('without a document is empty', () => {
    expect([parse(''), parse('---\n# only a comment\n'), parse('null')]).toEqual([[], [], []])
  })

  const letters = 'abcdefghijklm'.split('')
  const bomb = letters.map((letter, i) => {
    const before = letters[i - 1]
    return `${letter}: &${letter} [${Array(9).fill(before === undefined ? 'x' : `*${before}`)}]`
  })
  const hostile = [
    ['broken YAML', 'spec: [1', /^f\.yaml:1: /],
    ['a list', '- a', 'f.yaml:1: is not an object with fields'],
    ['a field that is there twice', 'a: 1\nb: 2\na: 3', 'f.yaml:3: the field a is there twice'],
    ['a tag that makes something else', 'a: !!js/function x', /^f\.yaml:1: Unresolved tag/],
    ['aliases that grow', bomb.join('\n'), 'f.yaml: grows too much by its aliases'],
    ['a part that contains itself', 'a: &a\n  b: *a', 'f.yaml:1: is nested deeper than 32 levels'],
    [
      'a large text by aliases',
      `a: &a ${'x'.repeat(100_000)}\nb: [${Array(60).fill('*a')}]`,
      'f.yaml:1: has too much in it',
    ],
    ['deep nesting', `a: ${'['.repeat(40)}${']'.repeat(40)}`, 'f.yaml:1: is nested deeper than 32 levels'],
    ['nesting beyond the stack', '['.repeat(20_000), 'f.yaml:1: is nested too deep'],
    ['many documents', '---\na: 1\n'.repeat(1001), 'f.yaml: has more than 1000 documents'],
  ] as const
  test.each(hostile)('with %s is refused', (_what, text, message) => {
    expect(() => parse(text)).toThrow(message)
  })

  test('with many fields takes a time that grows with their number', () => {
    const text = Array.from({ length: 20_000 }, (_, i) => `k${i}: 1`).join('\n')
    // the parser's own check of double fields takes more than 20 s for this
    const before = process.cpuUsage()
    expect(Object.keys(parse(text)[0]?.value ?? {})).toHaveLength(20_000)
    expect(process.cpuUsage(before).user).toBeLessThan(15_000_000)
  })
})
