import { databaseUrl, logSettings, port } from '@oncebox/service';
import { z } from 'zod';

export const config = z.object({
  API_DATABASE_URL: databaseUrl(),
  API_PORT: port(3000),
  API_OPS_PORT: port(3100),
  ...logSettings,
});
