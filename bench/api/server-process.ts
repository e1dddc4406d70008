import { readFile } from 'node:fs/promises'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import type { HostCredential } from '@berth/server/config.ts'
import { startServer } from '@berth/server/main.ts'
import { pino } from 'pino'
import { loadInstanceTypes } from '../../bin/catalogues.ts'
import { serveParent } from './child.ts'
import { Profile } from './profile.ts'

export interface ServerArgument {
  database: string
  hosts: readonly HostCredential[]
}

const image: CatalogueImage = {
  id: 'ubuntu-22.04',
  title: 'Ubuntu 22.04',
  min_disk_gb: 1,
  architecture: 'x86_64',
  default_user: 'ubuntu',
  network: 'static',
  source_url: 'https://images.example/ubuntu-22.04.img',
}

/** The server as `berth dev` starts it, alone in its process. */
await serveParent<ServerArgument>(async ({ database, hosts }) => {
  const log = pino({ level: 'warn' }, pino.destination({ dest: 2, sync: true }))
  const server = await startServer(
    {
      listen: { host: '127.0.0.1', port: 0 },
      database,
      hosts,
      images: [image],
      instanceTypes: await loadInstanceTypes(),
      // the seeded hosts have no agents to speak for them; nothing is placed on them, as they are full
      settings: { hostUnreachableMs: 3_600_000 },
    },
    log,
  )
  const profile = new Profile()
  return {
    ready: { url: server.url },
    answers: {
      memory: async () => memory(),
      startProfile: async () => profile.start(),
      stopProfile: async () => profile.stop(),
    },
    stop: () => server.stop(),
  }
})

/** Resident memory of this process by its kind, bytes (https://man7.org/linux/man-pages/man5/proc_pid_status.5.html). */
async function memory() {
  const status = await readFile('/proc/self/status', 'utf8')
  const bytes = (field: string) =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? Number.NaN) * 1024
  return { resident: bytes('VmRSS'), own: bytes('RssAnon'), mapped: bytes('RssFile') + bytes('RssShmem') }
}
