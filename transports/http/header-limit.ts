/** Lets requests have 16 KiB of headers: uWebSockets.js takes 4 KiB, unless this variable says otherwise when it is loaded. */
process.env.UWS_HTTP_MAX_HEADERS_SIZE ??= String(16 * 1024);

export {};
