import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'

/**
 * Run a command in a network and mount namespace of its own that stands for a host: loopback is up, there is no
 * uplink, and named namespaces and sockets lie on file systems that vanish with it. So nothing a test does to "its
 * host" reaches this machine, and what it leaves behind goes when its last process ends.
 *
 *   node tools/on-host.ts COMMAND [ARG ...]
 */
const inside = 'BERTH_INSIDE_TEST_HOST'
const command = process.argv.slice(2)
if (command.length === 0) throw new Error('usage: node tools/on-host.ts COMMAND [ARG ...]')
if (process.getuid?.() !== 0) {
  console.error('!! this needs root (network namespaces, QEMU under its own users); it is NOT run')
  process.exit(77)
}

if (process.env[inside] === undefined) {
  const own = [process.execPath, import.meta.filename, ...command]
  await passThrough(['unshare', '--net', '--mount', '--propagation', 'private', '--', ...own], { [inside]: '1' })
} else {
  for (const directory of ['/run/netns', '/run/berth']) {
    mkdirSync(directory, { recursive: true })
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', directory])
  }
  // a tun device as udev makes it (mode 0666), whatever this machine's is
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', '/dev/net'])
  execFileSync('mknod', ['--mode=0666', '/dev/net/tun', 'c', '10', '200'])
  execFileSync('ip', ['link', 'set', 'lo', 'up'])
  await passThrough(command, {})
}

async function passThrough(argv: readonly string[], env: Record<string, string>): Promise<void> {
  const [file = '', ...args] = argv
  const child = spawn(file, args, { stdio: 'inherit', env: { ...process.env, ...env } })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  const { promise, resolve } = Promise.withResolvers<number>()
  child.once('error', (error) => {
    console.error(`${file}: ${error.message}`)
    resolve(127)
  })
  child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)))
  process.exitCode = await promise
}
