import { open } from 'node:fs/promises'
import { runCommand } from '../sys/run-command.ts'
import { startDetached } from '../sys/start-detached.ts'

/**
 * A program that has an attached and a detached process, says their numbers on stdout, and waits to be killed.
 *
 *   node commands-until-killed.ts LOG
 */
const log = await open(process.argv[2] ?? '', 'a')
const detached = await startDetached(['sleep', '600'], { output: log.fd })
await runCommand(['sh', '-c', 'sleep 600 & echo $$ $!; wait'], {
  timeoutMs: 600_000,
  onLine: (line) => console.log(`${line} ${detached.pid}`),
})
