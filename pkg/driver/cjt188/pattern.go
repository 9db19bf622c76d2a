package cjt188

import (
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Pattern is what a registration packet (注册包) looks like: a regular expression whose group "number" is the
// concentrator's number. It is matched at the place in question only, and sees every byte as the character
// of that number, so that \xFE stands for the byte FE. The zero Pattern matches nothing.
type Pattern struct {
	expression *regexp.Regexp
	number     int // index of the group
	program    *syntax.Prog
	first      [256]bool // the bytes that a match can begin with
}

const numberGroup = "number"

// ParsePattern returns an error if s is no regular expression, has no group "number" or matches the empty text.
func ParsePattern(s string) (Pattern, error) {
	var p Pattern
	err := p.UnmarshalText([]byte(s))
	return p, err
}

// UnmarshalText is ParsePattern.
func (p *Pattern) UnmarshalText(b []byte) error {
	anchored := `\A(?:` + string(b) + `)`
	expression, err := regexp.Compile(anchored)
	if err != nil {
		return fmt.Errorf("the registration %q is no regular expression: %w", b, err)
	}
	number := expression.SubexpIndex(numberGroup)
	if number < 0 {
		return fmt.Errorf("the registration %q has no group (?P<%s>…) for the concentrator's number", b, numberGroup)
	}
	if expression.MatchString("") {
		return fmt.Errorf("the registration %q matches the empty text", b)
	}
	parsed, err := syntax.Parse(anchored, syntax.Perl)
	if err != nil {
		return err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return err
	}
	*p = Pattern{expression: expression, number: number, program: program}
	for _, pc := range p.follow(nil, uint32(program.Start), true) {
		for c := range p.first {
			p.first[c] = p.first[c] || p.accepts(pc, byte(c))
		}
	}
	return nil
}

// match returns who registers at the start of b and how many bytes that takes. n = 0 and more: further bytes
// could begin, end or lengthen a registration, which final rules out.
func (p *Pattern) match(b []byte, final bool) (id meter.ConcentratorID, n int, more bool) {
	if len(b) == 0 || !p.first[b[0]] {
		return id, 0, false
	}
	if !final && p.open(b) {
		return id, 0, true
	}
	at := p.expression.FindReaderSubmatchIndex(&byteRunes{b})
	if at == nil || at[2*p.number] < 0 {
		return id, 0, false
	}
	id, err := meter.ParseConcentratorID(string(b[at[2*p.number]:at[2*p.number+1]]))
	if err != nil {
		return id, 0, false
	}
	return id, at[1], false
}

// open reports whether bytes behind b could still change what b matches: "LOGIN:30" may go on as "LOGIN:301".
// regexp cannot say that, so the compiled program is run here, all its threads at once (Thompson's simulation).
func (p *Pattern) open(b []byte) bool {
	threads := p.follow(nil, uint32(p.program.Start), true)
	for _, c := range b {
		var next []uint32
		for _, pc := range threads {
			if p.accepts(pc, c) {
				next = p.follow(next, p.program.Inst[pc].Out, false)
			}
		}
		if len(next) == 0 {
			return false
		}
		threads = next
	}
	return true
}

// follow adds to threads where the program can stand from pc on without another byte: before a byte, or
// before an end-of-text, which only silence can tell. Other assertions are taken as fulfilled: at worst a
// packet is waited for that does not come.
func (p *Pattern) follow(threads []uint32, pc uint32, atStart bool) []uint32 {
	seen := make([]bool, len(p.program.Inst))
	for _, t := range threads {
		seen[t] = true
	}
	todo := []uint32{pc}
	for len(todo) > 0 {
		pc, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		i := &p.program.Inst[pc]
		switch i.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			todo = append(todo, i.Out, i.Arg)
		case syntax.InstCapture, syntax.InstNop:
			todo = append(todo, i.Out)
		case syntax.InstEmptyWidth:
			switch op := syntax.EmptyOp(i.Arg); {
			case op&syntax.EmptyEndText != 0:
				threads = append(threads, pc)
			case op&syntax.EmptyBeginText == 0 || atStart:
				todo = append(todo, i.Out)
			}
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			threads = append(threads, pc)
		}
	}
	return threads
}

func (p *Pattern) accepts(pc uint32, c byte) bool {
	switch i := &p.program.Inst[pc]; i.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return i.MatchRune(rune(c))
	}
	return false
}

// byteRunes reads each byte as one character, so that regexp's positions are positions in the bytes.
type byteRunes struct{ rest []byte }

func (r *byteRunes) ReadRune() (c rune, size int, err error) {
	if len(r.rest) == 0 {
		return 0, 0, io.EOF
	}
	c, r.rest = rune(r.rest[0]), r.rest[1:]
	return c, 1, nil
}
