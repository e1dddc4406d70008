import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CliStack, expectGolden } from '@berth/cli/testing/cli-stack.ts'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

let stack: CliStack
beforeEach(async () => {
  stack = await CliStack.start()
})
afterEach(() => stack.stop())

/** Users before what they use, and two groups that name each other: the order is for `apply` to find. */
const shop = `
kind: Instance
metadata: { name: web-1, labels: &labels { app: shop } }
spec:
  type: micro
  image: micro
  subnet_id: subnet-shop
  security_groups: [sg-front, sg-back]
  ssh_key_ids: [key-shop]
---
kind: SecurityGroup
id: sg-front
metadata: { name: front, labels: { app: shop } }
spec:
  description: what users see
  rules:
    - { direction: ingress, protocol: tcp, port_from: 443, remote: { cidr: 0.0.0.0/0 }, description: "" }
    - { direction: egress, protocol: tcp, port_from: 80, remote: { security_group: sg-back }, description: "" }
---
kind: SecurityGroup
id: sg-back
metadata: { labels: { app: shop } }
spec:
  rules:
    - { direction: ingress, protocol: tcp, port_from: 80, remote: { security_group: sg-front } }
---
kind: Subnet
id: subnet-shop
metadata: { labels: { app: shop } }
spec: { vpc_id: vpc-shop, cidr: 10.20.1.0/24 }
---
kind: Vpc
id: vpc-shop
metadata: { name: shop, labels: { app: shop } }
spec: { cidr: 10.20.0.0/16 }
---
kind: SshKey
id: key-shop
metadata: { labels: { app: shop } }
spec:
  public_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHT0Zz0VZ0d4eG9vb29vb29vb29vb29vb29vb29vb29v laptop
`
const apply = (text: string, ...more: string[]) =>
  stack.run(['apply', '-f', '-', '--no-wait', ...more], { stdin: text })
const json = async (...argv: string[]) => JSON.parse((await stack.run([...argv, '-o', 'json'])).stdout)
const results = (stdout: string): string[] =>
  stdout
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(/ {2,}/)[0] ?? '')

