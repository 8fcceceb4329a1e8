#!/usr/bin/env node
// Stand-in for Prisma's query-engine binary, for tests on a machine that cannot reach the CDN it comes from.
//
// LiteLLM talks to that binary over loopback HTTP in GraphQL. This serves the same routes from the official
// WebAssembly build of the same engine (npm `@prisma/client`) on the official PostgreSQL driver, and translates
// GraphQL to the JSON protocol, the only one that build speaks. Queries and SQL are therefore the engine's own.
// What it imitates by hand: the P1001 of a database that cannot be reached, and leaving when it starts without one.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { parse } = require('graphql');
const { Pool } = require('pg');
const { PrismaPg } = require('@prisma/adapter-pg');
const { bindAdapter } = require('@prisma/driver-adapter-utils');
const { enginesVersion } = require('@prisma/engines-version');

if (process.argv.includes('--version')) {
  console.log(`query-engine ${enginesVersion.split('.').pop()}`);
  process.exit(0);
}

// Longest first where one is a prefix of another.
const ACTIONS = [
  'findUniqueOrThrow', 'findFirstOrThrow', 'findUnique', 'findFirst', 'findMany', 'createOne', 'createMany',
  'updateOne', 'updateMany', 'upsertOne', 'deleteOne', 'deleteMany', 'aggregate', 'groupBy', 'executeRaw', 'queryRaw',
];
// Parts of a filter on a Json field that are plain values, not Json.
const PLAIN_JSON_FILTERS = new Set(['path', 'mode', 'string_contains', 'string_starts_with', 'string_ends_with']);
// Settings of Prisma's connection string that PostgreSQL's driver does not know.
const PRISMA_URL_PARAMETERS = [
  'connection_limit', 'pool_timeout', 'connect_timeout', 'socket_timeout', 'schema', 'pgbouncer', 'statement_cache_size',
];
const UNREACHABLE = /ECONNREFUSED|ECONNRESET|EPIPE|ENOTFOUND|EHOSTUNREACH|ETIMEDOUT|Connection terminated|timeout exceeded|\b57P0[123]\b|starting up|shutting down|administrator command/i;

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const mapValues = (object, change) =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value, key)]));

/** Field types per model, read from the schema: {LiteLLM_TeamTable: {metadata: 'Json', ...}, ...}. */
function fieldTypes(datamodel) {
  const models = {};
  for (const [, name, body] of datamodel.matchAll(/^model\s+(\w+)\s*{([^]*?)^}/gm)) {
    models[name] = Object.fromEntries([...body.matchAll(/^\s*(\w+)\s+(\w+)/gm)].map(([, field, type]) => [field, type]));
  }
  return models;
}

function literal(node) {
  switch (node.kind) {
    case 'NullValue': return null;
    case 'FloatValue': return Number(node.value);
    case 'IntValue': {
      const number = Number(node.value);
      return Number.isSafeInteger(number) ? number : { $type: 'BigInt', value: node.value };
    }
    case 'ListValue': return node.values.map(literal);
    case 'ObjectValue': return Object.fromEntries(node.fields.map((field) => [field.name.value, literal(field.value)]));
    default: return node.value; // strings, booleans, enums
  }
}

const literals = (nodes) => Object.fromEntries((nodes ?? []).map((node) => [node.name.value, literal(node.value)]));

function selection(set) {
  if (!set) return {};
  return Object.fromEntries(set.selections.map((field) => [
    field.name.value,
    field.selectionSet || field.arguments?.length
      ? { arguments: literals(field.arguments), selection: selection(field.selectionSet) }
      : true,
  ]));
}

/** GraphQL sends Json as a string; the JSON protocol wants it tagged, wherever it stands in a filter. */
function tagJson(value) {
  if (typeof value === 'string') return { $type: 'Json', value };
  if (Array.isArray(value)) return value.map(tagJson);
  return isObject(value) ? mapValues(value, (inner, key) => (PLAIN_JSON_FILTERS.has(key) ? inner : tagJson(inner))) : value;
}

