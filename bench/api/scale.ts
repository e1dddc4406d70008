import { join } from 'node:path'
import { median } from '../figures.ts'
import { type Figure, mib, ms } from '../table.ts'
import type { Bench } from './bench.ts'
import { type Fleet, startFleet, startServerProcess } from './fleet.ts'
import { exchangeOnce, getRequest } from './http-load.ts'

interface Memory {
  /** Bytes: all that is resident, the process's own, and pages of files, which the kernel takes back when it needs them. */
  resident: number
  own: number
  mapped: number
}

/** Memory and start-up with many instances, after every one of them was listed, which keeps their documents. */
export async function measureScale(bench: Bench): Promise<Figure[]> {
  const many = await startFleet({ directory: join(bench.directory, 'scale'), instances: bench.instances })
  const few = await startFleet({ directory: join(bench.directory, 'scale-few'), instances: 1000 })
  const memory: { many: Memory; few: Memory } = { many: await afterListing(many), few: await afterListing(few) }
  await many.stop()
  await few.stop()
  const starts: { many: number; few: number }[] = []
  for (let round = 0; round < (bench.quick ? 3 : 5); round++) {
    starts.push({ many: await startUp(many.database), few: await startUp(few.database) })
  }
  const start = median(starts.map((round) => round.many))
  const startFew = median(starts.map((round) => round.few))
  const { resident, own, mapped } = memory.many
  return [
    {
      name: `memory of the server, ${bench.instances} instances`,
      measured: `${mib(resident)} (own ${mib(own)}, files ${mib(mapped)})`,
      comparedWith: `${mib(memory.few.resident)} (own ${mib(memory.few.own)}) with 1000`,
      ratio: resident / memory.few.resident,
      limit: '≤ 512 MiB',
      met: resident <= 512 * 1024 ** 2,
    },
    {
      name: `start until /readyz, ${bench.instances} instances`,
      measured: ms(start),
      comparedWith: `${ms(startFew)} with 1000`,
      ratio: start / startFew,
      limit: '≤ 3000 ms',
      met: start <= 3000,
    },
  ]
}

async function startUp(database: string): Promise<number> {
  const { server, readyMs } = await startServerProcess(database)
  await server.stop()
  return readyMs
}

/** Page through all instances once, then look at the memory. */
async function afterListing({ url, server, ids }: Fleet): Promise<Memory> {
  let path = '/v1/instances'
  let seen = 0
  for (;;) {
    const { status, body } = await exchangeOnce(url, getRequest(url, path))
    if (status !== 200) throw new Error(`${path} answered ${status}`)
    const page: { items: unknown[]; next_cursor?: string } = JSON.parse(body.toString())
    seen += page.items.length
    if (page.next_cursor === undefined) break
    path = `/v1/instances?cursor=${page.next_cursor}`
  }
  if (seen !== ids.length) throw new Error(`${seen} of ${ids.length} instances were listed`)
  return server.ask<Memory>('memory')
}
