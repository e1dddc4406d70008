import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    setupFiles: ['./test/fetched-responses.ts'],
    include: ['{contract,server,agent,images,cli,bin,test}/**/*.test.ts'],
    exclude: ['test/on-host/**', 'test/images/**', '**/node_modules/**'],
    testTimeout: 20_000,
    hookTimeout: 20_000,
  },
})
