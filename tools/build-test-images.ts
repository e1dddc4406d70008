import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

/** Build the images that are named, afresh, where the tests look for them. Outside the test host: it needs a mirror. */
const root = join(import.meta.dirname, '..')
for (const id of process.argv.slice(2)) {
  console.log(`building ${id} ...`)
  const args = ['image', 'build', id, '--data-dir', join(root, '.berth-test')]
  const { status } = spawnSync(join(root, 'berth'), args, { stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}
