package cjt188_test

import (
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
)

func withRegistration(t *testing.T, s string) cjt188.Driver {
	t.Helper()
	d := withHeartbeats()
	p, err := cjt188.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	d.Registration = p
	return d
}

func TestRegistrationWaitsForAsLongAsItMayGoOn(t *testing.T) {
	const byDefault = `LOGIN:(?P<number>[0-9]{1,32})`
	for name, row := range map[string]struct {
		pattern, sent string
		number        string // "" if none is found while more may come
	}{
		"more digits may come":              {byDefault, "LOGIN:301", ""},
		"another byte ends it":              {byDefault, "LOGIN:301\r", "301"},
		"a frame ends it":                   {byDefault, "LOGIN:301\x68", "301"},
		"as many digits as there can be":    {byDefault, "LOGIN:" + strings.Repeat("1", 32), strings.Repeat("1", 32)},
		"fixed length":                      {`(?P<number>[0-9]{15})`, "860000000000001", "860000000000001"},
		"fixed length, a digit short":       {`(?P<number>[0-9]{15})`, "86000000000000", ""},
		"end of text is a silence":          {`ID(?P<number>\d{3})$`, "ID301", ""},
		"terminator":                        {`\*(?P<number>\w+)#`, "*A1#", "A1"},
		"terminator is missing":             {`\*(?P<number>\w+)#`, "*A1", ""},
		"case does not matter":              {`(?i)login:(?P<number>\d{3})`, "LoGiN:301", "301"},
		"alternatives":                      {`(?:DTU|LOGIN):(?P<number>\d{3})`, "DTU:301", "301"},
		"bytes above 7F":                    {`\xFE\x01(?P<number>\d{3})\x80`, "\xFE\x01301\x80", "301"},
		"an optional tail may come":         {`ID(?P<number>\d{3})(?:;v1)?`, "ID301", ""},
		"an optional tail does not come":    {`ID(?P<number>\d{3})(?:;v1)?`, "ID301x", "301"},
		"an optional tail comes":            {`ID(?P<number>\d{3})(?:;v1)?`, "ID301;v1", "301"},
		"a number that no subject can hold": {`ID(?P<number>.{3});`, "ID1.1;", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := withRegistration(t, row.pattern)
			e, _ := d.NewLink(false).Next([]byte(row.sent), false)
			if got := e.Concentrator.String(); got != row.number {
				t.Errorf("%q names %q, want %q", row.sent, got, row.number)
			}
		})
	}
}

func TestRegistrationEndsInASilence(t *testing.T) {
	for pattern, sent := range map[string]string{
		`LOGIN:(?P<number>[0-9]{1,32})`: "LOGIN:301",
		`ID(?P<number>\d{3})$`:          "ID301",
		`ID(?P<number>\d{3})(?:;v1)?`:   "ID301",
	} {
		d := withRegistration(t, pattern)
		e, n := d.NewLink(false).Next([]byte(sent), true)
		if e.Kind != driver.Registration || e.Concentrator.String() != "301" || n != len(sent) {
			t.Errorf("%q is %v, %d bytes", sent, e, n)
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for pattern, why := range map[string]string{
		`LOGIN:([0-9]+`:        "no regular expression",
		`LOGIN:([0-9]+)`:       "no group (?P<number>…)",
		`(?P<number>[0-9]*)`:   "matches the empty text",
		`LOGIN:(?P<id>[0-9]+)`: "no group (?P<number>…)",
		`(?P<number>\C)`:       "no regular expression",
	} {
		if _, err := cjt188.ParsePattern(pattern); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", pattern, err, why)
		}
	}
}
