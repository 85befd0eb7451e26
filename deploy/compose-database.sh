#!/bin/sh
# Run once by the PostgreSQL image: a database, and a role of its own that row-level security holds.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -v password="$NOOBLE_PASSWORD" <<'SQL'
create role nooble login password :'password';
create database nooble owner nooble;
SQL
