import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runCommand } from '../sys/run-command.ts'
import { hasQemuImg, makeQcow2 } from '../testing/qemu-img.ts'
import { diskFiles, ensureOverlay } from './disks.ts'

const withQemuImg = await hasQemuImg()

let directory: string
let outside: string

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-disk-'))
  outside = await mkdtemp(join(tmpdir(), 'berth-outside-'))
})

afterEach(async () => {
  await rm(directory, { recursive: true, force: true })
  await rm(outside, { recursive: true, force: true })
})

describe.skipIf(!withQemuImg)('the disk of an instance', () => {
  const image = () => join(outside, 'image.qcow2')

  test('has the size that was asked for and shows what is in the image', async () => {
    await makeQcow2(image())
    await ensureOverlay(directory, image(), 3)
    const { disk } = diskFiles(directory)
    const { stdout } = await runCommand(['qemu-img', 'info', '-U', '-f', 'qcow2', '--output=json', disk])
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ format: 'qcow2', 'virtual-size': 3 * 1024 ** 3 },
      ...{ 'backing-filename': 'base.qcow2', 'backing-filename-format': 'qcow2' },
    })
    const compared = ['compare', '-U', '-f', 'qcow2', '-F', 'qcow2', disk, image()]
    await runCommand(['qemu-img', ...compared])
  })

  test('is made without a look into the image, whatever is in there', async () => {
    // what a guest or a stranger could have written: no image at all, and one that sends its reader to another file
    await writeFile(image(), 'no qcow2')
    await ensureOverlay(directory, image(), 1)
    expect(await readFile(diskFiles(directory).base, 'utf8')).toBe('no qcow2')
    await rm(diskFiles(directory).disk)
    await rm(image())
    await makeQcow2(image(), '-o', `data_file=${outside}/data`)
    await rm(join(outside, 'data')) // whoever follows the reference fails
    await ensureOverlay(directory, image(), 1)
    expect((await stat(diskFiles(directory).disk)).isFile()).toBe(true)
  })

  test('that is there is left as it is', async () => {
    await makeQcow2(image())
    await ensureOverlay(directory, image(), 1)
    const before = await stat(diskFiles(directory).disk)
    await ensureOverlay(directory, image(), 7)
    const after = await stat(diskFiles(directory).disk)
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs])
  })
})
