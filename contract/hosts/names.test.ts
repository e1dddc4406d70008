import { expect, test } from 'vitest'
import {
  installationIdPattern,
  instanceUuid,
  maxSlots,
  namespacePrefix,
  tapName,
  vmUid,
  vpcNamespaceName,
} from './names.ts'

const installation = 'abc123'
const instance = 'inst-01m857kf7c8a5rzsw9t7'

// A host that is updated must find the objects the version before it made: these names may never change.
test('the names of an installation are stable', () => {
  expect({
    namespace: vpcNamespaceName(installation, 'vpc-abc123'),
    prefix: namespacePrefix(installation),
    tap: tapName(installation, instance),
    uuid: instanceUuid(installation, instance),
    uids: [vmUid(installation, 0), vmUid(installation, 1), vmUid(installation, maxSlots - 1)],
  }).toEqual({
    namespace: 'berth-abc123-88mhs8f2jaan',
    prefix: 'berth-abc123-',
    tap: 'vtag29tygh8084',
    uuid: '30f03aed-2e6c-889b-b198-252aeeea4a05',
    uids: [1_937_640_000, 1_937_640_001, 1_937_649_999],
  })
})

test('an interface name fits the kernel and is lower-case', () => {
  for (let i = 0; i < 500; i++) {
    expect(tapName(installation, `inst-${i}`)).toMatch(/^vt[0-9a-hjkmnp-tv-z]{12}$/)
  }
})

test('names differ between instances and between installations', () => {
  const names = [installation, 'abc124'].flatMap((each) =>
    Array.from({ length: 2000 }, (_, i) => [
      tapName(each, `inst-${i}`),
      vpcNamespaceName(each, `vpc-${i}`),
      instanceUuid(each, `inst-${i}`),
    ]).flat(),
  )
  expect(new Set(names).size).toBe(names.length)
})

test('a namespace can be traced to its installation', () => {
  expect(vpcNamespaceName(installation, 'vpc-a').startsWith(namespacePrefix(installation))).toBe(true)
  expect(installation).toMatch(new RegExp(installationIdPattern))
})

test('a UUID is of RFC 9562, version 8', () => {
  expect(instanceUuid(installation, instance)).toMatch(
    /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
  )
})

test('every uid is above those of people and services, and below 2^31', () => {
  for (let i = 0; i < 2000; i++) {
    const first = vmUid(`i${i}`, 0)
    const last = vmUid(`i${i}`, maxSlots - 1)
    expect(first).toBeGreaterThanOrEqual(1_900_000_000)
    expect(last).toBeLessThan(2 ** 31)
    expect(last - first).toBe(maxSlots - 1)
    expect((first - 1_900_000_000) % maxSlots).toBe(0)
  }
})
