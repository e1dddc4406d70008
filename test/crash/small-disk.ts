import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * A tmpfs of a few MiB that can be filled to its last byte. Only for processes in a mount namespace of their own, with
 * which it goes.
 */
export class SmallDisk {
  readonly path: string
  readonly #filler: string

  constructor(megabytes: number) {
    this.path = mkdtempSync(join(tmpdir(), 'berth-small-disk-'))
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', this.path])
    this.#filler = join(this.path, 'filler')
  }

  /** A new directory on it. */
  directory(name: string): string {
    const path = join(this.path, name)
    mkdirSync(path, { mode: 0o700 })
    return path
  }

  fill(): void {
    const file = openSync(this.#filler, 'a')
    try {
      for (const size of [256 * 1024, 4096]) writeUntilFull(file, Buffer.alloc(size))
    } finally {
      closeSync(file)
    }
  }

  makeRoom(): void {
    rmSync(this.#filler)
  }

  /** Unmount it; nothing may use it any more. */
  remove(): void {
    execFileSync('umount', ['--lazy', this.path])
    rmSync(this.path, { recursive: true })
  }
}

function writeUntilFull(file: number, bytes: Buffer): void {
  for (;;) {
    try {
      writeSync(file, bytes)
    } catch (error) {
      if (Reflect.get(Object(error), 'code') === 'ENOSPC') return
      throw error
    }
  }
}
