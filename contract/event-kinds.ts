/** The kinds of resource that events speak of. */
export const eventResources = [
  'instance',
  'operation',
  'vpc',
  'subnet',
  'security_group',
  'ssh_key',
  'image',
  'public_ip',
  'host',
] as const
export type EventResource = (typeof eventResources)[number]

export const eventActions = ['created', 'updated', 'deleted', 'repaired'] as const
export type EventAction = (typeof eventActions)[number]
