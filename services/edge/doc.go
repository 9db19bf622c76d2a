// Package edge is the service between clients and NATS: it speaks docs/browser.md (the dianchao.v1 session protocol,
// the ClickToCopy dialect, HTTP) on one port and turns every read into a command on NATS.
//
// An edge node keeps nothing that outlives a connection. A client that lost its connection asks again with the same
// command id, at any node, and the gateway joins it to the exchange that still runs.
//
// Who asks is a session: a WebSocket connection, or one HTTP request. A session holds its outstanding commands; the
// roster holds the sessions; one wildcard subscription brings the answers of all of them. The reply's subject names
// session and command, so an answer finds its asker with two look-ups and no decoding beyond its stage.
package edge
