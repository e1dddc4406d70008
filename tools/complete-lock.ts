import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Complete package-lock.json after `npm install` against a registry that mirrors some platforms only. npm then leaves
 * the optional packages of the other platforms out of the lock, and `npm ci` refuses it as out of step. This names them
 * again, with the versions their parents ask for; where they are for, npm fetches them as ever.
 *
 *   npm install && node tools/complete-lock.ts
 */
interface LockEntry {
  version?: string
  optionalDependencies?: Record<string, string>
  dev?: boolean
  optional?: boolean
  os?: string[]
  cpu?: string[]
}

const file = join(import.meta.dirname, '../package-lock.json')
const lock: { packages: Record<string, LockEntry> } = JSON.parse(readFileSync(file, 'utf8'))
const added: string[] = []
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const place = `node_modules/${name}`
    if (place in lock.packages || `${path}/${place}` in lock.packages || !/^\d+\.\d+\.\d+/.test(version)) continue
    lock.packages[place] = {
      version,
      ...(entry.dev === true ? { dev: true } : {}),
      optional: true,
      ...platformOf(name),
    }
    added.push(name)
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)))
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
console.log(added.length === 0 ? 'the lock is complete' : `added ${added.length}: ${added.join(', ')}`)

/** Platform packages say in their names what they are for: `cli-win32-x64`, `binding-linux-arm-gnueabihf`. */
function platformOf(name: string): Pick<LockEntry, 'os' | 'cpu'> {
  const os = [
    'android',
    'darwin',
    'freebsd',
    'linux',
    'openharmony',
    'win32',
    'wasi',
    'aix',
    'netbsd',
    'openbsd',
    'sunos',
  ]
  const cpu = ['arm64', 'arm', 'ia32', 'ppc64', 'riscv64', 's390x', 'x64', 'wasm32', 'loong64', 'mips64el']
  const words = name.split(/[/-]/)
  const found = (known: readonly string[]) => words.filter((word) => known.includes(word)).slice(0, 1)
  const [system, processor] = [found(os), found(cpu)]
  return { ...(system.length > 0 ? { os: system } : {}), ...(processor.length > 0 ? { cpu: processor } : {}) }
}
