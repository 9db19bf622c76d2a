package clicktocopy_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/clicktocopy"
	"github.com/dianchao/dianchao/pkg/meter"
)

// In GB18030: 株 has an ASCII-like second byte in no edition, 亄 (81 7B) ends in '{', 乗 (81 5C) in '\', and
// 81 30 81 30 is a character of four bytes.
const tricky = "\xD6\xEA\x81\x7B\x81\x5C\x81\x30\x81\x30\x81\x7D"

const answer = `{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":123.45}`

func ask(t *testing.T) driver.Exchange {
	t.Helper()
	c, err := meter.ParseConcentratorID("101")
	if err != nil {
		t.Fatal(err)
	}
	m, err := meter.ParseAddress("101001")
	if err != nil {
		t.Fatal(err)
	}
	d := clicktocopy.New()
	return d.NewLink(true).Request(c, m)
}

func TestRequest(t *testing.T) {
	const want = `{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":0.0,"IsDownCommand":false}`
	if got := string(ask(t).Frame()); got != want {
		t.Errorf("request %s, want %s", got, want)
	}
}

func TestJudge(t *testing.T) {
	const head = `{"ConcentratorNo":"101","WaterMtrAddress":"101001",`
	for name, row := range map[string]struct{ text, volume, bad, foreign string }{
		"the answer":                 {text: answer, volume: "123.45"},
		"unknown fields, Chinese":    {text: head + `"AccumVal":123.45,"楼":"` + tricky + `","IsDownCommand":false}`, volume: "123.45"},
		"UTF-8 in an unknown field":  {text: head + `"Name":"字","AccumVal":123.45}`, volume: "123.45"},
		"more digits than a float":   {text: head + `"AccumVal":123456789012.123456789}`, volume: "123456789012.123456789"},
		"trailing zeros":             {text: head + `"AccumVal":120.00}`, volume: "120.00"},
		"an exponent":                {text: head + `"AccumVal":1.2345E+2}`, volume: "123.45"},
		"the number as text":         {text: head + `"AccumVal":"123.45"}`, volume: "123.45"},
		"the concentrator as number": {text: `{"ConcentratorNo":101,"WaterMtrAddress":"101001","AccumVal":1}`, volume: "1"},
		"a field in another case":    {text: head + `"accumval":9,"AccumVal":1}`, volume: "1"},
		"negative":                   {text: head + `"AccumVal":-0.01}`, bad: "cannot be negative"},
		"no number":                  {text: head + `"IsDownCommand":true}`, bad: "no number in AccumVal"},
		"null":                       {text: head + `"AccumVal":null}`, bad: "no number in AccumVal"},
		"an object for a number":     {text: head + `"AccumVal":{}}`, bad: "no number in AccumVal"},
		"text that is no number":     {text: head + `"AccumVal":"NaN"}`, bad: "not a decimal number"},
		"an absurd exponent":         {text: head + `"AccumVal":1e999999999}`, bad: "AccumVal"},
		"another meter":              {text: strings.Replace(answer, "101001", "101002", 1), foreign: "meter 101002 answered"},
		"another concentrator":       {text: strings.Replace(answer, `"101"`, `"102"`, 1), foreign: "concentrator 102 answered"},
		"no meter":                   {text: `{"ConcentratorNo":"101","AccumVal":1}`, foreign: "an object without"},
		"names in the wrong case":    {text: strings.ToLower(answer), foreign: "an object without"},
		"something else":             {text: `{}`, foreign: "an object without"},
		"no JSON":                    {text: `{`, foreign: "no JSON object"},
		"no object":                  {text: `[1]`, foreign: "no JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			v := ask(t).Judge([]byte(row.text))
			switch {
			case row.volume != "":
				if v.Reading == nil || v.Err != nil || v.Foreign != "" || v.Reading.Volume.String() != row.volume {
					t.Errorf("verdict %+v %v, want volume %s", v, v.Err, row.volume)
				}
			case row.bad != "":
				if v.Err == nil || v.Reading != nil || v.Foreign != "" || v.Err.Code != meter.CodeBadAnswer || !strings.Contains(v.Err.Message, row.bad) {
					t.Errorf("verdict %+v %v, want bad_answer with %q", v, v.Err, row.bad)
				}
			default:
				if v.Reading != nil || v.Err != nil || !strings.Contains(v.Foreign, row.foreign) {
					t.Errorf("verdict %+v, want foreign with %q", v, row.foreign)
				}
			}
		})
	}
}

