import type { Command } from 'commander'
import { label, resourceId, resourceName } from './arguments.ts'

export interface MetadataFlags {
  id?: string
  name?: string
  label?: Record<string, string>
}

/** Give a create command the options of its metadata. */
export function withMetadata(command: Command): Command {
  return command
    .option('--name <name>', 'name for people; not unique, the id when absent', resourceName)
    .option('--label <key=value>', 'a label; may be repeated', label)
}

/** The same, for resources whose id the caller may choose. */
export function withIdAndMetadata(command: Command, prefix: string): Command {
  return withMetadata(command.option('--id <id>', `id to give it, ${prefix}-…; made when absent`, resourceId))
}

/** The part of a create request that these options make. */
export function metadataOf(flags: MetadataFlags) {
  const metadata = {
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags.label === undefined ? {} : { labels: flags.label }),
  }
  return {
    ...(flags.id === undefined ? {} : { id: flags.id }),
    ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
  }
}
