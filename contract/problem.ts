import Type, { type Static } from 'typebox'
import { named, strict } from './schema.ts'

/** RFC 9457 problem document, the body of every error. */
export const Problem = named(
  'Problem',
  Type.Object(
    {
      type: Type.String({ description: 'URI reference that names the kind of problem' }),
      title: Type.String(),
      status: Type.Integer({ minimum: 400, maximum: 599 }),
      detail: Type.String(),
      code: Type.String({ description: 'Stable code from the catalogue' }),
      request_id: Type.String(),
      errors: Type.Array(Type.Object({ pointer: Type.String(), message: Type.String() }, strict), {
        description: 'One entry a fault of the body; empty where the fault is not in the body',
      }),
    },
    strict,
  ),
)
export type Problem = Static<typeof Problem>
