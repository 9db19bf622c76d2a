package main

import (
	"testing"

	"github.com/alecthomas/kong"
)

// parse reads a command line as main does.
func parse(t *testing.T, args ...string) *commands {
	t.Helper()
	var c commands
	p, err := kong.New(&c, options()...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &c
}
