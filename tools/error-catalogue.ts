import { errorCatalogue, failureCatalogue } from '@berth/contract/errors.ts'

/** The page of all error codes, from the catalogues that the server answers with. Pure. */
export function renderErrorCatalogue(): string {
  const errors = Object.entries(errorCatalogue)
    .sort(([a, left], [b, right]) => left.status - right.status || (a < b ? -1 : 1))
    .map(([code, { status, title }]) => `| ${status} | \`${code}\` | ${title} |`)
  const failures = Object.entries(failureCatalogue).map(([code, hint]) => `| \`${code}\` | ${hint} |`)
  return `# Error catalogue

Generated from \`contract/errors.ts\` by \`npm run gen\`. Codes are stable: programs decide by them, never by the text.

## Answers

Every error is a problem document (RFC 9457, \`application/problem+json\`): \`type\`, \`title\`, \`status\`, \`detail\`, \`code\`,
\`request_id\`, and \`errors\`, one entry with a JSON pointer for each fault of a body. 503 comes with \`Retry-After\`. Nothing was
changed by a request that is answered with an error, except that after a 503 of a lost database it is not known: repeat it
with the same \`Idempotency-Key\`.

| status | code | meaning |
|---|---|---|
${errors.join('\n')}

## Causes

What \`operation.error.code\`, \`status.reason\` and the \`reason\` of a condition can be, and the \`hint\` that comes with it.

| code | what to do |
|---|---|
${failures.join('\n')}
`
}
