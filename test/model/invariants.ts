import type { HostProcess } from './host-process.ts'
import type { InstanceNow, Tables } from './tables.ts'

/**
 * What holds at every moment, whatever was asked for: the invariants of the design that need no memory. Gives what is
 * broken, a line each.
 */
export function brokenInvariants(tables: Tables, hosts: readonly HostProcess[]): string[] {
  const living = [...tables.instances.values()].filter((instance) => instance.terminated_at === null)
  return [
    ...brokenReservations(tables, living),
    ...brokenAddresses(tables, living),
    ...brokenPublicAddresses(tables, living),
    ...brokenIndexes(tables),
    ...brokenMachines(tables, hosts),
  ]
}

/** Reservations are exactly the sizes of the instances placed there, never below zero or beyond what there is. */
function brokenReservations(tables: Tables, living: readonly InstanceNow[]): string[] {
  const broken: string[] = []
  for (const host of tables.hosts) {
    const sums = { vcpus: 0, memory_mb: 0, disk_gb: 0 }
    for (const instance of living) {
      if (instance.host_id !== host.id) continue
      sums.vcpus += instance.vcpus
      sums.memory_mb += instance.memory_mb
      sums.disk_gb += instance.disk_gb
    }
    for (const what of ['vcpus', 'memory_mb', 'disk_gb'] as const) {
      const allocated = host[`allocated_${what}`]
      const capacity = host[`capacity_${what}`]
      if (allocated !== sums[what]) broken.push(`${host.id} has ${what} ${allocated} reserved for ${sums[what]} in use`)
      if (allocated < 0 || allocated > capacity)
        broken.push(`${host.id} has ${what} ${allocated} of ${capacity} reserved`)
    }
  }
  return broken
}

/** Who lives holds its own address, nobody else holds one, and no address or MAC has two holders. */
function brokenAddresses(tables: Tables, living: readonly InstanceNow[]): string[] {
  const broken: string[] = []
  const holders = new Map(tables.addresses.map((address) => [address.instance_id, address]))
  for (const instance of living) {
    const held = holders.get(instance.id)
    if (held?.address !== instance.private_ip || held.subnet_id !== instance.subnet_id) {
      broken.push(`${instance.id} lives and does not hold its address ${instance.private_ip}`)
    }
  }
  if (holders.size !== living.length) broken.push(`${holders.size} addresses are held by ${living.length} instances`)
  for (const what of ['private_ip', 'mac'] as const) {
    const distinct = new Set(living.map((instance) => `${instance.vpc_id} ${instance[what]}`))
    if (distinct.size !== living.length) broken.push(`two instances have the same ${what}`)
  }
  return broken
}

/** Each public address is taken once and for its resource, whoever has one lives and shows it, and nobody shows another. */
function brokenPublicAddresses({ publicIps, publicAddresses }: Tables, living: readonly InstanceNow[]): string[] {
  const broken: string[] = []
  const shown = new Map(living.map((instance) => [instance.id, instance.public_ip]))
  const held = new Map<string, string>()
  for (const { id, address, instance_id: holder, auto_assigned: auto } of publicIps.values()) {
    if (publicAddresses.get(id) !== address) broken.push(`${address} is taken for another than ${id}`)
    if (holder === null) {
      if (auto === 1) broken.push(`${id} came with an instance and has none`)
      continue
    }
    if (held.has(holder)) broken.push(`${holder} has two public addresses`)
    held.set(holder, address)
    if (!shown.has(holder)) broken.push(`${id} is at ${holder}, which is gone`)
  }
  if (publicAddresses.size !== publicIps.size)
    broken.push(`${publicAddresses.size} public addresses are taken for ${publicIps.size} resources`)
  for (const [id, address] of shown) {
    if (address !== (held.get(id) ?? '')) broken.push(`${id} shows ${address} and has ${held.get(id) ?? 'no address'}`)
  }
  return broken
}

/** Lists find an instance by the labels and groups that it is shown with. */
function brokenIndexes(tables: Tables): string[] {
  const instances = [...tables.instances.values()]
  const labels = instances.flatMap(({ id, labels }) =>
    Object.entries(labels).map(([key, value]) => `${id} ${key}=${value}`),
  )
  const groups = instances.flatMap(({ id, security_groups }) => security_groups.map((group) => `${id} ${group}`))
  const differ = (a: readonly string[], b: readonly string[]) => [...a].sort().join() !== [...b].sort().join()
  return [
    ...(differ(labels, tables.labels) ? [`${labels.join()} are the labels, ${tables.labels.join()} are found`] : []),
    ...(differ(groups, tables.groups) ? [`${groups.join()} are the groups, ${tables.groups.join()} are found`] : []),
  ]
}

/** A VM runs only for an instance that is not gone, on the host that has it, and once. */
function brokenMachines(tables: Tables, hosts: readonly HostProcess[]): string[] {
  const broken: string[] = []
  for (const host of hosts) {
    for (const id of host.machine.running()) {
      const instance = tables.instances.get(id)
      if (instance === undefined || instance.terminated_at !== null) broken.push(`${id} is gone and runs on ${host.id}`)
      else if (instance.host_id !== host.id) broken.push(`${id} of ${instance.host_id} runs on ${host.id}`)
    }
  }
  return broken
}
