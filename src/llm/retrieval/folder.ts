/** The texts of one collection on the disk. No name and no link leads out of the collection's own folder. */
import {
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';

/** Of one collection; what is beyond is left out, and said. */
const MAX_FILES = 2_000;
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_COLLECTION_BYTES = 16 * 1024 * 1024;
const MAX_NAME_UNITS = 128;
const TEXTS = /\.(md|txt)$/i;

export interface TextFile {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  /** Another stamp, another text. */
  readonly stamp: string;
}

interface Listing {
  readonly files: readonly TextFile[];
  /** Files that are too large or too many. */
  readonly leftOut: number;
}

/** Whether a tenant or a collection of that name could have a folder: nothing that is a path, or leads upwards. */
export const isFolderName = (name: string): boolean =>
  name !== '' &&
  name.length <= MAX_NAME_UNITS &&
  name !== '.' &&
  name !== '..' &&
  !/[/\\]|\p{Cc}/u.test(name);

/** What lies in the collection now, by name; nothing where there is no such folder. Throws for a name that is none. */
export function listTexts(root: string, tenant: string, collection: string): Listing {
  const folder = folderOf(root, tenant, collection);
  if (folder === null) return { files: [], leftOut: 0 };
  const entries = readdirSync(folder, { withFileTypes: true }).filter(isText);
  const files: TextFile[] = [];
  let bytes = 0;
  for (const { name } of entries.sort((one, other) => (one.name < other.name ? -1 : 1))) {
    if (files.length >= MAX_FILES) break;
    const path = join(folder, name);
    const found = statSync(path, { throwIfNoEntry: false });
    if (!found || found.size > MAX_FILE_BYTES || bytes + found.size > MAX_COLLECTION_BYTES) continue;
    bytes += found.size;
    files.push({ name, path, bytes: found.size, stamp: `${found.mtimeMs} ${found.size} ${found.ino}` });
  }
  return { files, leftOut: entries.length - files.length };
}

/** A link is no file here, whatever it points to. */
const isText = (entry: Dirent): boolean => entry.isFile() && TEXTS.test(entry.name);

/**
 * The folder, or null where there is none. Its real path must be the one its names spell: a link on the way would lead
 * elsewhere, and on a file system that ignores case another name would lead to another tenant.
 */
function folderOf(root: string, tenant: string, collection: string): string | null {
  if (!isFolderName(tenant) || !isFolderName(collection)) throw new Error('That is no name of a collection.');
  try {
    const folder = join(realpathSync.native(root), tenant, collection);
    return realpathSync.native(folder) === folder && statSync(folder).isDirectory() ? folder : null;
  } catch {
    return null;
  }
}

/** A text as it is now; null where it is gone, has grown too large, or has become a link meanwhile. */
export function readText(path: string): string | null {
  let file: number | undefined;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const found = fstatSync(file);
    return found.isFile() && found.size <= MAX_FILE_BYTES ? readFileSync(file, 'utf8') : null;
  } catch {
    return null;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
