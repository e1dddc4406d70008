import { readFile } from 'node:fs/promises'
import { isRecipeId } from '@berth/images/build.ts'
import { CatalogueError, parseCatalogue } from '@berth/images/catalogue.ts'
import { expect, test } from 'vitest'

const file = new URL('../../images/catalogue.yaml', import.meta.url)
const entry = { id: 'a', title: 'A', min_disk_gb: 1, architecture: 'x86_64', default_user: 'root', network: 'static' }

function problemsOf(entries: unknown): readonly string[] {
  try {
    parseCatalogue(JSON.stringify(entries), 'catalogue.yaml')
  } catch (error) {
    if (error instanceof CatalogueError) return error.problems
    throw error
  }
  return []
}

test('the catalogue of the repository is valid and every recipe in it exists', async () => {
  const images = parseCatalogue(await readFile(file, 'utf8'), 'images/catalogue.yaml')
  expect(images.map((image) => image.id)).toEqual(['micro', 'debian-12', 'debian-13', 'ubuntu-22.04', 'ubuntu-24.04'])
  for (const image of images) expect(image.recipe === undefined || isRecipeId(image.recipe)).toBe(true)
})

test('every wrong field is named with its entry', () => {
  const wrong = { ...entry, min_disk_gb: 0, network: 'bridge', url: 'http://x', recipe: 'micro', title: undefined }
  expect(problemsOf([wrong])).toEqual([
    'entry 1 (a): title: is missing',
    expect.stringMatching(/^entry 1 \(a\): url: is not a field of an image/),
    expect.stringMatching(/^entry 1 \(a\): min_disk_gb: /),
    expect.stringMatching(/^entry 1 \(a\): network: /),
  ])
})

test('an id given twice is refused', () => {
  expect(
    problemsOf([
      { ...entry, recipe: 'micro' },
      { ...entry, recipe: 'micro' },
    ]),
  ).toEqual(["entry 2 (a): the id is entry 1's already"])
})

test('an image that can be had from nowhere is refused', () => {
  expect(problemsOf([entry])).toEqual(['entry 1 (a): source_url: an image needs a source_url or a recipe'])
})

test('a download without a checksum is refused', () => {
  expect(problemsOf([{ ...entry, source_url: 'https://example.org/a.qcow2' }])).toEqual([
    'entry 1 (a): source_url: a download needs a checksum or a checksum_url',
  ])
})

test('a checksum may be written as its publisher writes it', () => {
  const source = { ...entry, source_url: 'https://example.org/a.qcow2' }
  const hex = 'AB'.repeat(64)
  const given = [
    [{ checksum: `sha512:${hex}` }, `sha512:${hex.toLowerCase()}`],
    [{ checksum: `SHA512 (a.qcow2) = ${hex}` }, `sha512:${hex.toLowerCase()}`],
    [{ sha256: 'AB'.repeat(32) }, `sha256:${'ab'.repeat(32)}`],
  ] as const
  for (const [fields, checksum] of given) {
    const [image] = parseCatalogue(JSON.stringify([{ ...source, ...fields }]), 'catalogue.yaml')
    expect(image).toEqual({ ...source, checksum })
  }
  expect(problemsOf([{ ...source, sha256: hex }])).toEqual(['entry 1 (a): sha256: is no SHA-256; name it checksum'])
  expect(problemsOf([{ ...source, checksum: 'ab' }])).toEqual([
    'entry 1 (a): checksum: has 2 hexadecimal digits; sha256 has 64, sha512 has 128',
  ])
})

test('what is no list of maps is refused', () => {
  expect(problemsOf({ images: [] })).toEqual(['the file must be a list of images'])
  expect(problemsOf(['micro'])).toEqual(['entry 1: must be a map of fields'])
})

test('broken YAML is refused with the file and the line', () => {
  expect(() => parseCatalogue('- id: a\n  title: "A\n', 'images/catalogue.yaml')).toThrow(
    /^images\/catalogue\.yaml: .*line/,
  )
})

test('an empty catalogue has no images', () => {
  expect(parseCatalogue('', 'catalogue.yaml')).toEqual([])
})
