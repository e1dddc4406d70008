import { defineConfig } from 'vitest/config'

// one file after the other: they share the machine's two cores, and emulated guests need them
export default defineConfig({
  test: {
    setupFiles: ['./test/fetched-responses.ts'],
    include: ['test/guest-images/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 900_000,
    hookTimeout: 900_000,
  },
})