function tagArguments(value, model, types) {
  if (Array.isArray(value)) return value.map((inner) => tagArguments(inner, model, types));
  if (!isObject(value) || '$type' in value) return value;
  return mapValues(value, (inner, key) => {
    const type = types[model]?.[key];
    return type === 'Json' ? tagJson(inner) : tagArguments(inner, types[type] ? type : model, types);
  });
}

/** One top-level GraphQL field, `findManyLiteLLM_TeamTable(where: ...) {...}`, in the JSON protocol. */
function toJsonQuery(field, types) {
  const name = field.name.value;
  const action = ACTIONS.find((candidate) => name.startsWith(candidate));
  const model = action && name.slice(action.length);
  if (!action || (model && !types[model])) throw new Error(`no operation ${name} in this schema`);
  const args = literals(field.arguments);
  return {
    ...(model ? { modelName: model } : {}),
    action,
    query: { arguments: model ? tagArguments(args, model, types) : args, selection: selection(field.selectionSet) },
  };
}

const untag = (value) => {
  if (Array.isArray(value)) return value.map(untag);
  if (!isObject(value)) return value;
  return '$type' in value && 'value' in value ? value.value : mapValues(value, untag);
};

const untagRaw = (value) => {
  if (Array.isArray(value)) return value.map(untagRaw);
  if (!isObject(value)) return value;
  if (!('prisma__type' in value)) return mapValues(value, untagRaw);
  const inner = value.prisma__value;
  const isJsonText = value.prisma__type === 'json' && typeof inner === 'string';
  return { ...value, prisma__value: isJsonText ? JSON.parse(inner) : untagRaw(inner) };
};

function databaseUrl() {
  const override = JSON.parse(process.env.OVERWRITE_DATASOURCES ?? '[]')[0]?.url;
  const url = new URL(override ?? process.env.DATABASE_URL);
  const limit = Number(url.searchParams.get('connection_limit') ?? 10);
  for (const name of PRISMA_URL_PARAMETERS) url.searchParams.delete(name);
  return { url, limit };
}

/** The engine's error list for one failure; a lost database gets the code and text that the binary gives it. */
function asErrors(failure, url) {
  const text = String(failure?.message ?? failure);
  const userFacing = UNREACHABLE.test(text)
    ? {
        is_panic: false,
        error_code: 'P1001',
        message: `Can't reach database server at \`${url.hostname}\`:\`${url.port}\`\n\nPlease make sure your database server is running.`,
        meta: { database_host: url.hostname, database_port: Number(url.port) },
      }
    : { is_panic: false, message: text, meta: {} };
  return { errors: [{ error: text, user_facing_error: userFacing }] };
}

async function loadEngine(datamodel, adapter, url) {
  const runtime = path.join(path.dirname(require.resolve('@prisma/client/package.json')), 'runtime');
  const glue = require(path.join(runtime, 'query_engine_bg.postgresql.js'));
  const wasm = new WebAssembly.Module(fs.readFileSync(path.join(runtime, 'query_engine_bg.postgresql.wasm')));
  glue.__wbg_set_wasm(new WebAssembly.Instance(wasm, { './query_engine_bg.js': glue }).exports);
  const adapted = datamodel
    .replace(/generator\s+client\s*{[^}]*}/, 'generator client {\n provider = "prisma-client-js"\n previewFeatures = ["driverAdapters"]\n}')
    .replace(/url\s*=\s*env\("DATABASE_URL"\)/, () => `url = ${JSON.stringify(url.toString())}`);
  const options = {
    datamodel: adapted, logLevel: 'error', logQueries: false, ignoreEnvVarErrors: true, datasourceOverrides: {},
    env: process.env, configDir: '.', engineProtocol: 'json',
  };
  const engine = new glue.QueryEngine(options, () => {}, adapter);
  await engine.connect('{}');
  return engine;
}

