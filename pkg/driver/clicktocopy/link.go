package clicktocopy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/dianchao/dianchao/pkg/driver"
)

// window is the largest object that is understood; an answer has some 80 bytes. It bounds what Next waits for.
const window = 4096

type link struct{}

// Next implements driver.Link. Every whole JSON object is a frame; what is between objects (white space, the
// NUL bytes of a fixed buffer, other JSON values) is noise.
func (link) Next(b []byte, quiet bool) (driver.Event, int) {
	if len(b) == 0 {
		return driver.Event{}, 0
	}
	if b[0] == '{' {
		n, more := object(b[:min(len(b), window)])
		if n > 0 {
			return driver.Event{Kind: driver.Frame, Raw: b[:n]}, n
		}
		if more && !quiet && len(b) < window {
			return driver.Event{}, 0
		}
	}
	n := 1 + bytes.IndexByte(b[1:], '{')
	if n == 0 {
		n = len(b)
	}
	return driver.Event{Kind: driver.Noise, Raw: b[:n]}, n
}

// object returns the size of the JSON object at the start of b. n = 0 and more: b ends before it does.
//
// Braces and quotes cannot be counted in the bytes as they come: the second byte of a character of GBK can be
// that of '{' or '\'. So the text is decoded first, and the object's end translated back into bytes.
func object(b []byte) (n int, more bool) {
	text, err := decode(b)
	if err != nil {
		return 0, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		return 0, errors.Is(err, io.ErrUnexpectedEOF)
	}
	// Given room for the object alone, the decoder stops where the object ends.
	_, n, _ = simplifiedchinese.GB18030.NewDecoder().Transform(make([]byte, d.InputOffset()), b, true)
	return n, false
}

// decode reads b as GB18030, a superset of the dialect's GB2312. What is no such text, e.g. a character that is
// cut off or UTF-8, becomes the replacement character; the dialect's own fields are ASCII.
func decode(b []byte) ([]byte, error) { return simplifiedchinese.GB18030.NewDecoder().Bytes(b) }
