import type { HostImage } from '@berth/contract/images/images.ts'

/** The recipes there are; each builds the image of the same id. */
export const recipeIds = ['micro', 'debian-12', 'debian-13'] as const
export type RecipeId = (typeof recipeIds)[number]

/** Where Debian packages come from. Both are addresses without a trailing slash. */
export interface DebianMirrors {
  main: string
  security: string
}

/** What a recipe may use while it builds. */
export interface RecipeContext {
  /** An empty directory of this build alone; it is removed when the build ends, however it ends. */
  workDirectory: string
  mirrors: DebianMirrors
  signal: AbortSignal
  /** Report that a step begins. */
  step: (step: string, detail?: string) => void
}

/** What a recipe gives: a raw full-disk image in its work directory, and what the catalogue of images says of it. */
export interface RecipeResult {
  rawDiskPath: string
  about: Omit<HostImage, 'sha256' | 'size_bytes' | 'virtual_size_bytes' | 'created_at'>
}

export type Recipe = (context: RecipeContext) => Promise<RecipeResult>
