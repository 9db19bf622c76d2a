// Package web holds the console and the client library, dianchao.js, that an edge node serves.
package web

import "embed"

// Files are served as they are, index.html at "/". Nothing in them comes from another host, and no page has an
// inline script or style, so that they work under
// "default-src 'self'; connect-src 'self' ws: wss:; style-src 'self'; script-src 'self'".
//
//go:embed index.html dianchao.js icon.svg console
var Files embed.FS
