import { CliStack, expectGolden } from '@berth/cli/testing/cli-stack.ts'
import type { FakeHost, InstanceReport } from '@berth/cli/testing/fake-host.ts'
import type { DesiredInstance, ObservedImage } from '@berth/contract/hosts/agent-protocol.ts'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

let stack: CliStack
let host: FakeHost
beforeEach(async () => {
  stack = await CliStack.start()
  host = stack.host
})
afterEach(() => stack.stop())

const create = ['instance', 'create', '--name', 'web-1', '--type', 'micro', '--image', 'micro']

/** A report of the newest instance, once the host has its intent and `when` holds of it. */
const report = (made: () => InstanceReport, when?: (instance: DesiredInstance) => boolean) => async () => {
  await host.report(await host.wanted(when), made())
}

const downloading = (received: number): ObservedImage => ({
  id: 'ubuntu-22.04',
  state: 'downloading',
  received_bytes: received,
  total_bytes: null,
  reason: '',
  image: null,
})

/** A create from the first report to a guest that is ready, one report a request. */
const boot = () => [
  report(() => ({ power: 'starting', steps: [host.step('image', 0, null)] })),
  () => host.reportImages([downloading(1.5 * 1024 ** 2)]),
  () => host.reportImages([downloading(150 * 1024 ** 2)]),
  report(() => ({ power: 'starting', steps: [host.step('image', 6000, 5000), host.step('disk', 1000, null)] })),
  report(() => host.running('unknown')),
  async () => undefined,
  report(() => host.running('true')),
]

const ubuntu = create.map((word, i) => (i === create.length - 1 ? 'ubuntu-22.04' : word))

describe('a create that is waited for', () => {
  test('shows each step once as it ends where there is no terminal', async () => {
    const run = await stack.run(ubuntu, { onWait: boot() })
    expect(run.code).toBe(0)
    await expectGolden('create-log', run)
  })

  test('draws the steps anew in place on a terminal', async () => {
    const run = await stack.run(ubuntu, { onWait: boot(), tty: true })
    expect(run.code).toBe(0)
    await expectGolden('create-terminal', run)
  })

  test('prints the document alone on standard output with -o json', async () => {
    const run = await stack.run([...ubuntu, '-o', 'json'], { onWait: boot() })
    const document = JSON.parse(run.stdout)
    expect(document.status.state).toBe('running')
    expect(document).toEqual(await (await fetch(`${stack.url}/v1/instances/${document.id}`)).json())
  })

  test('ends with running CPUs when that is what is waited for', async () => {
    const run = await stack.run([...create, '--wait', 'running'], { onWait: [report(() => host.running('unknown'))] })
    expect(run.code).toBe(0)
    expect(run.stdout).toMatch(/web-1 +running +- /)
  })

  test('warns of an instance that no public address was left for', async () => {
    const headers = { 'content-type': 'application/json' }
    const take = () => fetch(`${stack.url}/v1/public-ips`, { method: 'POST', headers, body: '{}' })
    const statuses = (await Promise.all(Array.from({ length: 255 }, take))).map(({ status }) => status)
    expect(statuses.filter((status) => status !== 201)).toEqual([422])
    const run = await stack.run([...create, '--wait', 'running'], { onWait: [report(() => host.running('unknown'))] })
    expect(run.code).toBe(0)
    expect(run.stderr).toContain(
      'warning: no public address: Pool default (203.0.113.0/24) has no free public address.\n',
    )
  })

  test('fails with code, message and hint of the operation', async () => {
    const message = 'image micro has a recipe but is not built; run: berth image build micro'
    const failed = () => ({
      off_cause: 'host' as const,
      steps: [host.step('image', 300, 300, { status: 'failed', error: { code: 'image_not_built', message } })],
      failure: { code: 'image_not_built', message, retryable: false },
    })
    const run = await stack.run(create, { onWait: [report(failed)] })
    expect(run).toMatchObject({ code: 1, stdout: '' })
    await expectGolden('create-failed', run)
  })

  test('tells of attempts that failed', async () => {
    const error = { code: 'network_failed', message: 'nft is busy' }
    const retrying = () => ({
      power: 'starting' as const,
      steps: [host.step('image', 9, 1), host.step('disk', 8, 1), host.step('network', 7, null, { attempt: 2, error })],
    })
    const run = await stack.run(create, { onWait: [report(retrying), ...boot().slice(4)] })
    expect(run.stderr).toContain('… attempt 2, after: nft is busy\n')
    expect(run.code).toBe(0)
  })

  test('fails when the first-boot script failed, with the end of its output and no escape sequences', async () => {
    const output = 'user_data failed with exit code 3: one\n\u001b[31mtwo\u001b[0m'
    const run = await stack.run(create, { onWait: [report(() => host.running('false', output))] })
    expect(run).toMatchObject({ code: 1, stdout: '' })
    await expectGolden('user-data-failed', run)
  })

  test('fails when no host is large enough', async () => {
    const abandoned = async () => {
      const list = (await (await fetch(`${stack.url}/v1/operations`)).json()) as { items: { id: string }[] }
      await fetch(`${stack.url}/v1/operations/${list.items[0]?.id}?wait=20`)
    }
    const run = await stack.run([...create, '--memory-mb', '32768'], { onWait: [abandoned] })
    expect(run.code).toBe(1)
    await expectGolden('create-too-large', run)
  })

  test('fails when somebody deletes the instance meanwhile', async () => {
    const deleted = async () => {
      const { id } = await host.wanted()
      await fetch(`${stack.url}/v1/instances/${id}`, { method: 'DELETE' })
    }
    const run = await stack.run(create, { onWait: [deleted] })
    expect(run.code).toBe(1)
    expect(run.stderr).toMatch(/instance\.create of web-1 \(inst-\w+\) cancelled: superseded: /)
  })

  test('gives up after its timeout, with what it waits for', async () => {
    await stack.createReady('big', '--memory-mb', '16384')
    const refused = async () => {
      for (;;) {
        const response = await fetch(`${stack.url}/v1/instances?name=web-1`)
        if ((await response.text()).includes('no_host_has_room')) return
      }
    }
    const run = await stack.run([...create, '--timeout', '3'], { onWait: [refused] })
    expect(run).toMatchObject({ code: 6, stdout: '' })
    await expectGolden('create-timeout', run)
  })

  test('says that it goes on when the user gives up', async () => {
    const interrupted = new AbortController()
    const run = await stack.run(create, {
      signal: interrupted.signal,
      onWait: [async () => undefined, async () => interrupted.abort()],
    })
    expect(run.code).toBe(130)
    expect(run.stderr).toMatch(
      /interrupted; what was asked for goes on\n {2}see how: berth operation show op-\w{20}\n$/,
    )
  })

  test('survives a restart of the server, but not its absence', async () => {
    let failures = 0
    const flaky =
      (least: number): typeof fetch =>
      (input, init) => {
        const waits = input instanceof Request && input.url.includes('wait')
        if (!waits || failures++ >= least) return fetch(input, init)
        return Promise.reject(
          new TypeError('fetch failed', { cause: Object.assign(new Error(), { code: 'ECONNREFUSED' }) }),
        )
      }
    const [first, ...others] = boot()
    const again = [first, async () => undefined, async () => undefined, ...others].filter((step) => step !== undefined)
    const survived = await stack.run(ubuntu, { onWait: again, fetch: flaky(2) })
    expect(survived.stderr.match(/the server does not answer; trying again/g)).toHaveLength(1)
    expect(survived.code).toBe(0)
    failures = 0
    const absent = await stack.run(create, { fetch: flaky(1000) })
    expect(absent.code).toBe(69)
    expect(absent.stderr).toContain('connection refused')
  })
})