describe('apply', () => {
  test('makes what is declared in the order it takes, and finds nothing to do the second time', async () => {
    const plan = await apply(shop, '--dry-run')
    expect((await stack.run(['vpc', 'show', 'vpc-shop'])).code).toBe(4)
    const first = await apply(shop)
    const second = await apply(shop)
    expect([plan.code, first.code, second.code]).toEqual([0, 0, 0])
    expect(results(plan.stdout)).toEqual(Array(6).fill('create'))
    expect(results(first.stdout)).toEqual(Array(6).fill('created'))
    expect(results(second.stdout)).toEqual(Array(6).fill('unchanged'))
    const tabbed = shop.replace(/public_key: (\S+) (\S+) (.*)/, 'public_key: "$1\\t$2  $3\\r\\n"')
    expect(tabbed).toContain('\\t')
    expect(results((await apply(tabbed)).stdout)).toEqual(Array(6).fill('unchanged'))
    expect((await json('security-group', 'show', 'sg-front')).spec.rules).toHaveLength(2)
    expect((await json('instance', 'list')).items).toHaveLength(1)
    await expectGolden('apply', plan, first, second)
  })

  test('changes what may be changed and leaves what is not declared', async () => {
    await apply(shop)
    await stack.run(['vpc', 'update', 'vpc-shop', '--name', 'other'])
    const changed = await apply(`
kind: Instance
metadata: { name: web-1, labels: { app: shop, env: prod } }
spec: { type: micro, image: micro, security_groups: [sg-back] }
---
kind: SecurityGroup
id: sg-back
metadata: { labels: {} }
spec: { description: new, rules: [] }
---
kind: Vpc
id: vpc-shop
spec: {}
`)
    expect(changed.code).toBe(0)
    expect((await json('instance', 'show', 'web-1')).spec.security_groups).toEqual(['sg-back'])
    const group = await json('security-group', 'show', 'sg-back')
    expect([group.metadata.labels, group.spec]).toEqual([{}, { description: 'new', rules: [] }])
    expect((await json('vpc', 'show', 'vpc-shop')).metadata).toMatchObject({ name: 'other', labels: { app: 'shop' } })
    await expectGolden('apply-changes', changed)
  })

  test('makes, attaches and detaches a public address, and turns their assignment on and off', async () => {
    await apply(shop)
    const { id } = await json('instance', 'show', 'web-1')
    const declared = (instance: string, assign: boolean) => `
kind: PublicIp
id: pip-shop
metadata: { labels: { app: shop } }
spec: { pool: default, instance_id: "${instance}" }
---
kind: Subnet
id: subnet-shop
spec: { vpc_id: vpc-shop, cidr: 10.20.1.0/24, auto_assign_public_ip: ${assign} }
`
    for (const [instance, assign, expected] of [
      ['', true, ['updated', 'created']],
      [id, true, ['unchanged', 'updated']],
      [id, true, ['unchanged', 'unchanged']],
      ['', false, ['updated', 'updated']],
    ] as const) {
      const applied = await apply(declared(instance, assign))
      expect([applied.code, results(applied.stdout)], applied.stderr).toEqual([0, expected])
      expect((await json('public-ip', 'show', 'pip-shop')).spec.instance_id).toBe(instance)
      expect((await json('subnet', 'show', 'subnet-shop')).spec.auto_assign_public_ip).toBe(assign)
    }
    expect((await apply(declared('', false).replace('default', 'lab'))).code).toBe(5)
    expect((await apply(shop, '--prune', '-l', 'app=shop')).code).toBe(0)
    expect((await stack.run(['public-ip', 'show', 'pip-shop'])).code).toBe(4)
  })

  test('touches nothing when something cannot be changed, and says what', async () => {
    await apply(shop)
    const text = shop
      .replace('10.20.0.0/16', '10.30.0.0/16')
      .replace('type: micro', 'type: cx31')
      .replace('what users see', 'changed')
    const run = await apply(text)
    expect(run.code).toBe(5)
    expect((await json('security-group', 'show', 'sg-front')).spec.description).toBe('what users see')
    await expectGolden('apply-impossible', run, await apply(text, '--dry-run'))
  })

  test('an image is made before the instance that needs it, cannot get other bytes, and goes after it', async () => {
    const text = `
kind: Instance
metadata: { name: based, labels: { app: based } }
spec: { type: micro, image: team-base }
---
kind: Image
id: team-base
metadata: { labels: { app: based } }
spec:
  source_url: https://images.example/base.qcow2
  sha256: ${'ab'.repeat(32)}
  min_disk_gb: 1
  default_user: admin
`
    const made = await apply(text)
    expect({ code: made.code, stderr: made.stderr }).toMatchObject({ code: 0 })
    expect(results(made.stdout)).toEqual(['created', 'created'])
    expect(results((await apply(text)).stdout)).toEqual(['unchanged', 'unchanged'])
    // the same checksum, as others write it
    const sums = ['sha256: ABAB', 'checksum: sha256:abab', 'checksum: abab'].map((sum) =>
      text.replace('sha256: abab', sum),
    )
    for (const same of sums) expect(results((await apply(same)).stdout)).toEqual(['unchanged', 'unchanged'])
    expect((await apply(text.replace('app: based } }\nspec:\n  source', 'env: a } }\nspec:\n  source'))).code).toBe(0)
    expect((await json('image', 'show', 'team-base')).metadata.labels).toEqual({ env: 'a' })
    const other = await apply(text.replace('abab', 'cdcd'))
    expect(other.code).toBe(5)
    expect(other.stdout + other.stderr).toContain('spec.sha256')
    await apply(text)
    const removed = async () =>
      stack.host.report(await stack.host.wanted(({ power }) => power === 'deleted'), { power: 'absent' })
    await stack.host.report(await stack.host.wanted(), stack.host.running('true'))
    const argv = ['apply', '-f', '-', '--prune', '-l', 'app=based']
    const pruned = await stack.run(argv, { stdin: 'kind: Vpc\nid: vpc-abc123\n', onWait: [removed] })
    expect({ code: pruned.code, stderr: pruned.stderr }).toMatchObject({ code: 0 })
    expect((await stack.run(['image', 'show', 'team-base'])).code).toBe(4)
    expect((await stack.run(['image', 'delete', 'micro'])).code).toBe(5)
  })

  test('--prune deletes what the selector matches and no file declares, and nothing else', async () => {
    await apply(shop)
    await stack.run(['vpc', 'create', '--id', 'vpc-other', '--cidr', '10.40.0.0/16', '--label', 'app=other'])
    const kept = 'kind: Vpc\nid: vpc-shop\n'
    const plan = await apply(kept, '--prune', '-l', 'app=shop', '--dry-run')
    await stack.host.report(await stack.host.wanted(), stack.host.running('true'))
    const removed = async () =>
      stack.host.report(await stack.host.wanted(({ power }) => power === 'deleted'), { power: 'absent' })
    const run = await stack.run(['apply', '-f', '-', '--prune', '-l', 'app=shop'], { stdin: kept, onWait: [removed] })
    expect(run.code).toBe(0)
    expect((await json('vpc', 'list', '-l', 'app')).items.map(({ id }: { id: string }) => id)).toEqual([
      'vpc-other',
      'vpc-shop',
    ])
    expect((await stack.run(['instance', 'list', '-q'])).stdout).toBe('')
    await expectGolden('apply-prune', plan, run)
  })

  test('waits until new instances run, or are ready', async () => {
    const one = 'kind: Instance\nmetadata: {name: web-1}\nspec: {type: micro, image: micro}\n'
    const boot = async () => stack.host.report(await stack.host.wanted(), stack.host.running('unknown'))
    const ready = async () => stack.host.report(await stack.host.wanted(), stack.host.running('true'))
    const run = await stack.run(['apply', '-f', '-', '--wait', 'ready'], { stdin: one, onWait: [boot, ready] })
    expect(run).toMatchObject({ code: 0 })
    const late = await stack.run(['apply', '-f', '-', '--timeout', '4'], { stdin: one.replace('web-1', 'web-2') })
    expect(late.code).toBe(6)
  })

  test('makes a new instance beside one that is being deleted', async () => {
    const id = await stack.createReady('web-1')
    await stack.run(['instance', 'delete', id, '--no-wait'])
    const run = await apply('kind: Instance\nmetadata: {name: web-1}\nspec: {type: micro, image: micro}\n', '-q')
    expect(run.code).toBe(0)
    expect(run.stdout.trim()).not.toBe(id)
  })

  test('does not choose between instances of one name', async () => {
    await stack.create('twin')
    await stack.create('twin')
    const run = await apply('kind: Instance\nmetadata: {name: twin}\nspec: {type: micro, image: micro}\n')
    expect(run).toMatchObject({ code: 5, stdout: '' })
  })

  test('refuses a version that somebody else changed after the plan', async () => {
    const text = 'kind: Vpc\nid: vpc-abc123\nmetadata: {name: mine}\n'
    const run = await stack.run(['apply', '-f', '-'], {
      stdin: text,
      fetch: async (input, init) => {
        const request = new Request(input, init)
        if (request.method === 'PATCH') await stack.run(['vpc', 'update', 'vpc-abc123', '--name', 'theirs'])
        return fetch(request)
      },
    })
    expect(run.code).toBe(5)
    expect(run.stdout).toMatch(/failed +Vpc +vpc-abc123/)
    expect((await json('vpc', 'show', 'vpc-abc123')).metadata.name).toBe('theirs')
  })

  test('names the line of each fault before anything is done, and what was done when the server finds one', async () => {
    const faulty = [
      'kind: Network\nid: a\n',
      'kind: Vpc\nspec: {cidr: 10.9.0.0/16}\n',
      'kind: Vpc\nid: vpc-a\nspec:\n  cidr: 10.9.0.0/16\n  region: here\n',
      'kind: Vpc\nid: vpc-a\n---\nkind: Vpc\nid: vpc-a\n',
      'kind: Instance\nid: inst-a\nmetadata: {name: a}\n',
      'kind: Instance\nspec: {type: micro}\n',
      'kind: Vpc\nid: vpc-a\nmetadata:\n  labels: {tier: 1}\n',
      'kind: Vpc\nid: vpc-a\nspec: 10.9.0.0/16\n',
      '# nothing\n',
      'a: [1',
    ]
    const runs = []
    for (const text of faulty) runs.push(await apply(text))
    expect(runs.map(({ code }) => code)).toEqual(faulty.map(() => 2))
    const half = await apply(
      'kind: Vpc\nid: vpc-a\nspec: {cidr: 10.9.0.0/16}\n---\nkind: Subnet\nid: subnet-a\nspec:\n  vpc_id: vpc-a\n  cidr: 10.8.0.0/24\n',
    )
    expect(half.code).toBe(2)
    await expectGolden('apply-faults', ...runs, half)
  })

  test('takes several files and refuses a huge one', async () => {
    const [a, b, huge] = ['a.yaml', 'b.json', 'huge.yaml'].map((name) => join(stack.directory, name))
    await writeFile(a ?? '', 'kind: Subnet\nid: subnet-a\nspec: {vpc_id: vpc-a, cidr: 10.9.1.0/24}\n')
    await writeFile(b ?? '', JSON.stringify({ kind: 'Vpc', id: 'vpc-a', spec: { cidr: '10.9.0.0/16' } }))
    await writeFile(huge ?? '', `a: ${'x'.repeat(1024 ** 2)}`)
    const run = await stack.run(['apply', '-f', a ?? '', '-f', b ?? ''])
    expect(run.code).toBe(0)
    expect(results(run.stdout)).toEqual(['created', 'created'])
    const refused = await stack.run(['apply', '-f', huge ?? ''])
    expect(refused).toMatchObject({ code: 2, stderr: `berth: ${huge} has more than 1048576 bytes\n` })
  })
})

