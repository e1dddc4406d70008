import { NetworkExplanation, NetworkQuestion } from '@berth/contract/networks/explain.ts'
import { ref } from '@berth/contract/schema.ts'
import type { Context } from '../context.ts'
import { explainNetwork } from '../domain/networks/explain.ts'
import type { Api } from '../http/api.ts'

/** /v1/network */
export function networkRoutes(api: Api, ctx: Context): void {
  api.post(
    '/v1/network/explain',
    {
      schema: {
        operationId: 'explainNetwork',
        summary: 'Say whether packets arrive, and which rule lets them or is missing',
        description:
          'Answers from what is wanted (routes, security groups, addresses), without sending a packet: `checks` are the ' +
          'points of the way up to the first that lets nothing pass, each with the rule that allows it or the one that is ' +
          'missing; `notes` say what else may keep packets from arriving. An end that is no instance and no address is ' +
          '422. A question: it changes nothing, so it takes no Idempotency-Key.',
        tags: ['network'],
        body: ref(NetworkQuestion),
        response: { 200: ref(NetworkExplanation) },
      },
    },
    (request) => explainNetwork(ctx, request.body),
  )
}
