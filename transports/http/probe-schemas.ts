/** What probes and figures answer, with their names in the OpenAPI document. */
import { z } from 'zod';

export const healthSchema = z.object({ status: z.literal('ok') }).meta({ id: 'Health' });

export const readinessSchema = z
  .object({
    status: z.enum(['ready', 'not_ready', 'draining']),
    checks: z.record(
      z.string(),
      z.object({ status: z.enum(['ok', 'failed']), latency_ms: z.number(), error: z.string().optional() }),
    ),
  })
  .meta({ id: 'Readiness' });

/** Figures for people and dashboards; their names are no promise. */
export const figuresSchema = z.record(z.string(), z.unknown()).meta({ id: 'Figures' });
