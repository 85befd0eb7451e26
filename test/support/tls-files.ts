/** The certificates in tls/ as tests of TLS need them. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const path = (name: string): string => fileURLToPath(new URL(`./tls/${name}`, import.meta.url));

export const authority = path('authority.crt');
export const authorityPem = readFileSync(authority, 'utf8');
export type Holder = 'localhost' | 'elsewhere';
export const certificate = (of: Holder): string => path(`${of}.crt`);
export const key = (of: Holder): string => path(`${of}.key`);
export const certificatePem = (of: Holder): string => readFileSync(certificate(of), 'utf8');
export const keyPem = (of: Holder): string => readFileSync(key(of), 'utf8');

/** Arguments of a redis-server that speaks TLS alone, on that port, and wants certificates of its clients. */
export const tlsArgs = (port: number, of: Holder = 'localhost'): readonly string[] => [
  ...['--port', '0', '--tls-port', String(port), '--tls-ca-cert-file', authority],
  ...['--tls-cert-file', certificate(of), '--tls-key-file', key(of)],
];
