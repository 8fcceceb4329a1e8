#!/usr/bin/env node
// Stand-in for Prisma's schema-engine binary (see query-engine.js): what `prisma migrate deploy` asks of it.
//
// LiteLLM's own migration command and the real Prisma CLI run unchanged; this end applies the SQL files in order,
// each as one simple query (so one implicit transaction), under the engine's advisory lock, and keeps its ledger.
// Anything else, such as the drift check `prisma migrate diff`, is answered with an error, which LiteLLM ignores.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { Client } = require('pg');
const { enginesVersion } = require('@prisma/engines-version');

const LOCK = 72707369; // the advisory lock that Prisma's engine takes, and LiteLLM looks for
const LEDGER = `CREATE TABLE IF NOT EXISTS "_prisma_migrations" (
  id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL, finished_at TIMESTAMPTZ,
  migration_name VARCHAR(255) NOT NULL, logs TEXT, rolled_back_at TIMESTAMPTZ,
  started_at TIMESTAMPTZ NOT NULL DEFAULT now(), applied_steps_count INTEGER NOT NULL DEFAULT 0)`;

class UserFacingError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function connect() {
  const url = new URL(process.env.DATABASE_URL);
  for (const name of [...url.searchParams.keys()]) url.searchParams.delete(name);
  const client = new Client({ connectionString: url.toString(), connectionTimeoutMillis: 5000 });
  await client.connect().catch(() => {
    throw new UserFacingError('P1001', `Can't reach database server at \`${url.hostname}\`:\`${url.port}\``);
  });
  return client;
}

const names = (directory) =>
  fs.readdirSync(directory).filter((name) => fs.existsSync(path.join(directory, name, 'migration.sql'))).sort();

async function applyMigrations({ migrationsDirectoryPath: directory }) {
  const client = await connect();
  try {
    await client.query('SELECT pg_advisory_lock($1)', [LOCK]);
    await client.query(LEDGER);
    const { rows } = await client.query('SELECT * FROM "_prisma_migrations" WHERE rolled_back_at IS NULL');
    const failed = rows.find((row) => row.finished_at === null);
    if (failed) {
      throw new UserFacingError('P3009',
        'migrate found failed migrations in the target database, new migrations will not be applied.\n' +
        `The \`${failed.migration_name}\` migration started at ${failed.started_at.toISOString()} failed`);
    }
    const applied = new Set(rows.map((row) => row.migration_name));
    const pending = names(directory).filter((name) => !applied.has(name));
    for (const name of pending) {
      const script = fs.readFileSync(path.join(directory, name, 'migration.sql'), 'utf8');
      const id = crypto.randomUUID();
      const checksum = crypto.createHash('sha256').update(script).digest('hex');
      await client.query('INSERT INTO "_prisma_migrations" (id, checksum, migration_name) VALUES ($1, $2, $3)', [id, checksum, name]);
      try {
        await client.query(script);
      } catch (failure) {
        const report = `Database error code: ${failure.code}\n\nDatabase error:\nERROR: ${failure.message}`;
        await client.query('UPDATE "_prisma_migrations" SET logs = $2 WHERE id = $1', [id, report]);
        throw new UserFacingError('P3018',
          'A migration failed to apply. New migrations cannot be applied before the error is recovered from.\n\n' +
          `Migration name: ${name}\n\n${report}`);
      }
      await client.query('UPDATE "_prisma_migrations" SET finished_at = now(), applied_steps_count = 1 WHERE id = $1', [id]);
    }
    return { appliedMigrationNames: pending };
  } finally {
    await client.end();
  }
}

/** What `prisma migrate resolve --rolled-back NAME` asks for. */
async function markMigrationRolledBack({ migrationName }) {
  const client = await connect();
  try {
    await client.query(
      'UPDATE "_prisma_migrations" SET rolled_back_at = now() WHERE migration_name = $1 AND finished_at IS NULL', [migrationName]);
    return {};
  } finally {
    await client.end();
  }
}

const METHODS = {
  markMigrationRolledBack,
  applyMigrations,
  listMigrationDirectories: async ({ migrationsDirectoryPath }) => ({ migrations: names(migrationsDirectoryPath) }),
};

async function serve() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, method, params } = JSON.parse(line);
    let reply;
    try {
      if (!METHODS[method]) throw new UserFacingError('P0000', `${method} is not part of this stand-in`);
      reply = { result: await METHODS[method](params) };
    } catch (failure) {
      const data = { is_panic: false, message: failure.message, meta: null, error_code: failure.code };
      reply = { error: { code: 4466, message: 'An error happened. Check the data field for details.', data } };
    }
    console.log(JSON.stringify({ jsonrpc: '2.0', id, ...reply }));
  }
}

if (process.argv.includes('--version')) console.log(`schema-engine-cli ${enginesVersion.split('.').pop()}`);
else if (process.argv.includes('can-connect-to-database')) console.log('Connection successful'); // applying it will tell
else serve();
