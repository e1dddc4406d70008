// A tiny process for the tests that kill one: an agent on a simulated host, until SIGTERM. SIGUSR2 has it write what is
// left on that host as a line of JSON. Argument: JSON of AgentConfig.
import { type AgentConfig, startAgent } from '@berth/agent/main.ts'
import { SimulatedHost } from '@berth/agent/simulated/host.ts'
import { pino } from 'pino'

const config: AgentConfig = JSON.parse(process.argv[2] ?? '{}')
const host = new SimulatedHost()
const agent = startAgent(config, host, pino({ level: 'error' }, pino.destination({ fd: 2, sync: true })))
process.on('SIGUSR2', () => process.stdout.write(`${JSON.stringify(host.leftovers())}\n`))
process.once('SIGTERM', async () => {
  await agent.stop()
  host.restart() // ends what the simulated guests have scheduled
})
