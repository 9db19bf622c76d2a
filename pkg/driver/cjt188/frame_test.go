package cjt188_test

import (
	"bytes"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver/cjt188"
)

func TestParseRefuses(t *testing.T) {
	for name, row := range map[string]struct{ hex, why string }{
		"nothing":                  {"", "no 68 at the start of the frame"},
		"preamble alone":           {"FEFEFE", "no 68 at the start of the frame"},
		"something else":           {"4C4F47", "no 68 at the start of the frame"},
		"no length":                {"FE68100501000000000001", "the frame ends after 10 bytes, before its length"},
		"a byte too few":           {"6810880527101520000103901F0125", "length is 15 bytes, L says 16"},
		"a byte too many":          {"6810880527101520000103901F01251600", "length is 17 bytes, L says 16"},
		"no data":                  {"68108805271015200001006E16", "the length L is 00, it must be from 01 to 64"},
		"another end":              {"6810880527101520000103901F012517", "the frame ends with 17, not with 16"},
		"another checksum":         {"6810880527101520000103901F022516", "checksum is 25, calculated 26"},
		"an L that nothing can be": {"681088052710152000018000" + zeros(126) + "0016", "the length L is 80, it must be from 01 to 64"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := cjt188.Parse(unhex(t, row.hex)); err == nil || err.Error() != row.why {
				t.Errorf("%v, want %q", err, row.why)
			}
		})
	}
}

func zeros(n int) string { return string(bytes.Repeat([]byte("00"), n+1)) }

func TestAddress(t *testing.T) {
	a, err := cjt188.ParseAddress("78330123456789")
	if err != nil || a != (cjt188.Address{0x89, 0x67, 0x45, 0x23, 0x01, 0x33, 0x78}) || a.String() != "78330123456789" {
		t.Errorf("address % X, %v", a, err)
	}
	for _, bad := range []string{"", "7833012345678", "783301234567890", "7833012345678A", "AAAAAAAAAAAAAA", "-8330123456789"} {
		if _, err := cjt188.ParseAddress(bad); err == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
}

func TestAppendPanicsOnWhatCannotBeSent(t *testing.T) {
	for _, size := range []int{0, 101} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a frame of %d data bytes was encoded", size)
				}
			}()
			cjt188.Frame{Data: make([]byte, size)}.Append(nil)
		}()
	}
}

// Whatever parses encodes to the same bytes; whatever reads can be read again.
func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.published(f))
		if v.Resealed != "" {
			f.Add(unhex(f, v.Resealed))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := cjt188.Parse(b)
		if err != nil {
			return
		}
		out := frame.Append(nil)
		if !bytes.HasSuffix(b, out) {
			t.Errorf("%X was parsed and encoded as %X", b, out)
		}
		frame.DI()
		frame.Serial()
		if r, err := frame.Reading(); err == nil && r.RawStatus == nil {
			t.Errorf("a reading without status bytes from %X", b)
		}
	})
}
