// Package meter is the contract of dianchao: the commands, answers, stages, error codes and NATS subjects
// that the edge, the gateway and anybody with the NATS CLI agree on. It is written down for people in
// docs/nats.md. It imports nothing else of the project.
//
// Values of these types are valid by construction: a ConcentratorID can only come out of its parser, a
// Decimal is exact, an unknown stage or code does not decode.
package meter
