package cjt188_test

import (
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/meter"
)

func address(t *testing.T, s string) meter.Address {
	t.Helper()
	a, err := meter.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ask(t *testing.T, d *cjt188.Driver) (driver.Exchange, cjt188.Frame) {
	t.Helper()
	canonical, err := d.Canonical(address(t, "101001"))
	if err != nil {
		t.Fatal(err)
	}
	x := d.NewLink(true).Request(meter.ConcentratorID{}, canonical)
	f, err := cjt188.Parse(x.Frame())
	if err != nil {
		t.Fatal(err)
	}
	return x, f
}

func TestRequest(t *testing.T) {
	d := cjt188.New()
	d.DIOrder, d.MeterType = cjt188.LowFirst, 0x30
	x, f := ask(t, &d)
	ser, _ := f.Serial()
	want := append(unhex(t, "FEFE68300110100000000001031F90"), ser)
	if got := x.Frame(); string(got[:len(got)-2]) != string(want) {
		t.Errorf("request % X, want % X CS 16", got, want)
	}
}

func TestSerialCountsModulo256(t *testing.T) {
	d := cjt188.New()
	link := d.NewLink(false)
	var before byte
	for i := range 300 {
		f, err := cjt188.Parse(link.Request(meter.ConcentratorID{}, address(t, "00000000101001")).Frame())
		if err != nil {
			t.Fatal(err)
		}
		ser, _ := f.Serial()
		if i > 0 && ser != before+1 {
			t.Fatalf("serial number %d after %d", ser, before)
		}
		before = ser
	}
}

func TestJudge(t *testing.T) {
	volume := meter.NewDecimal(12345, 2)
	answer := func(f cjt188.Frame) cjt188.Frame {
		a, err := f.Answer(meter.Reading{Volume: &volume})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for name, row := range map[string]struct {
		reply   func(request cjt188.Frame) cjt188.Frame
		serial  cjt188.SerialRule
		volume  string
		code    meter.Code
		message string // part of the error's or of why the frame is foreign
	}{
		"the answer": {reply: answer, volume: "123.45"},
		"DI in the other order": {reply: func(f cjt188.Frame) cjt188.Frame {
			a := answer(f)
			a.Data[0], a.Data[1] = a.Data[1], a.Data[0]
			return a
		}, volume: "123.45"},
		"another type":  {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Type = 0x25; return a }, volume: "123.45"},
		"another meter": {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Address[0] = 0x02; return a }, message: "meter 00000000101002 answered"},
		"any meter": {reply: func(f cjt188.Frame) cjt188.Frame {
			a := answer(f)
			a.Address = cjt188.Address{0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA}
			return a
		}, message: "meter AAAAAAAAAAAAAA answered"},
		"another function":            {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Control = 0x84; return a }, message: "control 84 answered, expected 81"},
		"another DI":                  {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Data[0], a.Data[1] = 0xD1, 0x20; return a }, message: "DI D120 answered, asked for 901F"},
		"a report nobody asked for":   {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Data[0], a.Data[1] = 0xA2, 0x05; return a }, message: "DI A205 answered"},
		"an unknown DI":               {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Data[0], a.Data[1] = 0x90, 0x90; return a }, message: "DI 9090 answered"},
		"another serial number":       {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Data[2]--; return a }, message: "--cjt188-serial=any"},
		"any serial number":           {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Data[2]--; return a }, serial: cjt188.SerialAny, volume: "123.45"},
		"our own request":             {reply: func(f cjt188.Frame) cjt188.Frame { return f }, message: "a request (control 01) came back"},
		"too short":                   {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Data = a.Data[:2]; return a }, message: "too short"},
		"refused":                     {reply: func(f cjt188.Frame) cjt188.Frame { return f.Refuse(0x11, 0x22) }, code: meter.CodeMeterRefused, message: "meter 00000000101001 refuses the read with status 1122"},
		"refused with a single byte":  {reply: func(f cjt188.Frame) cjt188.Frame { a := f.Refuse(); a.Data = []byte{0x04}; return a }, code: meter.CodeMeterRefused, message: "status 04"},
		"refused with two bytes":      {reply: func(f cjt188.Frame) cjt188.Frame { return f.Refuse(0x04) }, code: meter.CodeMeterRefused, message: "status 04"},
		"a late refusal":              {reply: func(f cjt188.Frame) cjt188.Frame { a := f.Refuse(0x11, 0x22); a.Data[0]--; return a }, message: "late answer"},
		"a refusal of something else": {reply: func(f cjt188.Frame) cjt188.Frame { a := f.Refuse(0x11, 0x22); a.Control = 0xC4; return a }, message: "control C4 answered"},
		"a refusal that is too long":  {reply: func(f cjt188.Frame) cjt188.Frame { return f.Refuse(1, 2, 3) }, message: "a refusal of 4 bytes"},
		"what is not BCD":             {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Data[3] = 0x4A; return a }, code: meter.CodeBadAnswer, message: "the volume 4A230100 is not BCD"},
		"another length":              {reply: func(f cjt188.Frame) cjt188.Frame { a := answer(f); a.Data = a.Data[:20]; return a }, code: meter.CodeBadAnswer, message: "current data of 14 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			d := cjt188.New()
			if row.serial != "" {
				d.Serial = row.serial
			}
			x, request := ask(t, &d)
			v := x.Judge(row.reply(request).Append(nil))
			switch {
			case row.volume != "":
				if v.Reading == nil || v.Err != nil || v.Foreign != "" || v.Reading.Volume.String() != row.volume {
					t.Errorf("verdict %+v, want volume %s", v, row.volume)
				}
			case row.code != 0:
				if v.Err == nil || v.Reading != nil || v.Foreign != "" || v.Err.Code != row.code || !strings.Contains(v.Err.Message, row.message) {
					t.Errorf("verdict %+v %v, want %v with %q", v, v.Err, row.code, row.message)
				}
			default:
				if v.Answers() || v.Reading != nil || v.Err != nil || !strings.Contains(v.Foreign, row.message) {
					t.Errorf("verdict %+v, want foreign with %q", v, row.message)
				}
			}
		})
	}
	d := cjt188.New()
	if x, _ := ask(t, &d); x.Judge([]byte("LOG")).Answers() {
		t.Error("text answers a request")
	}
}

