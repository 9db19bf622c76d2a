package meter

import (
	"fmt"
	"slices"
)

// names gives a small enumeration its text on the wire and refuses every other.
type names[E ~uint8] struct {
	what   string
	toText map[E]string
	toEnum map[string]E
}

func newNames[E ~uint8](what string, texts map[E]string) names[E] {
	n := names[E]{what, texts, make(map[string]E, len(texts))}
	for e, text := range texts {
		n.toEnum[text] = e
	}
	return n
}

func (n names[E]) text(e E) string {
	if s, ok := n.toText[e]; ok {
		return s
	}
	return fmt.Sprintf("%s %d", n.what, uint8(e))
}

func (n names[E]) marshal(e E) ([]byte, error) {
	s, ok := n.toText[e]
	if !ok {
		return nil, fmt.Errorf("no such %s: %d", n.what, uint8(e))
	}
	return []byte(s), nil
}

func (n names[E]) unmarshal(e *E, b []byte) error {
	v, ok := n.toEnum[string(b)]
	if !ok {
		return Errorf(CodeBadCommand, "unknown %s %.40q", n.what, b)
	}
	*e = v
	return nil
}

func (n names[E]) all() []E {
	out := make([]E, 0, len(n.toText))
	for e := range n.toText {
		out = append(out, e)
	}
	slices.Sort(out)
	return out
}