async function main() {
  const port = Number(process.argv[process.argv.indexOf('-p') + 1]);
  const datamodel = fs.readFileSync(process.env.PRISMA_DML_PATH, 'utf8');
  const types = fieldTypes(datamodel);
  const { url, limit } = databaseUrl();

  const pool = new Pool({ connectionString: url.toString(), max: limit, connectionTimeoutMillis: 5000 });
  pool.on('error', () => {}); // an idle connection that the server closed; the next query opens another
  await pool.query('SELECT 1'); // the binary leaves at once when there is no database
  const adapter = bindAdapter(new PrismaPg(pool));
  const engine = await loadEngine(datamodel, adapter, url);

  // A failure inside the driver comes back as a number into this registry.
  const reveal = (answer) => {
    for (const error of answer.errors ?? []) {
      const id = error.user_facing_error?.meta?.id;
      const original = id === undefined ? undefined : adapter.errorRegistry.consumeError(id)?.error;
      if (original || UNREACHABLE.test(JSON.stringify(error))) {
        Object.assign(error, asErrors(original ?? JSON.stringify(error), url).errors[0]);
      }
    }
    return answer;
  };
  const ask = async (query, transaction) => reveal(JSON.parse(await engine.query(JSON.stringify(query), '{}', transaction)));

  /** Top-level fields of one document, in order; the engine runs several of them in one transaction. */
  async function run(fields, transaction) {
    const own = fields.length > 1 && !transaction
      ? JSON.parse(await engine.startTransaction(JSON.stringify({ timeout: 30000, max_wait: 10000 }), '{}')).id
      : undefined;
    const data = {};
    for (const field of fields) {
      const answer = await ask(toJsonQuery(field, types), own ?? transaction);
      if (answer.errors) {
        if (own) await engine.rollbackTransaction(own, '{}');
        return answer;
      }
      const [value] = Object.values(answer.data);
      data[field.alias?.value ?? field.name.value] = field.name.value === 'queryRaw' ? untagRaw(value) : untag(value);
    }
    if (own) await engine.commitTransaction(own, '{}');
    return { data };
  }

  async function query(body, transaction) {
    const fieldsOf = (document) => parse(document.query).definitions[0].selectionSet.selections;
    if (!body.batch) return run(fieldsOf(body), transaction);
    const documents = body.batch.map(fieldsOf);
    if (!body.transaction) {
      return { batchResult: await Promise.all(documents.map((fields) => run(fields, transaction))) };
    }
    const answer = await run(documents.flat().map((field, index) => ({ ...field, alias: { value: String(index) } })), transaction);
    if (answer.errors) return answer;
    let index = 0;
    return {
      batchResult: documents.map((fields) => ({
        data: Object.fromEntries(fields.map((field) => [field.alias?.value ?? field.name.value, answer.data[String(index++)]])),
      })),
    };
  }

  async function answer(request, body) {
    const [route] = request.url.split('?');
    if (route === '/status') return { status: 'ok' };
    if (route === '/metrics') return { counters: [], gauges: [], histograms: [] };
    if (route === '/transaction/start') return reveal(JSON.parse(await engine.startTransaction(body, '{}')));
    const end = route.match(/^\/transaction\/([^/]+)\/(commit|rollback)$/);
    if (end) return reveal(JSON.parse(await engine[`${end[2]}Transaction`](end[1], '{}')));
    return query(JSON.parse(body), request.headers['x-transaction-id']);
  }

  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', async () => {
      const body = Buffer.concat(chunks).toString();
      const result = await answer(request, body).catch((failure) => asErrors(failure, url));
      const text = JSON.stringify(result);
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
      response.end(text);
    });
  });
  server.keepAliveTimeout = 120_000;
  server.listen(port, 'localhost');
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
  // Never outlive the proxy that started it.
  const parent = process.ppid;
  setInterval(() => { if (process.ppid !== parent) process.exit(0); }, 1000).unref();
}

main().catch((failure) => {
  console.error(`query engine stand-in: ${failure?.message ?? failure}`);
  process.exit(1);
});
