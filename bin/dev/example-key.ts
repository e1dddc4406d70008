import { readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from '@berth/agent/sys/run-command.ts'

/** The public half of key-001, a pair made at first start for the example and for `berth ssh`. */
export async function ensureExampleKey(keyDirectory: string): Promise<string> {
  const file = join(keyDirectory, 'key-001')
  const publicKey = () => readFile(`${file}.pub`, 'utf8')
  try {
    return (await publicKey()).trim()
  } catch {
    const fresh = `${file}.partial`
    await Promise.all([rm(fresh, { force: true }), rm(`${fresh}.pub`, { force: true })])
    await runCommand(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'berth-example', '-f', fresh])
    await rename(fresh, file)
    await rename(`${fresh}.pub`, `${file}.pub`) // last: with it the pair counts as made
    return (await publicKey()).trim()
  }
}
