import { spawnSync } from 'node:child_process'
import { access } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { hostPackages } from '@berth/images/host-packages.ts'
import { dataPaths } from '../bin/data-directory.ts'
import { ensurePackages, runtimePackages, testPackages } from '../bin/host-packages.ts'

/**
 * Bring a fresh Debian or Ubuntu machine to where `berth dev` and the tests can run: system packages and the small
 * guest image. Does nothing, quickly, where that has been done.
 *
 *   node tools/setup.ts start [flags of berth dev]     stops when something is missing that only root can install
 *   node tools/setup.ts test                           goes on without; the tests say loudly what they leave out
 */
const needsRoot = 77
const [mode = 'start', ...flags] = process.argv.slice(2)
const { values } = parseArgs({
  args: flags,
  strict: false,
  options: { 'data-dir': { type: 'string' }, hypervisor: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
})
const simulated = (values.hypervisor ?? process.env.BERTH_HYPERVISOR) === 'simulated'
const isRoot = process.getuid?.() === 0

if (mode === 'test') {
  if (isRoot && (await installPackages())) await ensureMicro(join(import.meta.dirname, '../.berth-test'))
} else if (!simulated && values.help !== true && !flags.includes('--down')) {
  if (!(await installPackages())) process.exit(needsRoot)
  const data = values['data-dir'] ?? process.env.BERTH_DATA_DIR ?? './.berth'
  if (isRoot && typeof data === 'string') await ensureMicro(resolve(data))
}

/** True when everything is there afterwards. */
async function installPackages(): Promise<boolean> {
  const packages = [...runtimePackages, ...hostPackages.micro, ...(mode === 'test' ? testPackages : [])]
  return (await ensurePackages(packages, { say: (line) => console.log(line) })).length === 0
}

async function ensureMicro(data: string): Promise<void> {
  const there = await access(join(dataPaths(data).images, 'micro.json')).then(
    () => true,
    () => false,
  )
  if (there) return
  console.log('Building the guest image `micro` from Debian packages (once) ...')
  const berth = join(import.meta.dirname, '../berth')
  const { status } = spawnSync(berth, ['image', 'build', 'micro', '--data-dir', data], { stdio: 'inherit' })
  if (status !== 0) throw new Error('the image micro could not be built; the message above says why')
}
