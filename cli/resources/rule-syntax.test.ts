import { describe, expect, test } from 'vitest'
import { formatRule, isSameRule, parseRule } from './rule-syntax.ts'

describe('a rule', () => {
  const rules = [
    ['tcp:80-90:0.0.0.0/0', { protocol: 'tcp', port_from: 80, port_to: 90, remote: { cidr: '0.0.0.0/0' } }],
    ['udp:53:sg-dns', { protocol: 'udp', port_from: 53, port_to: 53, remote: { security_group: 'sg-dns' } }],
    ['icmp:10.0.0.0/8', { protocol: 'icmp', remote: { cidr: '10.0.0.0/8' } }],
    ['tcp:sg-web', { protocol: 'tcp', remote: { security_group: 'sg-web' } }],
  ] as const
  test.each(rules)('%s is read and written the same', (text, rule) => {
    const parsed = parseRule(text, 'ingress')
    expect(parsed).toEqual({ direction: 'ingress', description: '', ...rule })
    expect(formatRule(parsed)).toBe(text)
  })

  test('has the words behind a space as its description', () => {
    expect(parseRule('any:any  all of it ', 'egress')).toEqual({
      direction: 'egress',
      protocol: 'any',
      remote: { cidr: '0.0.0.0/0' },
      description: 'all of it',
    })
  })

  test('is the same whether one port is named once or twice', () => {
    const twice = parseRule('tcp:80:any', 'ingress')
    const { port_to: _, ...once } = twice
    expect(isSameRule(once, twice)).toBe(true)
    expect(isSameRule(twice, parseRule('tcp:80:any', 'egress'))).toBe(false)
  })

  test.each([
    '',
    'tcp',
    'ftp:any',
    'tcp:80',
    'tcp:80:90:any',
    'tcp:65536:any',
    'tcp:9-8:any',
    'tcp:-1:any',
    'icmp:8:any',
    'tcp::any',
    'tcp:80:10.0.0.0',
    'tcp:80:10.0.0.0/08',
    'tcp:80:010.0.0.0/8',
    'tcp:80:SG-web',
  ])('"%s" is refused', (text) => {
    expect(() => parseRule(text, 'ingress')).toThrow()
  })

  test('whose network is written in another way than usual is refused with what is meant', () => {
    expect(() => parseRule('tcp:80:10.0.0.0/08', 'ingress')).toThrow('write 10.0.0.0/8')
    expect(() => parseRule('tcp:80:10.0.0.1/8', 'ingress')).toThrow('the network is 10.0.0.0/8')
  })
})
