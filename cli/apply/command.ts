import { type Command, Option } from 'commander'
import { repeated, timeoutSeconds } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { labelSelector } from '../command/list.ts'
import type { CliIo } from '../io.ts'
import { withOutput } from '../output/output.ts'
import type { ApplyFlags } from './flags.ts'

/** `berth apply`: make things as files declare them. */
export function addApplyCommand(program: Command, io: CliIo): void {
  const command = program
    .command('apply')
    .description('make resources as files declare them: create what is missing, change what differs')
    .requiredOption(
      '-f, --file <file>',
      'YAML or JSON with one or more documents, - for stdin; may be repeated',
      repeated,
    )
    .option('--dry-run', 'print the plan and do nothing')
    .option('--prune', 'also delete what --selector matches and no file declares')
    .option('-l, --selector <selector>', 'labels of what --prune may delete', labelSelector)
    .addOption(
      new Option('--wait <until>', 'how far new instances are waited for')
        .choices(['running', 'ready', 'none'])
        .default('running'),
    )
    .option('--no-wait', 'the same as --wait none')
    .option('--timeout <seconds>', 'give up waiting after this time', timeoutSeconds, 600)
  withOutput(command).action(async (flags: ApplyFlags, self: Command) => {
    const { apply } = await import('./apply.ts') // schemas and YAML are loaded for this alone
    await apply(io, flags, self)
  })
  withExamples(
    command,
    [
      'berth apply -f shop.yaml --dry-run',
      'berth apply -f network.yaml -f web.yaml',
      'berth apply -f shop.yaml --prune -l app=shop',
    ],
    `Each document is the API's, with kind: SshKey, Image, Vpc, Subnet,
SecurityGroup, PublicIp or Instance. They are matched by their id, an instance
by its metadata.name. What a document does not name is left as it is; labels,
when it names them, are all the labels. A change that the API does not have (the size of
an instance, the network of a VPC) is told of, ends with exit code 5, and then
nothing at all is done.`,
  )
}
