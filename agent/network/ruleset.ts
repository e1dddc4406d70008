import type { Nic } from '../instance-record.ts'

/**
 * The whole nftables ruleset of a VPC's namespace, from the cards attached there. Loaded as one transaction: sets and
 * chains are declared (which keeps those that exist), emptied and filled again, so no packet is lost and a failing load
 * changes nothing. Sorted, so equal input gives equal text. All values come from our own patterns (tap names, MACs,
 * IPv4 addresses). Pure.
 *
 * A packet of an instance passes `antispoof` (its own tap, MAC and address or nothing), then `fwd_out` by the verdict of
 * the tap it came from, then `fwd_in` by the verdict of the tap it goes to. Security groups will hang their chains on
 * these two maps; until then both let everything inside the VPC pass.
 */
export function renderRuleset(nics: readonly Nic[]): string {
  const sorted = [...nics].sort((a, b) => (a.tap < b.tap ? -1 : 1))
  const bind = sorted.map((nic) => `"${nic.tap}" . ${nic.mac} . ${nic.ip}`)
  const bindMac = sorted.map((nic) => `"${nic.tap}" . ${nic.mac}`)
  const verdicts = sorted.map((nic) => `"${nic.tap}" : accept`)
  return `table arp vpc {
  set bind { type ifname . ether_addr . ipv4_addr; }
  chain input { type filter hook input priority 0; policy drop; }
}
table inet vpc {
  set bind { type ifname . ether_addr . ipv4_addr; }
  set bindmac { type ifname . ether_addr; }
  map vm_in { type ifname : verdict; }
  map vm_out { type ifname : verdict; }
  chain antispoof { type filter hook prerouting priority raw; policy drop; }
  chain input { type filter hook input priority 0; policy drop; }
  chain fwd_out { type filter hook forward priority 0; policy drop; }
  chain fwd_in { type filter hook forward priority 10; policy drop; }
}
flush table arp vpc
flush set arp vpc bind
flush table inet vpc
flush set inet vpc bind
flush set inet vpc bindmac
flush map inet vpc vm_in
flush map inet vpc vm_out
${elements('arp vpc bind', bind)}${elements('inet vpc bind', bind)}${elements('inet vpc bindmac', bindMac)}${elements(
  'inet vpc vm_in',
  verdicts,
)}${elements('inet vpc vm_out', verdicts)}table arp vpc {
  chain input {
    iifname . arp saddr ether . arp saddr ip @bind accept
  }
}
table inet vpc {
  chain antispoof {
    iifname "lo" accept
    iifname . ether saddr . ip saddr @bind accept
    iifname . ether saddr @bindmac ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
  }
  chain input {
    iifname "lo" accept
    ct state established,related accept
    meta l4proto { tcp, udp } th dport 53 accept
    udp dport 67 accept
    icmp type echo-request accept
  }
  chain fwd_out {
    ct state invalid drop
    ct state established ct direction reply accept
    ct state related accept
    iifname vmap @vm_out
  }
  chain fwd_in {
    ct state established ct direction reply accept
    ct state related accept
    oifname vmap @vm_in
  }
}
`
}

function elements(set: string, values: readonly string[]): string {
  return values.length === 0 ? '' : `add element ${set} { ${values.join(', ')} }\n`
}
