import { expect, test } from 'vitest'
import { parseTraffic } from './traffic.ts'

test('what a tap receives was sent by its guest; other links do not count', () => {
  const stats64 = { rx: { bytes: 10, packets: 1, errors: 0 }, tx: { bytes: 20, packets: 2 } }
  const links = [{ ifname: 'lo', stats64 }, { ifname: 'up0', stats64 }, { ifname: 'vt1', stats64 }, { ifname: 'vt2' }]
  expect(parseTraffic(JSON.stringify(links))).toEqual(
    new Map([
      ['vt1', { received_bytes: 20, received_packets: 2, sent_bytes: 10, sent_packets: 1 }],
      ['vt2', { received_bytes: 0, received_packets: 0, sent_bytes: 0, sent_packets: 0 }],
    ]),
  )
})

test('a namespace without links prints nothing', () => {
  expect(parseTraffic('')).toEqual(new Map())
})
