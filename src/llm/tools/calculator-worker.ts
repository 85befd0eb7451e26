/** The thread that works expressions out with a restricted mathjs: the only place that loads it. */
import { parentPort } from 'node:worker_threads';
import { all, create, isArrayNode, isSymbolNode } from 'mathjs';

/** UTF-16 units of a printed result. */
const MAX_RESULT_UNITS = 1_000;

/** What an expression may be made of: no ranges, assignments, properties, objects, blocks. */
const ALLOWED_NODES = new Set([
  'ArrayNode',
  'ConditionalNode',
  'ConstantNode',
  'FunctionNode',
  'OperatorNode',
  'ParenthesisNode',
  'RelationalNode',
  'SymbolNode',
]);

/**
 * The functions and constants that may be named; units may too. A list of what is allowed, because memory matters as
 * much as mathjs's own "Security" page: resourceLimits end a thread that grows slowly, but one large allocation
 * (`sum(1:1e9)`, `ones(1e5, 1e5)`) aborts the whole process, measured on Node 22.23. Nothing here makes an array, and
 * only flat ones may be written: nested ones grow by broadcasting.
 */
const ALLOWED_NAMES = new Set(
  `pi e tau phi i coulomb Infinity true false
  abs cbrt ceil exp expm1 fix floor gcd hypot lcm log log10 log1p log2 mod nthRoot pow round sign sqrt square cube
  add subtract multiply divide unaryMinus unaryPlus
  sin cos tan sec csc cot asin acos atan atan2 asec acsc acot sinh cosh tanh asinh acosh atanh
  combinations permutations factorial gamma erf isPrime
  max min mean median mode prod std sum variance mad count quantileSeq
  re im arg conj to`.split(/\s+/),
);

const math = create(all ?? {}, { matrix: 'Array' });

/** What mathjs knows by this name must be listed; what it does not know may be a unit. */
const isAllowed = (name: string): boolean =>
  ALLOWED_NAMES.has(name) || (!(name in math) && math.Unit.isValuelessUnit(name));

function workOut(expression: string): { ok: boolean; text: string } {
  try {
    const tree = math.parse(expression);
    tree.traverse((node) => {
      if (!ALLOWED_NODES.has(node.type) || (isArrayNode(node) && node.filter(isArrayNode).length > 1))
        throw new Error('Only one expression is worked out, of numbers, units and flat lists.');
      if (isSymbolNode(node) && !isAllowed(node.name)) throw new Error(`${node.name} is not available here.`);
    });
    const value: unknown = tree.evaluate();
    if (typeof value === 'function' || value === undefined) return { ok: false, text: 'There is no value.' };
    const text = math.format(value, { precision: 14 });
    return text.length > MAX_RESULT_UNITS
      ? { ok: false, text: `The result is longer than ${MAX_RESULT_UNITS} characters.` }
      : { ok: true, text };
  } catch (error) {
    return { ok: false, text: String(error instanceof Error ? error.message : error).slice(0, 300) };
  }
}

const port = parentPort;
port?.on('message', (expression: string) => port.postMessage(workOut(expression)));
port?.postMessage('ready');
