/** Lets requests have 16 KiB of headers: uWebSockets.js takes 4 KiB, unless this variable says otherwise when it is loaded. */
// Said to the library alone: it is no setting of the node, and whoever sets it is obeyed.
process.env.UWS_HTTP_MAX_HEADERS_SIZE ??= String(16 * 1024);