describe('actions that are waited for', () => {
  test('stop, start, reboot and delete, each to its end', async () => {
    await stack.createReady('web-1')
    const off = () => ({ off_cause: 'host' as const, steps: [host.step('shutdown', 2500, 2500)] })
    const stopped = await stack.run(['instance', 'stop', 'web-1', '--grace-seconds', '7'], {
      onWait: [report(off, ({ power, grace_seconds: grace }) => power === 'stopped' && grace === 7)],
    })
    const started = await stack.run(['instance', 'start', 'web-1', '--wait', 'ready'], {
      onWait: [
        report(
          () => host.running('unknown'),
          ({ power }) => power === 'running',
        ),
        report(() => host.running('true')),
      ],
    })
    const rebooted = await stack.run(['instance', 'reboot', 'web-1', '--force'], {
      onWait: [
        report(
          () => host.running('unknown'),
          ({ reboots }) => reboots.count === 1,
        ),
      ],
    })
    const gone = () => ({ power: 'absent' as const, steps: [host.step('clean-up', 100, 100)] })
    const deleted = await stack.run(['instance', 'delete', 'web-1'], {
      onWait: [report(gone, ({ power }) => power === 'deleted')],
    })
    await expectGolden('actions', stopped, started, rebooted, deleted)
  })

  test('--no-wait prints the id of the operation, which can be waited for', async () => {
    await stack.createReady('web-1')
    const accepted = await stack.run(['instance', 'stop', 'web-1', '--no-wait'])
    expect(accepted).toMatchObject({ code: 0, stderr: '' })
    expect(accepted.stdout).toMatch(/^op-\w{20}\n$/)
    const id = accepted.stdout.trim()
    const early = await stack.run(['operation', 'wait', id, '--timeout', '4'])
    expect(early.code).toBe(6)
    expect(early.stderr).toContain(`${id} is pending after 4 s`)
    const off = report(
      () => ({ off_cause: 'host' }),
      ({ power }) => power === 'stopped',
    )
    expect(await stack.run(['operation', 'wait', id], { onWait: [off] })).toMatchObject({ code: 0, stderr: '' })
    const json = await stack.run(['instance', 'start', 'web-1', '--no-wait', '-o', 'json'])
    expect(Object.keys(JSON.parse(json.stdout))).toEqual(['operation_id'])
    await stack.run(['instance', 'stop', 'web-1', '--no-wait'])
    const cancelled = await stack.run(['operation', 'wait', JSON.parse(json.stdout).operation_id])
    expect(cancelled.code).toBe(1)
  })
})

describe('instance wait', () => {
  test('answers when the state is reached', async () => {
    const id = await stack.create('web-1')
    const run = await stack.run(['instance', 'wait', 'web-1', '--for', 'ready'], {
      onWait: [report(() => host.running('unknown')), report(() => host.running('true'))],
    })
    expect(run).toMatchObject({ code: 0, stderr: '' })
    expect(run.stdout).toContain(id)
  })

  test('fails when the state cannot come any more', async () => {
    await stack.createReady('web-1')
    const guestOff = () => ({ ...host.running('unknown'), power: 'off' as const, off_cause: 'guest' as const })
    const run = await stack.run(['instance', 'wait', 'web-1', '--for', 'terminated', '--timeout', '1'])
    expect(run.code).toBe(6)
    await report(guestOff)()
    const impossible = await stack.run(['instance', 'wait', 'web-1', '--for', 'running'])
    expect(impossible.code).toBe(1)
    await expectGolden('wait', run, impossible)
  })
})
