/** Matching answers against JSON schemas that come from outside: neither can hold up the node. */
import type { TenantId } from '../domain/ids.ts';
import type { Misfit } from '../domain/response-format.ts';

type Schema = Readonly<Record<string, unknown>>;

/** What became of a schema when it was read. */
export interface SchemaReading {
  /** Why no answer can be matched against it; absent: they can. */
  readonly problem?: string;
  /** Patterns in it that answers are not matched against: none but a backtracking engine could. */
  readonly unchecked: readonly string[];
}

/** Never rejects. Each call takes its turn among those of all tenants, and has a deadline. */
export interface AnswerSchemas {
  /** Where the node itself is at fault the schema counts as good. */
  read(schema: Schema, tenantId: TenantId): Promise<SchemaReading>;
  /** Why an answer's text does not match; undefined where it does. With a problem of the schema, JSON is enough. */
  match(schema: Schema, text: string, tenantId: TenantId, signal: AbortSignal): Promise<Misfit | undefined>;
  /** Ends the threads. */
  close(): Promise<void>;
}
