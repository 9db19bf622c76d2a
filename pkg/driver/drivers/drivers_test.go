package drivers_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/driver/drivers"
	"github.com/dianchao/dianchao/pkg/driver/drivertest"
	"github.com/dianchao/dianchao/pkg/meter"
)

// cases has one entry for every driver there is.
var cases = map[string]drivertest.Case{
	"cjt188": {
		Concentrator:  "1001",
		Meters:        [2]string{"101001", "78330123456789"},
		Registrations: []string{"LOGIN:1001"},
		Heartbeats:    []string{"LOG"},
		Noise:         []string{"\r\n", "CTRL:&2017070000000921", "\x52\x4F", "\x00\x00\x00", "\x68\xFF\x00", strings.Repeat("\xFE", 30)},
		Answer: func(request []byte, volume meter.Decimal) []byte {
			f, err := mustParse(request).Answer(meter.Reading{Volume: &volume})
			if err != nil {
				panic(err)
			}
			return f.Append([]byte{0xFE, 0xFE, 0xFE})
		},
		Corrupt: func(answer []byte) []byte {
			answer[len(answer)-10]++
			return answer
		},
		Refuse:  func(request []byte) []byte { return mustParse(request).Refuse(0x11, 0x22).Append(nil) },
		Serials: true,
	},
	"clicktocopy": {
		Concentrator: "101",
		Meters:       [2]string{"101001", "101002"},
		Noise:        []string{"\x00\x00\x00", "\r\n", "123.45 ", "\xCB\xAE\xB1\xED", "}", "[]"},
		Answer: func(request []byte, volume meter.Decimal) []byte {
			return bytes.Replace(request, []byte(`0.0,"IsDownCommand":false`), []byte(volume.String()+"\n"+`,"楼":"`+"\xD6\x7B\x81\x5C"+`"`), 1)
		},
		Corrupt: func(answer []byte) []byte { return bytes.Replace(answer, []byte(`":`), []byte(`" `), 1) },
	},
}

func mustParse(b []byte) cjt188.Frame {
	f, err := cjt188.Parse(b)
	if err != nil {
		panic(err)
	}
	return f
}

func TestEveryDriverKeepsTheContract(t *testing.T) {
	all := drivers.New()
	for _, d := range all.All() {
		t.Run(d.Name(), func(t *testing.T) {
			c, ok := cases[d.Name()]
			if !ok {
				t.Fatalf("driver %q has no case in this test", d.Name())
			}
			c.Driver = d
			drivertest.Run(t, c)
		})
	}
	if len(cases) != len(all.All()) {
		t.Errorf("%d cases for %d drivers", len(cases), len(all.All()))
	}
}

// A vendor's own profile keeps the contract too: other registration, heartbeats that look like frames, DI order.
func TestCJT188KeepsTheContractWithOtherOptions(t *testing.T) {
	d := parse(t, `--cjt188-registration=ID=(?P<number>[A-Za-z0-9]+)\r\n`, "--cjt188-heartbeat=hex:7E7E", "--cjt188-heartbeat=PING,PONG", "--cjt188-di-order=1F90", "--cjt188-meter-type=30")
	c := cases["cjt188"]
	c.Driver = &d.CJT188
	c.Registrations = []string{"ID=1001\r\n"}
	c.Heartbeats = []string{"\x7E\x7E", "PING,PONG"}
	c.Noise = []string{"LOGIN:1", "\x00\x00", "CTRL:&2017070000000921"}
	drivertest.Run(t, c)
}

func TestByName(t *testing.T) {
	all := drivers.New()
	for _, d := range all.All() {
		got, err := all.ByName(d.Name())
		if err != nil || got != d {
			t.Errorf("ByName(%q) = %v, %v", d.Name(), got, err)
		}
	}
	_, err := all.ByName("modbus")
	if err == nil || !strings.Contains(err.Error(), "cjt188, clicktocopy") {
		t.Errorf("ByName of no driver: %v, want the list of those there are", err)
	}
}

func parse(t *testing.T, args ...string) *drivers.Drivers {
	t.Helper()
	var d drivers.Drivers
	p, err := kong.New(&d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &d
}

func TestFlagsSetOptions(t *testing.T) {
	d := parse(t, "--cjt188-serial=any", "--cjt188-heartbeat=hex:00FE", "--clicktocopy-response-timeout=20s")
	if d.CJT188.Serial != cjt188.SerialAny || d.ClickToCopy.ResponseTimeout.String() != "20s" {
		t.Errorf("options %+v", d)
	}
	if h := d.CJT188.Heartbeats; len(h) != 1 || h[0] != "\x00\xFE" {
		t.Errorf("heartbeats %q, a given one replaces the default", h)
	}
}

func TestPrefixesAreNames(t *testing.T) {
	fields := reflect.TypeFor[drivers.Drivers]()
	all := drivers.New()
	for i, d := range all.All() {
		if prefix := fields.Field(i).Tag.Get("prefix"); prefix != d.Name()+"-" {
			t.Errorf("the flags of %s begin with %q", d.Name(), prefix)
		}
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	for name, spoil := range map[string]func(*drivers.Drivers){
		"cjt188-registration": func(d *drivers.Drivers) { d.CJT188.Registration = cjt188.Pattern{} },
		"cjt188-heartbeat": func(d *drivers.Drivers) {
			d.CJT188.Heartbeats = []cjt188.Heartbeat{cjt188.Heartbeat(strings.Repeat("x", 65))}
		},
		"cjt188-di-order":              func(d *drivers.Drivers) { d.CJT188.DIOrder = "9F10" },
		"cjt188-serial":                func(d *drivers.Drivers) { d.CJT188.Serial = "lax" },
		"cjt188-response-timeout":      func(d *drivers.Drivers) { d.CJT188.ResponseTimeout = time.Hour },
		"cjt188-quiet":                 func(d *drivers.Drivers) { d.CJT188.Quiet = 0 },
		"clicktocopy-response-timeout": func(d *drivers.Drivers) { d.ClickToCopy.ResponseTimeout = 0 },
		"clicktocopy-quiet":            func(d *drivers.Drivers) { d.ClickToCopy.Quiet = time.Minute },
	} {
		d := drivers.New()
		spoil(&d)
		if err := d.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("with a bad %s: %v", name, err)
		}
	}
}
