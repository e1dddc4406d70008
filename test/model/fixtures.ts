import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Ledger } from '@berth/agent/ledger.ts'
import { defaultSettings } from '@berth/server/config.ts'
import type { Context } from '@berth/server/context.ts'
import { ensureExampleResources } from '@berth/server/domain/example-resources.ts'
import { registerHosts } from '@berth/server/domain/hosts/reports.ts'
import { parsePublicPools } from '@berth/server/domain/networks/public-pools.ts'
import { EventFeed } from '@berth/server/feed/event-feed.ts'
import { WaitSlots } from '@berth/server/feed/waiting.ts'
import { ServerMetrics } from '@berth/server/metrics/server-metrics.ts'
import { Readiness } from '@berth/server/readiness.ts'
import { insertSubnet } from '@berth/server/store/networks/subnets.ts'
import { Store } from '@berth/server/store/store.ts'
import { pino } from 'pino'
import { loadInstanceTypes } from '../../bin/catalogues.ts'
import { testImages, testPublicKey } from '../stack.ts'
import { Apis } from './api.ts'
import { Databases } from './databases.ts'

/** The two hosts of every schedule. */
export const hostIds = ['host-0000000000000000000a', 'host-0000000000000000000b'] as const

/** What each host offers: little, so that instances are refused and room is used again. */
export const capacities = [
  { vcpus: 4, memory_mb: 5120, disk_gb: 60 },
  { vcpus: 3, memory_mb: 1024, disk_gb: 60 },
] as const

/** A subnet in which three addresses are left, so that they run out and are used again. */
export const smallSubnet = { id: 'subnet-small', vpcId: 'vpc-abc123', cidr: '10.0.2.0/28', addresses: 3 } as const

/** A pool with six addresses: most instances come with one, clients allocate others, and they run out. */
export const publicPool = { name: 'test', cidr: '203.0.113.0/29', addresses: 6 } as const

/** Where servers and agents log; nowhere, unless BERTH_TEST_LOG says otherwise. */
export const silent = pino({ level: process.env.BERTH_TEST_LOG ?? 'silent' })

/** Images and types that there are. */
export type Catalogues = Pick<Context, 'images' | 'instanceTypes' | 'publicPools'>

/** What all schedules of a run share. */
export interface Resources {
  databases: Databases
  apis: Apis
  catalogues: Catalogues
  /** Make the file of a ledger that nobody has written to; whoever uses it removes it. */
  newLedger(): string
  close(): Promise<void>
}

/** Make them, in a directory of their own: in memory where that is possible, as schedules are many and sync often. */
export async function makeResources(): Promise<Resources> {
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'berth-model-'))
  const catalogues: Catalogues = {
    images: new Map(testImages.map((image) => [image.id, image])),
    instanceTypes: new Map((await loadInstanceTypes()).map((type) => [type.id, type])),
    publicPools: parsePublicPools([publicPool]),
  }
  const serverTemplate = join(directory, 'template-server.db')
  await makeServerTemplate(serverTemplate, catalogues)
  const databases = new Databases(directory, serverTemplate)
  const apis = new Apis()
  const template = join(directory, 'template-ledger.db')
  new Ledger(template).close()
  let ledgers = 0
  return {
    databases,
    apis,
    catalogues,
    newLedger() {
      const file = join(directory, `ledger-${++ledgers}.db`)
      copyFileSync(template, file)
      return file
    },
    async close() {
      await apis.close()
      await databases.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Figures that nobody reads: one for all schedules, since to make them costs more than a schedule. */
const metrics = new ServerMetrics()

/** What the domain works with, on a store. */
export async function contextOn(
  store: Store,
  now: () => number,
  settings: Context['settings'],
  catalogues: Catalogues,
): Promise<Context> {
  return {
    store,
    feed: await EventFeed.open(store, silent),
    log: silent,
    metrics,
    readiness: new Readiness(store, settings.readyBoundMs),
    requestId: '',
    now,
    settings,
    waitSlots: new WaitSlots(settings.limits.waits),
    ...catalogues,
  }
}

/** Make a database with the resources that schedules use. */
async function makeServerTemplate(file: string, catalogues: Catalogues): Promise<void> {
  const store = await Store.open(file)
  const ctx = await contextOn(store, () => 1, defaultSettings, catalogues)
  await ensureExampleResources(ctx, testPublicKey)
  await registerHosts(ctx, hostIds)
  await store.write((tx) =>
    insertSubnet(tx, {
      id: smallSubnet.id,
      name: 'small',
      labels: {},
      created_at: 1,
      vpc_id: smallSubnet.vpcId,
      cidr: smallSubnet.cidr,
      next_offset: 2 ** 4 - 1 - smallSubnet.addresses,
      auto_assign_public_ip: 1,
    }),
  )
  await store.close()
}
