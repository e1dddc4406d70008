import { ApiError, validationError } from '../api-error.ts'
import type { Limits } from '../limits.ts'

const utf8 = new TextDecoder('utf-8', { fatal: true })

type ShapeLimits = Pick<Limits, 'jsonDepth' | 'jsonValues'>

/**
 * The value of a JSON body, undefined when it is empty. Throws invalid_json for what is not JSON, and with `limits`
 * validation_failed for a document that is deeper or has more values than allowed: what is checked after this may
 * recurse and compare.
 */
export function parseJsonBody(body: Buffer, limits: ShapeLimits | null): unknown {
  const { text, value } = parse(body)
  const fault = limits === null ? null : shapeFault(text, limits)
  if (fault !== null) throw validationError([{ pointer: '', message: fault }])
  return value
}

function parse(body: Buffer): { text: string; value: unknown } {
  try {
    const text = utf8.decode(body)
    return { text, value: text.trim() === '' ? undefined : JSON.parse(text) } // V8 parses without recursion
  } catch (error) {
    const why = error instanceof Error ? error.message.slice(0, 200) : 'unknown fault'
    throw new ApiError('invalid_json', `The body is not valid JSON: ${why}`)
  }
}

/** What is wrong with the shape of a JSON text, or null: one pass that takes no memory. Only for what is JSON. */
function shapeFault(text: string, limits: ShapeLimits): string | null {
  let depth = 0
  let values = 1
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (character === '"') at = endOfString(text, at)
    else if (character === '{' || character === '[') {
      depth++
      values++
    } else if (character === '}' || character === ']') depth--
    else if (character === ',') values++
    if (depth > limits.jsonDepth) return `is nested deeper than ${limits.jsonDepth} levels`
    if (values > limits.jsonValues) return `holds more than ${limits.jsonValues} values`
  }
  return null
}

/** Position of the quote that ends the string which begins at a quote. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let escapes = 0
    while (text[end - 1 - escapes] === '\\') escapes++
    if (escapes % 2 === 0) return end
  }
  return text.length
}
