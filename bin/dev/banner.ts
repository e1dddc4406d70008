import type { HostDriver } from '@berth/agent/host-driver.ts'
import type { PublicPoolConfig } from '@berth/server/config.ts'

/** What `berth dev` says once it is up: where, on what, with which images, and a request to paste. Pure. */
export function renderBanner(about: {
  url: string
  dataDirectory: string
  /** URL of a PostgreSQL database, undefined for SQLite in the data directory. */
  database: string | undefined
  driver: Pick<HostDriver, 'hypervisor' | 'accelerator'>
  images: readonly string[]
  publicPools: readonly PublicPoolConfig[]
  /** Interface that public addresses are announced on, undefined for none. */
  publicInterface: string | undefined
  seconds: number
}): string {
  const { hypervisor, accelerator } = about.driver
  const image = about.images.includes('micro') ? 'micro' : (about.images[0] ?? 'micro')
  const lines = [
    '',
    `  Berth is up after ${about.seconds.toFixed(1)} s`,
    '',
    `  API          ${about.url}`,
    `  hypervisor   ${hypervisor === 'simulated' ? 'SIMULATED: no instance is a real machine' : `qemu, ${accelerator.kind}`}`,
    ...(hypervisor === 'simulated' ? [] : [`               ${accelerator.reason}`]),
    `  images       ${describeImages(about)}`,
    `  public       ${describePublic(about)}`,
    ...(about.database === undefined ? [] : [`  database     ${withoutCredentials(about.database)}`]),
    `  data         ${about.dataDirectory}`,
    '',
    '  Create an instance:',
    '',
    `    curl -sS ${about.url}/v1/instances -H 'content-type: application/json' \\`,
    `      -d '{"metadata":{"name":"web-1"},"spec":{"type":"micro","image":"${image}","ssh_key_ids":["key-001"]}}'`,
    '',
    '  or: ./berth instance create --name web-1 --type micro --image micro --ssh-key key-001',
    '      ./berth ssh web-1',
    '',
    '  Ctrl-C stops the server and leaves instances running; ./berth dev --down stops and removes them all.',
    '',
  ]
  return `${lines.join('\n')}\n`
}

function describePublic({
  driver,
  publicPools,
  publicInterface,
}: Pick<Parameters<typeof renderBanner>[0], 'driver' | 'publicPools' | 'publicInterface'>): string {
  const pools = publicPools.map(({ name, cidr }) => `${cidr} (${name})`).join(', ')
  if (driver.hypervisor === 'simulated') return `${pools}, simulated`
  return publicInterface === undefined
    ? `${pools}, reached from this machine only; see --public-interface`
    : `${pools}, announced on ${publicInterface}`
}

function describeImages({
  driver,
  images,
}: {
  driver: Pick<HostDriver, 'hypervisor'>
  images: readonly string[]
}): string {
  if (driver.hypervisor === 'simulated') return 'all of the catalogue, simulated'
  return images.length === 0 ? 'none here yet; build one with: ./berth image build micro' : images.join(', ')
}

function withoutCredentials(database: string): string {
  const { protocol, host, pathname } = new URL(database)
  return `${protocol}//${host}${pathname}`
}
