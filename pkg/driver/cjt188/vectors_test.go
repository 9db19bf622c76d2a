package cjt188_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
)

// vector is a frame that somebody published, with what it means.
type vector struct {
	Name        string
	Hex         string // as published
	Origin      string
	NoiseBefore int    `json:"noise_before"` // bytes in front of the frame and behind it that are not its own
	NoiseBehind int    `json:"noise_behind"`
	Refused     string // why the frame must be refused; Resealed is then the frame with its checksum put right
	Resealed    string
	Frame       struct{ Type, Address, Control, Data string }
	DI          string
	Serial      byte
	Reading     json.RawMessage
}

func vectors(t testing.TB) (all []vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// published returns the vector's frame without the noise around it.
func (v vector) published(t testing.TB) []byte {
	b := unhex(t, v.Hex)
	return b[v.NoiseBefore : len(b)-v.NoiseBehind]
}

func TestPublishedFrames(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			b := v.published(t)
			if v.Refused != "" {
				if _, err := cjt188.Parse(b); err == nil || err.Error() != v.Refused {
					t.Fatalf("Parse: %v, want %q", err, v.Refused)
				}
				if v.Resealed == "" {
					return
				}
				b = unhex(t, v.Resealed)
			}
			f, err := cjt188.Parse(b)
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			v.check(t, f)
			// The same bytes the other way, but for the preamble.
			out := f.Append(nil)
			if preamble := bytes.Repeat([]byte{0xFE}, len(b)-len(out)); !bytes.Equal(append(preamble, out...), b) {
				t.Errorf("Append: %X, want %X", out, b)
			}
		})
	}
}

func (v vector) check(t *testing.T, f cjt188.Frame) {
	t.Helper()
	want := v.Frame
	if f.Type.String() != want.Type || f.Address.String() != want.Address ||
		f.Control != unhex(t, want.Control)[0] || !bytes.Equal(f.Data, unhex(t, want.Data)) {
		t.Errorf("frame %+v, want %+v", f, want)
	}
	if di, ok := f.DI(); ok != (v.DI != "") || ok && di.String() != v.DI {
		t.Errorf("DI %s %v, want %q", di, ok, v.DI)
	}
	if ser, ok := f.Serial(); !ok || ser != v.Serial {
		t.Errorf("serial %d %v, want %d", ser, ok, v.Serial)
	}
	if v.Reading == nil {
		return
	}
	r, err := f.Reading()
	if err != nil {
		t.Fatalf("Reading: %v", err)
	}
	if got, want := asJSON(t, r), asJSON(t, v.Reading); got != want {
		t.Errorf("reading\n %s, want\n %s", got, want)
	}
}

// asJSON spells v with its keys in alphabetical order.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A link finds each of them in what came, with whatever its concentrator added, in any pieces.
func TestPublishedFramesOnALink(t *testing.T) {
	d := cjt188.New()
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			b := unhex(t, v.Hex)
			if v.Refused != "" {
				if events := feed(&d, [][]byte{b}); count(events, driver.Frame) != 0 {
					t.Errorf("a refused frame is %v", events)
				}
				return
			}
			bytewise := make([][]byte, len(b))
			for i := range b {
				bytewise[i] = b[i : i+1]
			}
			for _, pieces := range [][][]byte{{b}, bytewise} {
				events := feed(&d, pieces)
				if count(events, driver.Frame) != 1 {
					t.Fatalf("%v, want one frame", events)
				}
				for _, e := range events {
					if e.kind == driver.Frame && !strings.HasSuffix(strings.ToUpper(hex.EncodeToString(v.published(t))), e.raw) {
						t.Errorf("frame %s", e.raw)
					}
				}
			}
		})
	}
}

// event is a driver.Event that can be compared and read.
type event struct {
	kind driver.Kind
	raw  string // hexadecimal
	name string
}

// feed returns what a listening link makes of the pieces, in order, and of the silence after them.
func feed(d *cjt188.Driver, pieces [][]byte) (events []event) {
	link := d.NewLink(false)
	var pending []byte
	drain := func(quiet bool) {
		for {
			e, n := link.Next(pending, quiet)
			if n == 0 {
				return
			}
			raw := strings.ToUpper(hex.EncodeToString(e.Raw))
			if last := len(events) - 1; e.Kind == driver.Noise && last >= 0 && events[last].kind == driver.Noise {
				events[last].raw += raw // how noise is cut up depends on how it came
			} else {
				events = append(events, event{e.Kind, raw, e.Concentrator.String()})
			}
			pending = pending[n:]
		}
	}
	for _, p := range pieces {
		pending = append(pending, p...)
		drain(false)
	}
	drain(true)
	return events
}

func count(events []event, kind driver.Kind) (n int) {
	for _, e := range events {
		if e.kind == kind {
			n++
		}
	}
	return n
}
