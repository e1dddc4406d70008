import { ImageCreate } from '@berth/contract/images/images.ts'
import { InstanceCreate } from '@berth/contract/instances/instances.ts'
import { SshKeyCreate } from '@berth/contract/instances/ssh-keys.ts'
import { PublicIpCreate } from '@berth/contract/networks/public-ips.ts'
import { SecurityGroupCreate } from '@berth/contract/networks/security-groups.ts'
import { SubnetCreate } from '@berth/contract/networks/subnets.ts'
import { VpcCreate } from '@berth/contract/networks/vpcs.ts'
import { type DeclaredDocument, fileFault, isRecord } from './declared-document.ts'

/** Kinds that can be declared, in the order in which they are made: what is named by another comes first. */
export const kinds = ['SshKey', 'Image', 'Vpc', 'Subnet', 'SecurityGroup', 'PublicIp', 'Instance'] as const
export type Kind = (typeof kinds)[number]

/** One declared resource. */
export interface Declared {
  kind: Kind
  /** What it is matched by: the id, of an instance its name. */
  key: string
  /** The body that creates it. */
  body: { id?: string; metadata: { name?: string; labels?: Record<string, string> }; spec: Record<string, unknown> }
  document: DeclaredDocument
}

const schemas: Record<Kind, object> = {
  SshKey: SshKeyCreate,
  Image: ImageCreate,
  Vpc: VpcCreate,
  Subnet: SubnetCreate,
  SecurityGroup: SecurityGroupCreate,
  PublicIp: PublicIpCreate,
  Instance: InstanceCreate,
}

/**
 * What the documents of a file declare, in the order in which it is made. Everything is looked at before anything is
 * done: kinds, fields that the API does not know, keys that are missing or there twice. Throws CliError (usage) with
 * the line.
 */
export function parseDeclarations(documents: readonly DeclaredDocument[]): Declared[] {
  const seen = new Map<string, DeclaredDocument>()
  const declared = documents.map((document) => {
    const one = parseDeclaration(document)
    const key = `${one.kind} ${one.key}`
    const other = seen.get(key)
    if (other !== undefined) {
      throw fileFault(document, '', `${key} is declared in line ${other.line} of ${other.file} already`)
    }
    seen.set(key, document)
    return one
  })
  return declared.sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind))
}

function parseDeclaration(document: DeclaredDocument): Declared {
  const { kind: given, ...value } = document.value
  const kind = kinds.find((each) => each === given)
  if (kind === undefined) throw fileFault(document, '/kind', `must be one of ${kinds.join(', ')}`)
  checkFields(document, value, schemas[kind], '')
  const { metadata = {}, spec = {}, id } = value
  if (!isRecord(metadata)) throw fileFault(document, '/metadata', 'is not an object')
  if (!isRecord(spec)) throw fileFault(document, '/spec', 'is not an object')
  if (metadata.labels !== undefined && !isTexts(metadata.labels)) {
    throw fileFault(document, '/metadata/labels', 'must have texts as values; put numbers in quotes')
  }
  const isInstance = kind === 'Instance'
  const key = isInstance ? metadata.name : id
  if (typeof key !== 'string' || key === '') {
    const why = isInstance ? 'is required: an instance is matched by its name' : 'is required: it is matched by its id'
    throw fileFault(document, isInstance ? '/metadata/name' : '/id', why)
  }
  return { kind, key, body: { ...value, metadata, spec }, document }
}

/** Throws for a field that the schema does not name. Values are for the server to judge. */
function checkFields(document: DeclaredDocument, value: Record<string, unknown>, schema: object, at: string): void {
  const properties: unknown = Reflect.get(schema, 'properties')
  if (!isRecord(properties)) return
  for (const [name, child] of Object.entries(value)) {
    const known = Object.hasOwn(properties, name) ? properties[name] : undefined
    if (known === undefined) {
      throw fileFault(document, `${at}/${name}`, `is not known; there are ${Object.keys(properties).join(', ')}`)
    }
    if (isRecord(child) && isRecord(known)) checkFields(document, child, known, `${at}/${name}`)
  }
}

function isTexts(value: unknown): value is Record<string, string> {
  return isRecord(value) && Object.values(value).every((text) => typeof text === 'string')
}
