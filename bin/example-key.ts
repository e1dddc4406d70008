import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from '@berth/agent/run-command.ts'

/** The public half of key-001, a pair made at first start for the example and for `berth ssh`. */
export async function ensureExampleKey(keyDirectory: string): Promise<string> {
  const file = join(keyDirectory, 'key-001')
  const publicKey = () => readFile(`${file}.pub`, 'utf8')
  try {
    return (await publicKey()).trim()
  } catch {
    await runCommand(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'berth-example', '-f', file])
    return (await publicKey()).trim()
  }
}
