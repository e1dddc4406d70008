import { type Abortable, runCommand } from '../../sys/run-command.ts'

/** Run lines of ip(8) in the host's own namespace, one after the other up to the first that fails. */
export async function hostBatch(lines: readonly string[], options: Abortable): Promise<void> {
  if (lines.length > 0) await runCommand(['ip', '-batch', '-'], { ...options, input: `${lines.join('\n')}\n` })
}
