import Type, { type Static } from 'typebox'
import { eventActions, eventResources } from './event-kinds.ts'
import { named, strict, Timestamp } from './schema.ts'

/**
 * The `data` of one event of `GET /v1/events`: which resource changed and where it stands now. `detail` has `state` and
 * `generation` of an instance, with a `reason` while its machine does not run its guest; `state` of an image and of a
 * host that falls silent or comes back; `type`, `status` and `resource_id` of an operation; GET of the resource has the
 * rest.
 * `host.repaired` tells that a host has put something of its networks right: `object`, `vpc_id` ("" when it is no single
 * VPC's), `detail` in words, `number` of the repair and `repaired_at`.
 */
export const Event = named(
  'Event',
  Type.Object(
    {
      sequence: Type.Integer({ minimum: 1, description: 'Rises with every event; also the id of the event' }),
      type: Type.String({ pattern: `^(${eventResources.join('|')})\\.(${eventActions.join('|')})$` }),
      resource_id: Type.String(),
      at: Timestamp,
      detail: Type.Record(Type.String(), Type.Union([Type.String(), Type.Integer()])),
    },
    strict,
  ),
)
export type Event = Static<typeof Event>

export const EventsQuery = Type.Object(
  {
    after: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        description: 'Begin behind this sequence number, as Last-Event-ID does; 0 is the oldest event that is kept',
      }),
    ),
    resource_id: Type.Optional(Type.String({ maxLength: 63, description: 'Only events of this resource' })),
  },
  strict,
)

export const EventsHeaders = Type.Object({
  'last-event-id': Type.Optional(
    Type.String({ pattern: '^[0-9]{1,15}$', description: 'Id of the last event received; goes before `after`' }),
  ),
})
