// Package faults holds tests alone: the services over a real NATS, with everything between a concentrator and the
// gateway going wrong that does in the field. A link is slow, sliced, cut or half open (toxiproxy stands in between);
// meters are silent, late, corrupt or answer for each other (the simulator's own faults); a peer is hostile.
//
// Whatever happens, every click gets exactly one terminal answer, by its deadline plus a second: a reading of the
// meter that was asked, or a code that says honestly what went wrong. A concentrator next to it notices nothing.
package faults
