import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import type { NetworkHealth } from '../../host-driver.ts'
import type { Abortable } from '../../sys/run-command.ts'
import { isNamespace, setSysctls } from '../namespace.ts'
import type { Nic } from '../nic.ts'
import type { NamespaceRules } from '../ruleset/namespace-rules.ts'
import type { RulesetPlan } from '../ruleset/ruleset.ts'
import { dnsmasqFaults, repairDnsmasq, shortenLog } from '../services/dnsmasq.ts'
import { ensureTap } from '../taps.ts'
import type { Uplink } from '../uplink/uplinks.ts'
import { observeNamespace } from './observation.ts'
import { type PlannedRepair, planRepairs, type Remedy, remedies } from './repairs.ts'

/** A VPC as it should be on this host, and the hands on what it shares with others. */
export interface VpcToHeal {
  vpcId: string
  namespace: string
  /** Of its dnsmasq. */
  directory: string
  network: DesiredNetwork
  /** All its cards, and those that are looked at. */
  nics: readonly Nic[]
  looked: readonly Nic[]
  plan: RulesetPlan
  rules: NamespaceRules
  /** Its uplink as it is; null when that is not whole. */
  findUplink(): Promise<Uplink | null>
  /** Remove an uplink whose other end is lost. */
  cutUplink(): Promise<void>
  /** Have namespace, uplink and the routes between them. */
  prepare(): Promise<void>
}

/**
 * Look whether a VPC is what it should be, and put right what is not: only that, by what made it. Adds to `health` what
 * was done as it is done, and which taps no process has open.
 */
export async function healVpc(vpc: VpcToHeal, health: NetworkHealth, options: Abortable): Promise<void> {
  const { vpcId, namespace, directory, looked } = vpc
  const repaired = ({ object, detail }: Pick<PlannedRepair, 'object' | 'detail'>) => {
    health.repairs.push({ vpc_id: vpcId, object, detail: detail.slice(0, 500) })
  }
  await shortenLog(directory)
  if (!(await isNamespace(namespace))) {
    await vpc.prepare()
    repaired({ object: 'namespace', detail: `${namespace} had gone` })
  }
  const taps = looked.map(({ tap }) => tap)
  const seen = await observeNamespace(namespace, taps, options)
  const repairs = planRepairs(
    { network: vpc.network, nics: looked, rules: await vpc.rules.expected(vpc.plan, options) },
    {
      ...seen,
      uplink: await vpc.findUplink(),
      dnsmasq: await dnsmasqFaults(namespace, directory, vpc.network, vpc),
    },
  )
  health.unattached.push(...taps.filter((tap) => seen.links.get(tap)?.open !== true))
  for (const remedy of remedies) {
    const asked = repairs.filter((repair) => repair.remedy === remedy)
    if (asked.length === 0) continue
    await apply[remedy](vpc, asked, options)
    for (const repair of asked) repaired(repair)
  }
  vpc.rules.foundInForce()
  await vpc.rules.reconsider(namespace, vpc.plan, options)
}

type Apply = (vpc: VpcToHeal, asked: readonly PlannedRepair[], options: Abortable) => Promise<void>

/** How each remedy is applied; `asked` are the repairs that ask for it. */
const apply: Record<Remedy, Apply> = {
  async uplink(vpc) {
    await vpc.cutUplink()
    await vpc.prepare()
  },
  namespace: (vpc) => vpc.prepare(),
  async taps({ namespace, looked }, asked, options) {
    for (const nic of looked) {
      if (!asked.some(({ tap }) => tap === nic.tap)) continue
      await ensureTap(namespace, nic, options)
      await setSysctls(namespace, [`net.ipv4.conf.${nic.tap}.proxy_arp=1`], options)
    }
  },
  async rules({ namespace, rules, plan }, _asked, options) {
    rules.forget()
    await rules.apply(namespace, plan, options)
  },
  rules_anew: ({ namespace, rules, plan }, _asked, options) => rules.replace(namespace, plan, options),
  dnsmasq: (vpc, _asked, options) => repairDnsmasq(vpc.namespace, vpc.directory, vpc.network, vpc, options),
}
