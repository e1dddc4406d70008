import { expect, test } from 'vitest'
import { PublicAddresses } from './public-addresses.ts'

const [one, two] = ['203.0.113.1', '203.0.113.2']

test('an address is one card’s: who got it last, whatever order cards are made or restored in', () => {
  const addresses = new PublicAddresses()
  expect(addresses.give('vpc-a', 'tap-1', one)).toBe(one)
  expect(addresses.give('vpc-b', 'tap-2', one)).toBe(one)
  expect([addresses.of('tap-1'), addresses.of('tap-2')]).toEqual(['', one])
  expect([addresses.ofVpc('vpc-a'), addresses.ofVpc('vpc-b'), addresses.all()]).toEqual([[], [one], [one]])
  expect([addresses.keeps('tap-1', one), addresses.keeps('tap-2', one), addresses.keeps('tap-3', one)]).toEqual([
    false,
    true,
    true,
  ])
})

test('a card that asks late for what the server gave another has none, and gets it once it is its own', () => {
  const addresses = new PublicAddresses()
  addresses.hear([{ card: 'tap-2', address: one }])
  addresses.give('vpc-a', 'tap-2', one)
  expect(addresses.give('vpc-a', 'tap-1', one)).toBe('')
  expect(addresses.of('tap-2')).toBe(one)
  addresses.hear([{ card: 'tap-1', address: one }])
  expect(addresses.give('vpc-a', 'tap-1', one)).toBe(one)
  expect(addresses.of('tap-2')).toBe('')
})

test('what a card had is remembered until its connections are cut, by whomever it went and however often', () => {
  const addresses = new PublicAddresses()
  addresses.give('vpc-a', 'tap-1', one)
  addresses.give('vpc-a', 'tap-1', two)
  addresses.give('vpc-a', 'tap-2', two)
  expect(addresses.leftBy('tap-1')).toEqual([one, two])
  addresses.give('vpc-a', 'tap-1', two)
  expect(addresses.leftBy('tap-1')).toEqual([one])
  expect(addresses.leftBy('tap-2')).toEqual([two])
  addresses.cut('tap-1')
  expect(addresses.leftBy('tap-1')).toEqual([])
})

test('a card that goes leaves its address to nobody, once', () => {
  const addresses = new PublicAddresses()
  addresses.give('vpc-a', 'tap-1', one)
  expect([addresses.drop('tap-1'), addresses.drop('tap-1')]).toEqual([one, ''])
  expect([addresses.all(), addresses.ofVpc('vpc-a')]).toEqual([[], []])
})
