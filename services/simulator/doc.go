// Package simulator is a town of concentrators that do not exist: each dials in to a gateway's cjt188 listener
// over real TCP, names itself, sends heartbeats, and passes CJ/T 188 requests on to the water meters of its bus.
//
// The concentrators are 101, 102, …; the meters of concentrator C are C001, C002, …. What a meter says follows
// from its address and the time alone, so that a town of any size is the same in every process, costs no memory
// until it is read, and an answer that reached the wrong asker shows: see Volume. Faults can be injected at set
// rates from a seed: see Faults.
package simulator
