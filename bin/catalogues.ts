import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import { InstanceType } from '@berth/contract/instances/instance-types.ts'
import { parseCatalogue } from '@berth/images/catalogue.ts'
import Type from 'typebox'
import Value from 'typebox/value'
import { parse } from 'yaml'

const root = join(import.meta.dirname, '..')

/** The image catalogue: `images/catalogue.yaml`, or the file given. Throws with file, entry and field. */
export async function loadImageCatalogue(file = join(root, 'images/catalogue.yaml')): Promise<CatalogueImage[]> {
  return parseCatalogue(await readFile(file, 'utf8'), file)
}

/** The instance types of `server/instance-types.yaml`. */
export async function loadInstanceTypes(): Promise<InstanceType[]> {
  const file = join(root, 'server/instance-types.yaml')
  const types: unknown = parse(await readFile(file, 'utf8'))
  if (!Value.Check(Type.Array(InstanceType), types)) throw new Error(`${file} does not hold a list of instance types`)
  return types
}