// Objects are what stands in braces, whatever is between them and however the bytes came.
func TestNext(t *testing.T) {
	chinese := `{"Name":"` + tricky + `","Of":{"a":[1,{"b":"}"}]}}`
	for name, row := range map[string]struct {
		sent string
		want []string
	}{
		"one":                        {answer, []string{answer}},
		"glued":                      {answer + answer, []string{answer, answer}},
		"NUL bytes between":          {answer + "\x00\x00\x00" + answer + "\x00", []string{answer, answer}},
		"characters that end like {": {chinese + answer, []string{chinese, answer}},
		"behind an open brace":       {"{{" + answer, []string{answer}},
		"behind a broken object":     {`{"ConcentratorNo":"101",}` + answer, []string{answer}},
		"behind a cut object":        {`{"ConcentratorNo":"1` + answer, []string{answer}},
		"other JSON values":          {`null 12 "x" ` + answer, []string{answer}},
		"nothing":                    {"HTTP/1.1 400 Bad Request\r\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := []byte(row.sent)
			for at := range b {
				if got := objects(t, b[:at], b[at:]); !slices.Equal(got, row.want) {
					t.Fatalf("cut at %d: %q, want %q", at, got, row.want)
				}
			}
			if got := objects(t, slices.Collect(slices.Chunk(b, 1))...); !slices.Equal(got, row.want) {
				t.Fatalf("byte by byte: %q, want %q", got, row.want)
			}
		})
	}
}

// objects returns the frames that a link finds in the pieces and the silence behind them.
func objects(t *testing.T, pieces ...[]byte) (frames []string) {
	t.Helper()
	d := clicktocopy.New()
	link := d.NewLink(true)
	var pending []byte
	drain := func(quiet bool) {
		for len(pending) > 0 {
			e, n := link.Next(pending, quiet)
			if n < 0 || n > len(pending) || n == 0 && (quiet || len(pending) >= d.Traits().MaxFrame) {
				t.Fatalf("Next(%q, %v) took %d bytes", pending, quiet, n)
			}
			if n == 0 {
				return
			}
			if e.Kind == driver.Frame {
				frames = append(frames, string(e.Raw))
			}
			pending = pending[n:]
		}
	}
	for _, p := range pieces {
		pending = append(pending, p...)
		drain(false)
	}
	drain(true)
	return frames
}

func TestAnObjectThatIsTooLargeIsNoise(t *testing.T) {
	large := fmt.Sprintf(`{"Name":"%s"}`, bytes.Repeat([]byte("x"), 5000))
	if got := objects(t, []byte(large), []byte(answer)); !slices.Equal(got, []string{answer}) {
		t.Errorf("frames %q", got)
	}
}

func FuzzNext(f *testing.F) {
	for _, s := range []string{answer, answer + "\x00" + answer, `{"a":"` + tricky + `"}`, `{"ConcentratorNo":"101"`, "{{{[[", `{"a":"\`, "\xD6{\x81\x30\x81"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		x := ask(t)
		for _, frame := range objects(t, slices.Collect(slices.Chunk(b, int(size)+1))...) {
			if v := x.Judge([]byte(frame)); strings.HasPrefix(v.Foreign, "no JSON") {
				t.Fatalf("frame %q: %s", frame, v.Foreign)
			}
		}
	})
}
