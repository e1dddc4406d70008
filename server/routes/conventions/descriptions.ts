/*
 * What holds for every route of a form, in the words of the OpenAPI document. A route puts it behind what is its own.
 */

/** Of lists. */
export const pagesRule =
  'A page has at most `limit` items and may have fewer, also none: there is more for as long as there is a ' +
  '`next_cursor`, which is the `cursor` of the next request, with the same filters (others are 400 `invalid_query`). ' +
  'A filter that nothing fits gives an empty list.'

/** Of a POST that is stored with its key. */
export const keyRule =
  'Repeated with the same `Idempotency-Key` and body it is done once: the first answer comes again, with ' +
  '`idempotency-replayed: true`. The key with another request is 422 `idempotency_key_reused`. A refused request ' +
  'changes nothing and is not bound to its key.'

/** Of a PATCH. */
export const patchRule =
  'What the body does not name stays, and a label set to null is removed. Repeated, it changes nothing more. With an ' +
  '`If-Match` that names another version than the newest it is 412 `precondition_failed`, and nothing is changed.'
