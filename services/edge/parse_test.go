package edge

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/dianchao/dianchao/pkg/meter"
)

func TestParseMeters(t *testing.T) {
	gb, err := simplifiedchinese.GB18030.NewEncoder().String("集中器编号,水表地址,名称\n101,101001,一单元 101 室\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, csv, want string }{
		{"plain", "101,101001,Flat 1\n102,102001,\n", "101/101001/Flat 1 102/102001/"},
		{"no names", "101,101001\n101, 101002 \n", "101/101001/ 101/101002/"},
		{"a heading, a byte order mark, CR LF, quotes", "\xef\xbb\xbfconcentrator,meter,name\r\n101,101001,\"Flat 1, left\"\r\n", "101/101001/Flat 1, left"},
		{"GB18030", gb, "101/101001/一单元 101 室"},
		{"empty", "", ""},
		{"letters without a heading", "A,B7,x\n", "A/B7/x"},
	} {
		t.Run(row.name, func(t *testing.T) {
			listed, err := parseMeters([]byte(row.csv))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range listed {
				got = append(got, m.Concentrator.String()+"/"+m.Meter.String()+"/"+m.Name)
			}
			if strings.Join(got, " ") != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestParseMetersNamesTheLine(t *testing.T) {
	for _, row := range []struct{ name, csv, want string }{
		{"illegal concentrator", "101,1\n1.1,2\n", `line 2: concentrator number "1.1"`},
		{"illegal meter after a heading", "concentrator,meter\n101,1\n\n101,a b\n", `line 4: meter address "a b"`},
		{"one field", "101,1\n102\n", "line 2: 1 fields"},
		{"four fields", "101,1,a,b\n", "line 1: 4 fields"},
		{"a broken quote", "101,1,\"a\n", "line 1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := parseMeters([]byte(row.csv)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func TestMetersFileIsNamedInErrors(t *testing.T) {
	path := t.TempDir() + "/meters.csv"
	if err := os.WriteFile(path, []byte("101,1\n101\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadMeters(path); err == nil || !strings.Contains(err.Error(), path+": line 2") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, seed := range []string{
		`{"type":"read","id":"7b5e","concentrator":"101","meter":"101001","timeout_ms":15000,"max_age_ms":0,"stages":true}`,
		`{"type":"cancel","id":"7b5e"}`, `{"type":"presence","subscribe":true}`, `{"type":"ping"}`,
		`{"type":"frames","concentrator":"101","subscribe":true}`,
		`{"type":"read","id":null}`, `[]`, `{"type":{}}`, "\xff", ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			if e := meter.AsError(err); e.Code != meter.CodeBadCommand || e.Message == "" {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		if m.Type == "read" && (m.ID.IsZero() || m.Read.Command.ID != m.ID || m.Read.Concentrator.IsZero() || m.Read.Command.Meter.IsZero()) {
			t.Fatalf("%q: %+v", b, m)
		}
		if m.Type == "cancel" && m.ID.IsZero() || m.Type == "frames" && m.Concentrator.IsZero() {
			t.Fatalf("%q: %+v", b, m)
		}
	})
}

func FuzzParseClickToCopy(f *testing.F) {
	for _, seed := range []string{copyRequest, `{"Content":{"ConcentratorNo":1e9,"WaterMtrAddress":-0}}`, `ConcentratorNo`, `{"Content":null,"ConcentratorNo":""}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, m, ok := parseClickToCopy(b)
		if !ok {
			return
		}
		if c == "" || m == "" || !json.Valid(b) || !bytes.Contains(b, []byte("ConcentratorNo")) {
			t.Fatalf("%q is no request, got %q %q", b, c, m)
		}
		if line := illegalLine("水表地址", m); strings.ContainsAny(line, "\r\n") || !utf8.ValidString(line) {
			t.Fatalf("%q is not one line", line)
		}
	})
}

func FuzzParseMeters(f *testing.F) {
	for _, seed := range []string{"101,101001,Flat 1\n", "\xef\xbb\xbfconcentrator,meter\n1,2\n", "\xbc\xaf,\xd6\xd0\n1,2,\xb1\xed\n", "\"\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		listed, err := parseMeters(b)
		if err != nil {
			return
		}
		for _, m := range listed {
			if m.Concentrator.IsZero() || m.Meter.IsZero() || !utf8.ValidString(m.Name) {
				t.Fatalf("%q lists %+v", b, m)
			}
		}
	})
}
