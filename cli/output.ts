import { type Command, Option } from 'commander'
import type { CliIo } from './io.ts'

export interface OutputFlags {
  output: 'table' | 'json'
}

/** Give a command `-o`. */
export function withOutput(command: Command): Command {
  return command.addOption(
    new Option('-o, --output <format>', 'table is for people, json is the document of the API')
      .choices(['table', 'json'])
      .default('table'),
  )
}

/** Print a document of the API as it is, or what people read instead. */
export function print(io: CliIo, flags: OutputFlags, document: unknown, forPeople: () => string): void {
  io.stdout.write(flags.output === 'json' ? `${JSON.stringify(document, null, 2)}\n` : forPeople())
}