describe('instance create -f', () => {
  const file = `kind: Instance
metadata:
  name: web-1
  labels: { env: prod, team: a }
spec:
  type: micro
  image: micro
  vcpus: 1
`
  const create = (text: string, ...more: string[]) =>
    stack.run(['instance', 'create', '-f', '-', '--no-wait', ...more], { stdin: text })

  test('takes the document of the file, and options in place of its fields', async () => {
    const plain = await create(file, '-o', 'json')
    expect(JSON.parse(plain.stdout)).toMatchObject({
      metadata: { name: 'web-1', labels: { env: 'prod', team: 'a' } },
      spec: { type: 'micro', vcpus: 1 },
    })
    const changed = await create(file, '--name', 'web-2', '--label', 'env=test', '--vcpus', '2', '-o', 'json')
    expect(JSON.parse(changed.stdout)).toMatchObject({
      metadata: { name: 'web-2', labels: { env: 'test', team: 'a' } },
      spec: { type: 'micro', vcpus: 2 },
    })
    expect((await create('{"spec": {"type": "micro", "image": "micro"}}')).code).toBe(0)
  })

  test('tells of faults with the line of the file, but not of what an option says', async () => {
    const runs = [
      await create(file.replace('vcpus', 'vcpu')),
      await create(`${file}  memory_mb: lots\n  ssh_key_ids:\n    - key-001\n    - key-none\n`),
      await create('spec:\n  type: micro\n'),
      await create(file, '--type', 'huge'),
      await create(`${file}---\n${file}`),
      await create('kind: Vpc\nid: vpc-a\n'),
      await create('metadata: web-1\nspec: {}\n'),
      await create(''),
      await create(file, '--user-data-file', '-'),
    ]
    expect(runs.map(({ code }) => code)).toEqual(runs.map(() => 2))
    await expectGolden('create-file-faults', ...runs)
  })
})