func TestCanonical(t *testing.T) {
	d := cjt188.New()
	for in, want := range map[string]string{
		"101001": "00000000101001", "0": "00000000000000", "00000000101001": "00000000101001", "78330123456789": "78330123456789",
	} {
		if got, err := d.Canonical(address(t, in)); err != nil || got.String() != want {
			t.Errorf("Canonical(%s) = %s, %v, want %s", in, got, err, want)
		}
	}
	for _, bad := range []string{"783301234567890", "10100A", "AAAAAAAAAAAAAA", "10-1", "_"} {
		_, err := d.Canonical(address(t, bad))
		if err == nil || meter.AsError(err).Code != meter.CodeBadCommand || !strings.Contains(err.Error(), bad) {
			t.Errorf("Canonical(%s): %v, want bad_command that names it", bad, err)
		}
	}
}

func TestOptionTexts(t *testing.T) {
	var h cjt188.Heartbeat
	for text, want := range map[string]cjt188.Heartbeat{"LOG": "LOG", "hex:FE00": "\xFE\x00", "": "", "HEX:": "HEX:"} {
		if err := h.UnmarshalText([]byte(text)); err != nil || h != want {
			t.Errorf("heartbeat %q is %q, %v", text, h, err)
		}
	}
	for _, bad := range []string{"hex:F", "hex:XX", "hex:68", "h", strings.Repeat("x", 65)} {
		if err := h.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("heartbeat %q was taken", bad)
		}
	}
	var m cjt188.MeterType
	if err := m.UnmarshalText([]byte("2A")); err != nil || m != 0x2A {
		t.Errorf("meter type %v, %v", m, err)
	}
	for _, bad := range []string{"", "1", "010", "XX"} {
		if err := m.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("meter type %q was taken", bad)
		}
	}
}
