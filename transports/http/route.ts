/** What an HTTP route is: who may use it, what it takes, what it answers; and how a table of routes becomes an app. */
import { type OpenAPIHono, type RouteConfig, z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { refuseIssues } from '../../src/domain/agent-rules.ts';
import { defined } from '../../src/domain/defined.ts';
import { type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import { problemsOf, problemText } from '../../src/domain/problems.ts';
import { shownName, unknownField } from '../../src/domain/request-object.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import { type Guard, type Guards, readJson } from './gate.ts';

/** Problems named in one refusal. */
const MAX_PROBLEMS = 20;

/** Schemas of what a request says, under the names that refusals give to its parts. */
type Parts = {
  readonly query?: z.ZodObject;
  readonly param?: z.ZodObject;
  readonly header?: z.ZodObject;
  readonly json?: z.ZodType;
};
const PARTS = ['query', 'param', 'header', 'json'] as const satisfies readonly (keyof Parts)[];

/** What the schemas made of a request. */
type Given<P extends Parts> = z.output<z.ZodObject<P>>;

/** The answer of a route when all is well. */
interface Success<A extends z.ZodType> {
  readonly status: 200 | 201 | 202 | 204;
  readonly description: string;
  /** The body; absent where there is none. */
  readonly schema?: A;
  /** Absent: JSON. */
  readonly mediaType?: string;
  readonly headers?: (body: z.input<A>) => Readonly<Record<string, string>>;
}

type Answer<A extends z.ZodType> = Reply<z.input<A>> | Response;

interface RouteSpec<S, P extends Parts, A extends z.ZodType> {
  readonly method: 'get' | 'post' | 'put' | 'patch' | 'delete';
  /** With `{name}` for a parameter. */
  readonly path: string;
  readonly guard: Guard;
  readonly summary: string;
  readonly description?: string;
  readonly takes: P;
  /** Problems of a request are told in the form that agent management gives to broken rules. */
  readonly asRuleIssues?: true;
  readonly answer: Success<A>;
  /** What else it may answer. */
  readonly otherAnswers?: RouteConfig['responses'];
  /** Resolves to the body of the answer, to a refusal, or to a response of its own making. */
  run(given: Given<P>, c: Context<HttpEnv>, served: S): Answer<A> | Promise<Answer<A>>;
}

/** A route that can be mounted wherever there is an `S` to serve it. */
export interface Route<S> {
  readonly guard: Guard;
  readonly config: RouteConfig;
  readonly handle: (c: Context<HttpEnv>, served: S) => Promise<Response>;
}

/** Makes the routes that an `S` serves and that stand under `tag` in the OpenAPI document. */
export const routesOf =
  <S>(tag: string) =>
  <P extends Parts, A extends z.ZodType>(spec: RouteSpec<S, P, A>): Route<S> => {
    const schema: z.ZodObject<P> = z.object(spec.takes);
    const queryRefusal = queryCheck(spec);
    return {
      guard: spec.guard,
      config: configOf(tag, spec),
      async handle(c, served) {
        const refused = queryRefusal(c);
        if (refused) return refuse(c, refused);
        const json = spec.takes.json ? await readJson(c) : undefined;
        if (json && !json.ok) return refuse(c, json.error);
        const parsed = schema.safeParse(saidBy(c, spec.takes, json?.value));
        if (!parsed.success) return refuse(c, malformed(parsed.error, spec.asRuleIssues ?? false));
        const answer = await spec.run(parsed.data, c, served);
        if (answer instanceof Response) return answer;
        return answer.ok ? succeed(c, spec.answer, answer.value) : refuse(c, answer.error);
      },
    };
  };

/**
 * A query has no other parameters than those of its route. Only probes take any: monitors write their own into the
 * address.
 */
function queryCheck({ takes, guard }: { readonly takes: Parts; readonly guard: Guard }) {
  const shape: Readonly<Record<string, z.ZodType>> = takes.query?.shape ?? {};
  const known = Object.keys(shape);
  const lists = new Set(known.filter((name) => shape[name]?.safeParse(['a', 'b']).success));
  const takesAny = guard === 'anybody' || guard === 'metrics';
  return (c: Context<HttpEnv>): ErrorData | undefined => {
    if (takesAny) return undefined;
    const given = Object.entries(c.req.queries());
    const problems = given.flatMap(([name, values]) => {
      if (!known.includes(name)) return [[name, unknownField(name, known, 'is no parameter of this route')]];
      return values.length > 1 && !lists.has(name) ? [[name, 'is given more than once']] : [];
    });
    const details = problems
      .slice(0, MAX_PROBLEMS)
      .map(([name = '', message = '']) => ({ field: shownName(name), message }));
    const [first] = details;
    return first && refusal('INVALID_REQUEST', { message: `${first.field}: ${first.message}`, details });
  };
}

/** Adds the routes to the app and to its OpenAPI document. */
export function mountRoutes<S>(
  app: OpenAPIHono<HttpEnv>,
  guards: Guards,
  routes: readonly Route<S>[],
  served: S,
): void {
  for (const { guard, config, handle } of routes) {
    app.openAPIRegistry.registerPath(config);
    const path = config.path.replaceAll(/\{(.+?)\}/g, ':$1');
    app.on(config.method, path, guards(guard), (c) => handle(c, served));
  }
}

/** A body that what serves the route reads itself; `name` is the registered schema that describes it. */
export const described = (name: string) => z.unknown().meta({ describedAs: name });

// --- The OpenAPI document --------------------------------------------------------------------------------------

const JSON_TYPE = 'application/json';

function configOf<S, P extends Parts, A extends z.ZodType>(
  tag: string,
  spec: RouteSpec<S, P, A>,
): RouteConfig {
  const { method, path, guard, summary, description, answer } = spec;
  const { query, param: params, header: headers, json } = spec.takes;
  const content = answer.schema && { [answer.mediaType ?? JSON_TYPE]: { schema: answer.schema } };
  return defined({
    method,
    path,
    tags: [tag],
    summary,
    description,
    security: guard === 'anybody' ? undefined : [{ [guard === 'service' ? 'service' : 'bearer']: [] }],
    request: defined({ query, params, headers, body: json && bodyOf(json) }),
    responses: {
      [answer.status]: defined({ description: answer.description, content }),
      ...spec.otherAnswers,
      ...(guard === 'anybody' ? {} : { default: failure }),
    },
  });
}

function bodyOf(json: z.ZodType) {
  const name = json.meta()?.describedAs;
  const schema = typeof name === 'string' ? { $ref: `#/components/schemas/${name}` } : json;
  return { required: true, content: { [JSON_TYPE]: { schema } } };
}

// --- Requests and answers --------------------------------------------------------------------------------------

/** What the request says, for the parts that the route takes. A parameter of the query that stands twice is a list. */
function saidBy(c: Context<HttpEnv>, takes: Parts, json: unknown) {
  const single = ([name, values]: [string, string[]]) => [name, values.length === 1 ? values[0] : values];
  return {
    query: takes.query && Object.fromEntries(Object.entries(c.req.queries()).map(single)),
    param: takes.param && c.req.param(),
    header: takes.header && c.req.header(),
    json,
  };
}

/** The refusal of a request that does not fit: every field of the first part that has a problem. */
function malformed(error: z.ZodError, asRuleIssues: boolean): ErrorData {
  const part = PARTS.find((name) => error.issues.some(({ path }) => path[0] === name)) ?? 'json';
  const issues = error.issues
    .filter(({ path }) => path[0] === part)
    .map((issue) => ({ ...issue, path: issue.path.slice(1) }));
  if (asRuleIssues) return refuseIssues(problemsOf({ issues }, part));
  return refusal('INVALID_REQUEST', {
    message: problemText({ issues }, part, 1),
    details: problemsOf({ issues }, part, MAX_PROBLEMS).map(({ field, message }) => ({ field, message })),
  });
}

function succeed<A extends z.ZodType>(
  c: Context<HttpEnv>,
  { status, headers }: Success<A>,
  body: z.input<A>,
) {
  for (const [name, value] of Object.entries(headers?.(body) ?? {})) c.header(name, value);
  if (status === 204) return c.body(null, status);
  return c.body(JSON.stringify(body), status, { 'Content-Type': JSON_TYPE });
}
