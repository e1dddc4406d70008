const labelText = '[A-Za-z0-9._/-]'
/** Pattern of the key of a label. */
export const labelKeyPattern = `^${labelText}{1,63}$`
/** Pattern of the value of a label. */
export const labelValuePattern = `^${labelText}{0,63}$`

/**
 * One requirement of a label selector. `not_in` and `absent` also hold for a resource without the key, as in Kubernetes
 * (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors).
 */
export type LabelRequirement =
  | { operator: 'in'; key: string; values: readonly string[] }
  | { operator: 'not_in'; key: string; values: readonly string[] }
  | { operator: 'exists'; key: string }
  | { operator: 'absent'; key: string }

/** Bounds of a selector: its characters, its requirements and the values they name. */
export const labelSelectorLimits = { characters: 4096, requirements: 32, values: 128 } as const

/** A selector that does not parse; the message says what is wrong and where. */
export class LabelSelectorError extends Error {
  override readonly name = 'LabelSelectorError'
}

/**
 * Parse a label selector: requirements with commas between them, all of which must hold. `a=b`, `a==b`, `a!=b`,
 * `a in (x,y)`, `a notin (x,y)`, `a` (the key is there), `!a` (it is not). Empty means no requirement. Throws
 * LabelSelectorError.
 */
export function parseLabelSelector(text: string): LabelRequirement[] {
  if (text.length > labelSelectorLimits.characters) {
    throw new LabelSelectorError(`has more than ${labelSelectorLimits.characters} characters`)
  }
  const parser = new Parser(text)
  const requirements: LabelRequirement[] = []
  if (parser.peek() === null) return requirements
  let values = 0
  do {
    const requirement = parser.requirement()
    requirements.push(requirement)
    values += 'values' in requirement ? requirement.values.length : 0
    if (requirements.length > labelSelectorLimits.requirements || values > labelSelectorLimits.values) {
      const { requirements: most, values: mostValues } = labelSelectorLimits
      throw new LabelSelectorError(`has more than ${most} requirements or ${mostValues} values`)
    }
  } while (parser.comma())
  return requirements
}

/** Whether labels meet every requirement. */
export function matchesLabels(
  labels: Readonly<Record<string, string>>,
  requirements: readonly LabelRequirement[],
): boolean {
  return requirements.every((requirement) => meets(labels, requirement))
}

function meets(labels: Readonly<Record<string, string>>, requirement: LabelRequirement): boolean {
  const found = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined
  switch (requirement.operator) {
    case 'exists':
      return found !== undefined
    case 'absent':
      return found === undefined
    case 'in':
      return found !== undefined && requirement.values.includes(found)
    case 'not_in':
      return found === undefined || !requirement.values.includes(found)
  }
}

const key = new RegExp(labelKeyPattern)
const value = new RegExp(labelValuePattern)
const token = /\s*(?:(==|!=|=|!|,|\(|\))|([^\s=!,()]+))/y

/** Recursive descent over tokens; a word is anything without white space and the signs of the grammar. */
class Parser {
  readonly #text: string
  #position = 0
  #next: { sign: string | null; word: string | null; at: number } | null = null

  constructor(text: string) {
    this.#text = text
    this.#advance()
  }

  peek() {
    return this.#next
  }

  requirement(): LabelRequirement {
    if (this.#takeSign('!')) return { operator: 'absent', key: this.#key() }
    const name = this.#key()
    if (this.#takeSign('=') || this.#takeSign('==')) return { operator: 'in', key: name, values: [this.#value()] }
    if (this.#takeSign('!=')) return { operator: 'not_in', key: name, values: [this.#value()] }
    const word = this.#next?.word
    if (word !== 'in' && word !== 'notin') return { operator: 'exists', key: name }
    this.#advance()
    return { operator: word === 'in' ? 'in' : 'not_in', key: name, values: this.#values() }
  }

  /** Whether another requirement follows. Throws when something else does. */
  comma(): boolean {
    if (this.#next === null) return false
    if (!this.#takeSign(',')) throw this.#fault('a comma')
    return true
  }

  #values(): string[] {
    if (!this.#takeSign('(')) throw this.#fault('(')
    const values = [this.#value()]
    while (this.#takeSign(',')) values.push(this.#value())
    if (!this.#takeSign(')')) throw this.#fault(', or )')
    return [...new Set(values)]
  }

  #key(): string {
    const word = this.#next?.word ?? null
    if (word === null || !key.test(word)) throw this.#fault('a label key of [A-Za-z0-9._/-], at most 63 characters')
    this.#advance()
    return word
  }

  /** May be empty, as in `a=` and `a in (x,)`. */
  #value(): string {
    const word = this.#next?.word ?? null
    if (word === null) return ''
    if (!value.test(word)) throw this.#fault('a label value of [A-Za-z0-9._/-], at most 63 characters')
    this.#advance()
    return word
  }

  #takeSign(sign: string): boolean {
    if (this.#next?.sign !== sign) return false
    this.#advance()
    return true
  }

  #advance(): void {
    token.lastIndex = this.#position
    const match = token.exec(this.#text)
    if (match === null) {
      this.#next = null // only white space is left: every other character is part of a token
      return
    }
    this.#position = token.lastIndex
    const found = match[1] ?? match[2] ?? ''
    this.#next = { sign: match[1] ?? null, word: match[2] ?? null, at: this.#position - found.length }
  }

  #fault(expected: string): LabelSelectorError {
    const next = this.#next
    const found = next === null ? 'its end' : `"${(next.sign ?? next.word ?? '').slice(0, 80)}" at ${next.at + 1}`
    return new LabelSelectorError(`expected ${expected}, found ${found}`)
  }
}
