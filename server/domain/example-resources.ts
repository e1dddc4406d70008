import type { SecurityGroupRule } from '@berth/contract/networks/security-groups.ts'
import { validationError } from '../api-error.ts'
import type { Context } from '../context.ts'
import { findSshKey, insertSshKey } from '../store/instances/ssh-keys.ts'
import { findSecurityGroup, insertSecurityGroup } from '../store/networks/security-groups.ts'
import { findSubnet, insertSubnet } from '../store/networks/subnets.ts'
import { findVpc, insertVpc } from '../store/networks/vpcs.ts'
import type { Transaction } from '../store/transaction.ts'
import { parsePublicKey } from './instances/public-key.ts'
import { firstOffset } from './networks/address-plan.ts'

const anywhere = (port: number, description: string): SecurityGroupRule => ({
  direction: 'ingress',
  protocol: 'tcp',
  port_from: port,
  port_to: port,
  remote: { cidr: '0.0.0.0/0' },
  description,
})

const allOut: SecurityGroupRule = {
  direction: 'egress',
  protocol: 'any',
  remote: { cidr: '0.0.0.0/0' },
  description: 'everything out',
}

/**
 * Make the resources that the example request of the contract names, where they are not there yet: `berth dev` has
 * them so that the example works as it stands. `publicKey` becomes key-001.
 */
export async function ensureExampleResources(ctx: Context, publicKey: string): Promise<void> {
  const parsed = parsePublicKey(publicKey)
  if ('fault' in parsed) throw validationError([{ pointer: '/spec/public_key', message: parsed.fault }])
  const common = { labels: {}, created_at: ctx.now() }
  await ctx.store.writeMakingRoom(async (tx) => {
    if ((await findVpc(tx.db, 'vpc-abc123')) === null) {
      await insertVpc(tx, { ...common, id: 'vpc-abc123', name: 'example', cidr: '10.0.0.0/16', is_default: 0 })
    }
    if ((await findSubnet(tx.db, 'subnet-def456')) === null) {
      const place = { vpc_id: 'vpc-abc123', cidr: '10.0.1.0/24', next_offset: firstOffset }
      const autoAssign = { auto_assign_public_ip: Number(ctx.publicPools.length > 0) }
      await insertSubnet(tx, { ...common, ...place, ...autoAssign, id: 'subnet-def456', name: 'example' })
    }
    await ensureSecurityGroup(tx, {
      ...common,
      id: 'sg-web',
      name: 'web',
      description: 'HTTP and HTTPS from anywhere',
      rules: [anywhere(80, 'http'), anywhere(443, 'https'), allOut],
    })
    await ensureSecurityGroup(tx, {
      ...common,
      id: 'sg-ssh',
      name: 'ssh',
      description: 'SSH from anywhere',
      rules: [anywhere(22, 'ssh'), allOut],
    })
    if ((await findSshKey(tx.db, 'key-001')) === null) {
      const key = { public_key: parsed.line, fingerprint: parsed.fingerprint }
      await insertSshKey(tx, { ...common, ...key, id: 'key-001', name: 'example' })
    }
  })
}

async function ensureSecurityGroup(tx: Transaction, group: Parameters<typeof insertSecurityGroup>[1]): Promise<void> {
  if ((await findSecurityGroup(tx.db, group.id)) === null) await insertSecurityGroup(tx, group)
}
