package cjt188_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/meter"
)

func ptr[T any](v T) *T { return &v }

func request(t *testing.T, di ...byte) cjt188.Frame {
	t.Helper()
	a, err := cjt188.ParseAddress("00000000101001")
	if err != nil {
		t.Fatal(err)
	}
	return cjt188.Frame{Type: 0x10, Address: a, Control: cjt188.Read, Data: append(di, 0x2A)}
}

// water is the answer's fields behind DI and SER, in the layout of water and gas.
func water(t *testing.T, fields string) cjt188.Frame {
	t.Helper()
	f := request(t, 0x90, 0x1F)
	f.Control |= cjt188.Reply
	f.Data = append(f.Data, unhex(t, strings.ReplaceAll(fields, " ", ""))...)
	return f
}

func TestReadingOfWater(t *testing.T) {
	const noClock = " FFFFFFFFFFFFFF"
	for name, row := range map[string]struct{ fields, want string }{
		"m³ with two decimals":          {"45230100 2C 00200100 2C 06201709011720 0000", `{"clock":"2017-01-09T17:20:06","raw_status":"0000","settlement_m3":"120.00","status":{"battery":"ok","valve":"open"},"volume_m3":"123.45"}`},
		"litres":                        {"45230100 29 00000000 29" + noClock + " 0000", `{"clock":null,"raw_status":"0000","settlement_m3":"0.000","status":{"battery":"ok","valve":"open"},"volume_m3":"12.345"}`},
		"99 fill is null, any unit":     {"99999999 2C 99999999 99 99999999999999 0000", `{"clock":null,"raw_status":"0000","settlement_m3":null,"status":{"battery":"ok","valve":"open"},"volume_m3":null}`},
		"FF fill is null, any unit":     {"FFFFFFFF FF FFFFFFFF 2C" + noClock + " FFFF", `{"clock":null,"raw_status":"FFFF","settlement_m3":null,"status":{"battery":null,"valve":null},"volume_m3":null}`},
		"one 99 is a digit":             {"99999900 2C 99000000 2C" + noClock + " 0000", `{"clock":null,"raw_status":"0000","settlement_m3":"0.99","status":{"battery":"ok","valve":"open"},"volume_m3":"9999.99"}`},
		"valve closed, battery low":     {"00000000 2C 00000000 2C" + noClock + " 0500", `{"clock":null,"raw_status":"0500","settlement_m3":"0.00","status":{"battery":"low","valve":"closed"},"volume_m3":"0.00"}`},
		"valve moving, vendor's bits":   {"00000000 2C 00000000 2C" + noClock + " E2C0", `{"clock":null,"raw_status":"E2C0","settlement_m3":"0.00","status":{"battery":"ok","valve":"moving"},"volume_m3":"0.00"}`},
		"valve abnormal":                {"00000000 2C 00000000 2C" + noClock + " 0300", `{"clock":null,"raw_status":"0300","settlement_m3":"0.00","status":{"battery":"ok","valve":"abnormal"},"volume_m3":"0.00"}`},
		"clock high byte first":         {"00000000 2C 00000000 2C 20170109172006 0000", `{"clock":"2017-01-09T17:20:06","raw_status":"0000","settlement_m3":"0.00","status":{"battery":"ok","valve":"open"},"volume_m3":"0.00"}`},
		"reversed clock is no year 620": {"00000000 2C 00000000 2C 20110509112006 0000", `{"clock":"2011-05-09T11:20:06","raw_status":"0000","settlement_m3":"0.00","status":{"battery":"ok","valve":"open"},"volume_m3":"0.00"}`},
		"no such day":                   {"00000000 2C 00000000 2C 00000031022520 0000", `{"clock":null,"raw_status":"0000","settlement_m3":"0.00","status":{"battery":"ok","valve":"open"},"volume_m3":"0.00"}`},
		"clock that is not BCD":         {"00000000 2C 00000000 2C 0A201709011720 0000", `{"clock":null,"raw_status":"0000","settlement_m3":"0.00","status":{"battery":"ok","valve":"open"},"volume_m3":"0.00"}`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := water(t, row.fields).Reading()
			if err != nil {
				t.Fatal(err)
			}
			if got := asJSON(t, r); got != row.want {
				t.Errorf("reading\n %s, want\n %s", got, row.want)
			}
		})
	}
}

