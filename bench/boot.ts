import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { BareMachine } from './bare-machine.ts'
import { BerthUnderTest } from './berth-under-test.ts'
import { type BootTimes, median } from './figures.ts'
import { ms } from './table.ts'

/**
 * What Berth adds to a boot. In turn: an instance of `micro` through POST /v1/instances, and bare QEMU with the same
 * image, seed, network card and flags, its disk, seed and tap prepared before the clock starts. Both are timed from the
 * request (the exec of QEMU) to the kernel's first line and to the ready mark on the serial line.
 *
 *   npm run bench:boot [-- --pairs 7]
 *
 * Limit: Berth adds at most 300 ms and 5 % until ready, by the medians. Exits with 1 when it adds more.
 */
const limit = { milliseconds: 300, ratio: 1.05 }
const { values } = parseArgs({ options: { pairs: { type: 'string', default: '5' } } })
const pairs = Math.max(1, Number(values.pairs))
const work = await mkdtemp(join(tmpdir(), 'berth-bench-'))
const berth = await BerthUnderTest.start(work)
try {
  const rows: { berth: BootTimes; bare: BootTimes }[] = []
  await berth.boot() // not counted: fills the page cache for both
  console.log('pair   berth: vmm  kernel   ready   |   bare: kernel   ready   (ms after the request)')
  for (let pair = 1; pair <= pairs; pair++) {
    const row = { berth: await berth.boot(), bare: await new BareMachine(work, berth.accelerator).boot() }
    rows.push(row)
    const figures = [row.berth.vmm, row.berth.kernel, row.berth.ready, row.bare.kernel, row.bare.ready]
    const [vmm, kernel, ready, bareKernel, bareReady] = figures.map((ms) => String(Math.round(ms)).padStart(7))
    console.log(`${String(pair).padStart(4)}   ${vmm} ${kernel} ${ready}   |       ${bareKernel} ${bareReady}`)
  }
  const of = (pick: (row: { berth: BootTimes; bare: BootTimes }) => number) => median(rows.map(pick))
  const [ready, bareReady] = [of((row) => row.berth.ready), of((row) => row.bare.ready)]
  console.log(`\nmedian until QEMU runs   berth ${ms(of((row) => row.berth.vmm))}`)
  const kernel = of((row) => row.berth.kernel)
  const bareKernel = of((row) => row.bare.kernel)
  console.log(`median until kernel      berth ${ms(kernel)}, bare ${ms(bareKernel)}`)
  console.log(`median until ready       berth ${ms(ready)}, bare ${ms(bareReady)}`)
  const paired = median(rows.map((row) => row.berth.ready - row.bare.ready))
  console.log(`paired difference        ${ms(paired)} (median of ready, pair by pair)`)
  const met = ready - bareReady <= limit.milliseconds && ready / bareReady <= limit.ratio
  const overhead = `${ms(ready - bareReady)}, ratio ${(ready / bareReady).toFixed(3)}`
  console.log(
    `Berth adds               ${overhead} (limit ${limit.milliseconds} ms and ${limit.ratio}): ${met ? 'met' : 'MISSED'}`,
  )
  process.exitCode = met ? 0 : 1
} finally {
  await berth.stop()
  await rm(work, { recursive: true, force: true })
}
