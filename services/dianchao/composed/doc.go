// Package composed holds tests alone: the system as docker-compose.yml brings it up, with its parts killed, paused, cut
// off, scaled and restarted under load. They need Docker and ten minutes, so they are behind a build tag:
//
//	go test -v -tags composed -timeout 40m ./services/dianchao/composed
//
// Two hundred people click about once a second each, and behave as web/dianchao.js does when a connection breaks. At the
// end of a row every click is accounted for: answered once, with what the right meter showed, or failed with a code that
// is true of the fault at hand, in time. In time is one second after the later of its deadline and the moment it was last
// asked: who lost the connection asks again over the next one, and from then on it is the server's turn again. Who has no
// connection when two seconds have passed since the deadline gives up ("no_answer"), as the library does.
package composed