func TestReadingRefuses(t *testing.T) {
	rest := " 00000000 2C 00000000000000 0000"
	for name, row := range map[string]struct{ fields, why string }{
		"not BCD":            {"4523010A 2C" + rest, "the volume 4523010A is not BCD"},
		"half filled":        {"452301FF 2C" + rest, "the volume 452301FF is not BCD"},
		"settlement not BCD": {"00000000 2C 0000E000 2C 00000000000000 0000", "the volume at settlement 0000E000 is not BCD"},
		"unknown unit":       {"45230100 7F" + rest, "the unit 7F of the volume is not known"},
		"unit of heat":       {"45230100 05" + rest, "the volume is in kWh, which is no unit of volume"},
		"a byte short":       {"45230100 2C 00000000 2C 00000000000000 00", "current data of 15 bytes, known are 16 (water, gas) and 2E (heat)"},
		"nothing":            {"", "current data of 03 bytes, known are 16 (water, gas) and 2E (heat)"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := water(t, row.fields).Reading(); err == nil || err.Error() != row.why {
				t.Errorf("%v, want %q", err, row.why)
			}
		})
	}
}

func TestReadingOfHeat(t *testing.T) {
	const tail = " 32000000 2C 622400 182500 763905 53061621121820 0500"
	r, err := water(t, "00010000 11 00020000 0E 50010000 14 00120500 32"+tail).Reading()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"clock":"2018-12-21T16:06:53","heat":{"energy":{"unit":"MJ","value":"2.00"},"flow":{"unit":"L/h","value":"5.1200"},"hours":53976,"power":{"unit":"W","value":"1.50"},"return_c":"25.18","settlement":{"unit":"GJ","value":"1.00"},"supply_c":"24.62"},"raw_status":"0500","settlement_m3":null,"status":{"battery":"low","valve":"closed"},"volume_m3":"0.32"}`
	if got := asJSON(t, r); got != want {
		t.Errorf("reading\n %s, want\n %s", got, want)
	}
	filled, err := water(t, strings.Repeat("FF", 0x2E-3)).Reading()
	if err != nil {
		t.Fatal(err)
	}
	want = `{"clock":null,"heat":{"energy":null,"flow":null,"hours":null,"power":null,"return_c":null,"settlement":null,"supply_c":null},"raw_status":"FFFF","settlement_m3":null,"status":{"battery":null,"valve":null},"volume_m3":null}`
	if got := asJSON(t, filled); got != want {
		t.Errorf("reading\n %s, want\n %s", got, want)
	}
}

// Golden bytes: what a meter sends for these values.
func TestAnswer(t *testing.T) {
	clock, _ := meter.NewClock(2026, 11, 22, 16, 0, 1)
	full := meter.Reading{
		Volume: ptr(meter.NewDecimal(12345, 2)), Settlement: ptr(meter.NewDecimal(120, 0)), Clock: &clock,
		Status: meter.Status{Valve: ptr(meter.ValveClosed), Battery: ptr(meter.BatteryLow)},
	}
	for name, row := range map[string]struct {
		di      []byte
		reading meter.Reading
		want    string
	}{
		"everything":           {[]byte{0x90, 0x1F}, full, "6810011010000000008116901F2A452301002C002001002C0100162211262005008016"},
		"the request's order":  {[]byte{0x1F, 0x90}, full, "68100110100000000081161F902A452301002C002001002C0100162211262005008016"},
		"nothing is supported": {[]byte{0x90, 0x1F}, meter.Reading{}, "6810011010000000008116901F2AFFFFFFFF2CFFFFFFFF2CFFFFFFFFFFFFFFFFFF5016"},
		"status as it is":      {[]byte{0x90, 0x1F}, meter.Reading{RawStatus: meter.Hex{0x13, 0x01}}, "6810011010000000008116901F2AFFFFFFFF2CFFFFFFFF2CFFFFFFFFFFFFFF13016616"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := request(t, row.di...).Answer(row.reading)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Append(nil); !slices.Equal(got, unhex(t, row.want)) {
				t.Errorf("answer %X, want %s", got, row.want)
			}
			r, err := f.Reading()
			if err != nil {
				t.Fatal(err)
			}
			r.RawStatus, row.reading.RawStatus = nil, nil
			if row.reading.Volume != nil && asJSON(t, r) != strings.Replace(asJSON(t, row.reading), `"120"`, `"120.00"`, 1) {
				t.Errorf("reading %s, want %s", asJSON(t, r), asJSON(t, row.reading))
			}
		})
	}
}

func TestAnswerRefuses(t *testing.T) {
	fits := request(t, 0x90, 0x1F)
	for name, v := range map[string]meter.Decimal{
		"negative": meter.NewDecimal(-1, 2), "seven digits": meter.NewDecimal(1000000, 0), "litres": meter.NewDecimal(1001, 3),
	} {
		if _, err := fits.Answer(meter.Reading{Volume: &v}); err == nil {
			t.Errorf("%s: %s was encoded", name, v)
		}
	}
	for _, f := range []cjt188.Frame{request(t, 0x81, 0x0A), request(t), water(t, "")} {
		if _, err := f.Answer(meter.Reading{}); err == nil {
			t.Errorf("%+v was answered with current data", f)
		}
	}
}
