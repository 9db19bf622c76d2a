package cjt188

import (
	"encoding/hex"
	"testing"
)

func TestDescribe(t *testing.T) {
	for _, row := range []struct{ name, frame, want string }{
		{"request", "FEFEFEFE6810180212202000000103901F009716", "CJ/T 188 read 901F, meter 00002020120218, SER 00"},
		{"answer", "FEFE6810454110051533788116901FAA005959002CFFFFFFFF2CFFFFFFFFFFFFFF0000C216", "CJ/T 188 read answer 901F, meter 78331505104145, SER AA, 5959.00 m³"},
		{"refusal", "681011223344556677C1030111224C16", "CJ/T 188 read refused, meter 77665544332211, SER 01, status 1122"},
		{"address", "6810010000050800008303810A009716", "CJ/T 188 read address answer 810A, meter 00000805000001, SER 00"},
		{"a vendor's own control", "FEFEFE6810010000050800002A04A0170055C016", "CJ/T 188 control 2A A017, meter 00000805000001, SER 00"},
		{"no frame", "4C4F47", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, err := hex.DecodeString(row.frame)
			if err != nil {
				t.Fatal(err)
			}
			d := New()
			if got := d.Describe(b); got != row.want {
				t.Errorf("got  %q\nwant %q", got, row.want)
			}
		})
	}
}
