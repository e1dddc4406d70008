import { type Command, Option } from 'commander'
import type { CliIo } from '../io.ts'

export interface OutputFlags {
  output: 'table' | 'json'
  /** Print ids only. */
  quiet?: true
}

/** Give a command `-o` and `-q`. */
export function withOutput(command: Command): Command {
  return command
    .addOption(
      new Option('-o, --output <format>', 'table is for people, json is the document of the API')
        .choices(['table', 'json'])
        .default('table'),
    )
    .addOption(new Option('-q, --quiet', 'print ids only, one a line').conflicts('output'))
}

/** Print a document of the API as it is, or the ids in it, or what people read instead. */
export function print(io: CliIo, flags: OutputFlags, document: object, forPeople: () => string): void {
  if (flags.quiet)
    io.stdout.write(
      idsOf(document)
        .map((id) => `${id}\n`)
        .join(''),
    )
  else io.stdout.write(flags.output === 'json' ? `${JSON.stringify(document, null, 2)}\n` : forPeople())
}

/** Ids of a list's items, else the document's own, else that of the operation it tells of. */
function idsOf(document: object): string[] {
  const items: unknown = Reflect.get(document, 'items')
  const candidates: unknown[] = Array.isArray(items)
    ? items.map((item: unknown) => Reflect.get(Object(item), 'id'))
    : [Reflect.get(document, 'id') ?? Reflect.get(document, 'operation_id')]
  return candidates.filter((id): id is string => typeof id === 'string' && id !== '')
}
