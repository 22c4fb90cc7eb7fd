import { Cluster, type Redis } from './ioredis.ts';
import { whenAllIsSaid } from './turn.ts';

/** Worth a system call of their own: Redis is at work on them while this turn goes on. */
const FULL_BYTES = 16_384;

/**
 * The commands of one turn of the event loop leave in one system call, at the end of that turn, or in a few where they are
 * many. By itself the client makes one for each, and under load these calls are the greatest part of what a command costs;
 * an idle loop's turn ends at once.
 */
export function corkPerTurn(connection: Redis | Cluster): void {
  if (connection instanceof Cluster) {
    connection.on('+node', (node: Redis) => corkPerTurn(node));
    for (const node of connection.nodes()) corkPerTurn(node);
    return;
  }
  const sendCommand = connection.sendCommand.bind(connection);
  connection.sendCommand = (command, pipeline) => {
    const { stream } = connection;
    if (stream && stream.writableCorked === 0) {
      stream.cork();
      whenAllIsSaid(() => stream.uncork());
    }
    const reply = sendCommand(command, pipeline);
    if (stream && stream.writableLength > FULL_BYTES) {
      stream.uncork();
      stream.cork();
    }
    return reply;
  };
}
